"""One writer per folder: whatever writes several files into a folder locks it meanwhile.

The claim is a file in the folder, `lock.json`, with the host, the process id, the start time of the
process and its command. It is removed at the end. A killed process leaves it behind. A claim of
this machine is stale, and is taken over, if its process no longer exists or if the process with
this id started at another time. A container counts processes on its own, so the process of another
one is found by the system's lock of the file, which ends with it. Processes of another machine
cannot be checked, so their claim is valid until the user deletes the file.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import platform
import shlex
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from thinkslow.storage import atomic
from thinkslow.storage.reading import is_file, read_bounded

NAME = "lock.json"
LARGEST = 2**20
"""Bytes of the largest claim that is read; it holds a command."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
"""Errors of a file system without locks."""


class Locked(RuntimeError):
    """Another process writes to the folder."""


class Lost(RuntimeError):
    """The folder was deleted, or another process took it over, while it was held."""

    def __init__(self, message: str, *, deleted: bool):
        super().__init__(message)
        self.deleted = deleted
        """Whether no other process holds the folder."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a folder."""

    host: str
    process: int
    started: str
    """Start time of the process in the system's own count. It distinguishes processes with the same
    id.
    """
    command: str
    since: str
    """Local time when the folder was claimed."""
    space: str = ""
    """The system's name for where process ids count; each container has its own."""

    @classmethod
    def me(cls) -> "Holder":
        """This process."""
        process = os.getpid()
        return cls(
            platform.node(),
            process,
            began(process) or "",
            shlex.join(sys.argv),
            time.strftime("%Y-%m-%d %H:%M:%S"),
            _space(),
        )

    def same(self, other: "Holder") -> bool:
        """Whether both are the same process."""
        mine, theirs = (dataclasses.astuple(one)[:3] for one in (self, other))
        return mine == theirs

    @property
    def here(self) -> bool:
        """Whether the process is of this machine, and its id can be looked up."""
        return self.host == platform.node() and self.space in ("", _space())


class Lock:
    """A folder that this process holds. `claim` makes it; call `release` at the end."""

    def __init__(self, folder: Path, holder: Holder, descriptor: int):
        self.folder, self.holder = folder, holder
        self._renewed: Lock | None = None
        # Also if this object is garbage collected, and when the interpreter ends.
        self._finalizer = weakref.finalize(self, _release, folder, holder, descriptor)

    def check(self) -> None:
        """Check that this process still holds the folder; call it before each write.

        **Errors:** `Lost` if the folder or the claim was deleted, or if another process has it now.
        """
        try:
            found = _read(self.folder)
        except ValueError:
            found = None
        if found is None or not found.same(self.holder):
            what = "deleted or moved" if found is None else f"taken over by process {found.process}"
            raise Lost(
                f"{self.folder} was {what} while process {self.holder.process} wrote in it.",
                deleted=found is None,
            )

    def renew(self) -> None:
        """Claim the folder again if it was deleted. Call it if all of its content is written next.

        **Errors:** `Lost` if another process has it now; those of `claim`.
        """
        try:
            self.check()
        except Lost as lost:
            if not lost.deleted:
                raise
            watched = atomic.GUARDS.pop(self.folder, None)
            self._renewed = claim(self.folder)
            if watched is not None:
                atomic.GUARDS[self.folder] = watched

    def release(self) -> None:
        """Release the folder. A second call does nothing."""
        self._finalizer()
        if self._renewed is not None:
            self._renewed.release()


