"""The signals by which batch systems and terminals end a job.

They send them to every process of it. Slurm, Grid Engine and LSF may be asked to send one some time
before they kill: SIGUSR1, SIGUSR2, or SIGXCPU for a limit of processor time.
"""

import signal

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


def is_taken(number: int) -> bool:
    """Whether a signal is ignored, as with nohup, or has a handler that is not Python's."""
    return signal.getsignal(number) in (signal.SIG_IGN, None)
