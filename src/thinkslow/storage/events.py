"""TensorBoard events, written by the caller itself.

The usual writer of tensorboardX has a thread. If that ends, as at a full disk or after a clock that
is set back by a month, its queue fills, and the next value waits for ever.
"""

import time
from pathlib import Path
from typing import Any

FLUSH_EVERY = 30.0
"""Seconds after which events are certainly on disk."""


class Events:
    """A file of events in a folder, which is created.

    Args:
        folder: the run, as TensorBoard calls it.
        purge: forget the earlier events of this run from this step on; None: keep all.

    **Errors:** `OSError`, here and later, if the file cannot be written.
    """

    def __init__(self, folder: Path, *, purge: int | None = None):
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2  # pyright: ignore[reportAttributeAccessIssue]

        self._event: Any = event_pb2
        folder.mkdir(parents=True, exist_ok=True)
        self._file = event_file_writer.EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()
        if purge is not None:
            begins = self._event.SessionLog(status=self._event.SessionLog.START)
            self._write(self._event.Event(step=purge, session_log=begins))

    def add_scalar(self, tag: str, scalar_value: float | int, global_step: int) -> None:
        """Write one number at one step."""
        from tensorboardX.summary import scalar

        self.add_summary(scalar(tag, scalar_value), global_step)

    def add_summary(self, summary: Any, step: int = 0) -> None:
        """Write a summary of tensorboardX at one step."""
        self._write(self._event.Event(summary=summary, step=step))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._file.write_event(event)
        if time.monotonic() - self._flushed >= FLUSH_EVERY:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._file.close()
