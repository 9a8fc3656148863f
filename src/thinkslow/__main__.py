"""The command `thinkslow`, also as `python -m thinkslow`.

Until the command line is imported, and again after a command, Ctrl-C ends the process at once:
there is nothing to finish yet, or no more.
"""

import signal
import sys


def main() -> int:
    """Run the command of this process and return the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from thinkslow import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