def claim(folder: str | Path) -> Lock:
    """Hold a folder until `release` or the end of the process. A missing folder is created.

    Args:
        folder: the folder to write to.

    **Errors:** `Locked` if another process holds it, or this process already does; the message has
    the process id, the host and a remedy. `OSError` if the folder cannot be created or written to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     held = claim(folder)
    ...     held.check()
    ...     held.release()
    """
    folder = atomic.absolute(folder)
    with _writable(folder), _one_at_a_time(folder):
        try:
            found = _read(folder)
        except ValueError as error:
            raise Locked(
                f"{folder / NAME} does not say which process writes in {folder} ({error}). If no "
                "process does, delete that file."
            ) from None
        if found is not None and not _gone(folder, found):
            here, same = found.here, found.host == platform.node()
            where = found.host if not same else f"this machine{'' if here else ', in a container,'}"
            end = f"end it (kill {found.process})" if here else "end it there"
            stale = "" if here else f" If it runs no more, delete {folder / NAME}."
            raise Locked(
                f"{folder} is in use: process {found.process} on {where} writes there since "
                f"{found.since} ({found.command}). Wait for it, {end}, or choose another "
                f"folder.{stale}"
            )
        holder = Holder.me()
        text = json.dumps(dataclasses.asdict(holder), indent=1)
        atomic.write_text(folder / NAME, text + "\n")
        descriptor = os.open(folder / NAME, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    return Lock(folder, holder, descriptor)


@contextlib.contextmanager
def writing(folder: str | Path) -> Iterator[Lock]:
    """Hold a folder during the body. A missing folder is created, and removed if it stays empty.

    Before each write inside it by `atomic` or `lines` it is checked that the folder is still held.

    **Errors:** those of `claim`; `Lost` if the folder was deleted, moved or taken over meanwhile.
    """
    folder = atomic.absolute(folder)
    fresh = not folder.exists()
    lock = claim(folder)

    def check() -> None:
        try:
            lock.check()
        except Lost as lost:
            raise Lost(
                f"{lost} If it was moved, continue in its new place; if it was deleted, run the "
                "command again.",
                deleted=lost.deleted,
            ) from None

    atomic.GUARDS[folder] = check
    try:
        yield lock
    except OSError:
        check()  # a missing file of a folder that is gone is not the cause
        raise
    finally:
        atomic.GUARDS.pop(folder, None)
        lock.release()
        if fresh:
            with contextlib.suppress(OSError):  # it holds something, or is gone
                folder.rmdir()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a single file during the body by the system's lock, which ends with the process. A
    missing file is created.

    **Errors:** `Locked` if another process, or another writer of this one, holds it; `Damaged` if
    it is no file.
    """
    is_file(path)  # opening a pipe would wait for its reader
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    with _flocked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) as mine:
        if not mine:
            raise Locked(
                f"{path} is in use: another recording writes it. Wait for it, or choose another "
                "path."
            )
        yield


def began(process: int) -> str | None:
    """Start time of a process of this machine, in the system's own count; None if it no longer
    exists.
    """
    system = Path("/proc")
    if (system / "self" / "stat").exists():
        try:
            fields = (system / str(process) / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # Z is a zombie: a process that has ended but whose parent has not collected it.
        return None if fields[0] in "ZX" else fields[19]
    import subprocess  # slow

    command = ["ps", "-o", "lstart=", "-p", str(process)]
    plain = os.environ | {"LC_ALL": "C", "TZ": "UTC"}  # or two terminals would call it differently
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    return done.stdout.strip() or None


def _read(folder: Path) -> Holder | None:
    """The claim; None if there is none.

    **Errors:** `ValueError` for a file that is not a claim.
    """
    try:
        found = {"space": "", **json.loads(read_bounded(folder / NAME, LARGEST, "a claim"))}
        kinds = {field.name: type(found[field.name]) for field in dataclasses.fields(Holder)}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing") from error
    except RecursionError as error:
        raise ValueError("it is not JSON") from error
    wrong = [n for n, kind in kinds.items() if kind is not (int if n == "process" else str)]
    if wrong:
        raise ValueError(f"{wrong[0]} is a {kinds[wrong[0]].__name__}")
    return Holder(**{name: found[name] for name in kinds})


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return ""


def _gone(folder: Path, holder: Holder) -> bool:
    """Whether the process certainly no longer exists."""
    if holder.here:
        return began(holder.process) != holder.started
    if holder.host != platform.node():
        return False
    descriptor = os.open(folder / NAME, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is held, or the file system has no locks
        return False
    finally:
        os.close(descriptor)
    return True


def _release(folder: Path, holder: Holder, descriptor: int) -> None:
    if os.getpid() != holder.process:  # a fork of the process that holds it
        return
    claimed = os.fstat(descriptor)
    os.close(descriptor)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _one_at_a_time(folder):
        # Another claim may be there now, of this process too.
        if os.path.samestat(claimed, (folder / NAME).stat()):
            (folder / NAME).unlink()


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Create the folder. The error for a folder that cannot be written to has a remedy."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        hint = "Copy it to another place, or choose" if folder.is_dir() else "Choose"
        text = f"{folder} cannot be written in ({error.strerror}). {hint} another folder."
        raise PermissionError(error.errno, text) from error


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Allow one process at a time to read and change a claim.

    It uses the system's lock on the folder, which ends with the process. It is held only briefly,
    because processes started in the meantime may inherit it. If the file system has no locks, two
    claims at the same instant are not distinguished.
    """
    with _flocked(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _flocked(descriptor: int, how: int) -> Iterator[bool]:
    """Hold the system's lock of an open file and close it after the body; gives whether it is held,
    or the file system has no locks.
    """
    try:
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield True
    finally:
        os.close(descriptor)
