"""Play one task in a separate process: `python -m thinkslow.study.worker FOLDER TASK`."""

import json
import logging
import os
import sys
import threading
from pathlib import Path

from thinkslow.study import stored
from thinkslow.study.executors import REFUSED
from thinkslow.study.tasks import Task, play


def play_stored(folder: Path, task: Task) -> None:
    """Play a task of the study in a folder."""
    play(stored.read(folder).plan, task, folder / task.folder)


def end_with_parent() -> None:
    """End this process when its standard input closes, which happens when its parent ends."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, task = Path(sys.argv[1]), Task(**json.loads(sys.argv[2]))
    try:
        play_stored(folder, task)
    except KeyboardInterrupt:
        return 130
    except ValueError as error:  # a task that cannot be played at all
        print(error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
