"""A replay buffer of sequences: the last time steps of several parallel streams of experience.

A row is one time step of every stream: observation, action, reward, flags, and the latent that the
agent carried then. Here they are all named fields of fixed shape and dtype. Each stream is a ring
buffer. All streams advance together, so a time step is identified by its stream and its absolute
time, the number of rows added before it. Only NumPy is used. Nothing is locked: one thread adds,
samples and writes back.

**On disk**, a save writes new files and never changes an existing one. Rows since the last save go
to `rows-…` segments. Rows of earlier segments that `write` has changed since then go to `latents-…`
patches. Once the patches hold more rows than the replay, one patch with every changed row replaces
them. `save` returns the index, a small JSON dictionary that lists the files; the caller stores it
in its own checkpoint. Files of earlier saves are deleted only by `commit`, which the caller calls
once its checkpoint is in place. If a process is killed at any instant, the last checkpoint's index
therefore still finds all of its files:

    index = replay.save()
    saves.write(run / "saves", arrays, {"replay": index})
    replay.commit(index)
"""

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thinkslow.plural import plural
from thinkslow.storage import atomic, store
from thinkslow.storage.reading import is_file

Fields = Mapping[str, tuple[tuple[int, ...], Any]]
Rows = dict[str, np.ndarray]

FORMAT = 2
SEGMENT_BYTES = 64 * 2**20
NAMED = re.compile(r"\.?(?:rows|latents)-(\d+)-\d+-\d+\.bin(?:\.tmp-[0-9a-f]{8})?")


class Indices(NamedTuple):
    """The time steps of a sample: `stream[b]` at absolute `time[b, t]`."""

    stream: np.ndarray
    time: np.ndarray

    def part(self, start: int | None, stop: int | None = None) -> "Indices":
        """The same windows, cut to steps `start:stop`, to write back only those."""
        return Indices(self.stream, self.time[:, start:stop])


class Replay:
    """The last `capacity // streams` time steps of each of `streams` streams.

    Memory is used as rows are added, so a large empty buffer costs nothing.
    """

    def __init__(
        self,
        fields: Fields,
        *,
        streams: int,
        capacity: int,
        path: str | Path | None = None,
        mutable: Iterable[str] = (),
    ):
        """Make an empty replay.

        `fields` maps a name to the shape and dtype of one time step of one stream; `capacity`
        counts time steps over all streams; `path` is the folder for `save`, which belongs to
        the replay alone; `mutable` names the fields that `write` may change.

        **Errors:** `ValueError` for sizes below one, a mutable name that is no field, or more
        memory than the system gives.
        """
        if streams < 1 or capacity < streams:
            raise ValueError(
                f"`capacity` must be at least `streams`, and `streams` at least 1; got "
                f"{capacity} and {streams}. Raise the capacity."
            )
        self.fields = {n: (tuple(shape), np.dtype(kind)) for n, (shape, kind) in fields.items()}
        self.mutable = tuple(mutable)
        if objects := [name for name, (_, kind) in self.fields.items() if kind.hasobject]:
            raise ValueError(f"A field must hold numbers; {objects[0]} holds Python objects.")
        if unknown := [name for name in self.mutable if name not in self.fields]:
            raise ValueError(f"A mutable field must be a field; {unknown[0]} is not.")
        self.path = None if path is None else Path(path)
        self.streams = streams
        self.size = capacity // streams
        self._added = 0  # rows ever added, which is the absolute time of the next one
        try:
            self._rows = {  # zeros, because Linux allocates those pages only on first use
                name: np.zeros((streams, self.size, *shape), kind)
                for name, (shape, kind) in self.fields.items()
            }
        except MemoryError as error:
            raise ValueError(
                f"A replay of {capacity:,} time steps needs {self.nbytes / 2**30:,.1f} GiB of "
                "memory, which the system does not give. Lower `replay_capacity`."
            ) from error
        # For each time step, whether its mutable fields differ from those of its segment, and from
        # those of the last save.
        self._changed = np.zeros((streams, self.size), bool)
        self._unsaved = np.zeros((streams, self.size), bool)
        self._segments: list[list[Any]] = []
        self._patches: list[list[Any]] = []
        self._saved = 0  # rows with a time below this are in self._segments, if still held
        self._number = 0  # of the last save

    def __len__(self) -> int:
        """Time steps held, over all streams."""
        return self.streams * (self._added - self._oldest)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its rows take once it is full."""
        step = sum(math.prod(shape) * kind.itemsize for shape, kind in self.fields.values())
        return self.streams * self.size * step

    @property
    def steps(self) -> int:
        """Time steps ever added, over all streams."""
        return self.streams * self._added

    @property
    def _oldest(self) -> int:
        return max(0, self._added - self.size)

    def add(self, row: Mapping[str, np.ndarray]) -> None:
        """Append one time step, `row[name]` of shape `(streams, *shape)`, and drop the oldest.

        **Errors:** `ValueError` for other names or shapes; `TypeError` for a dtype that would lose
        information (integers to smaller or unsigned ones, floats to integers). Nothing is added
        then.
        """
        if row.keys() != self.fields.keys():
            names = sorted(row.keys() ^ self.fields.keys())
            raise ValueError(f"A row must have exactly the fields of the replay; see {names}.")
        checked = {name: self._checked(name, row[name], (self.streams,)) for name in row}
        position = self._added % self.size
        for name, value in checked.items():
            self._rows[name][:, position] = value
        self._changed[:, position] = self._unsaved[:, position] = False
        self._added += 1

    def sample(self, rng: np.random.Generator, batch: int, length: int) -> tuple[Rows, Indices]:
        """Draw `batch` windows of `length` successive steps, uniformly, with replacement.

        A window lies in one stream and never spans the newest and the oldest step; it may cross
        from one episode to the next (look at `is_first`). Each field comes as a fresh array
        `(batch, length, *shape)`. One draw from `rng` decides all.

        **Errors:** `ValueError` if fewer than `length` steps per stream are held.
        **Cost:** one copy of what is returned: 16 windows of 65 images of 64x64x3 are 13 MB.
        """
        held = self._added - self._oldest
        if batch < 1 or length < 1:
            raise ValueError(f"`batch` and `length` must be 1 or more; got {batch} and {length}.")
        if held < length:
            raise ValueError(
                f"A window of {length} steps needs as many in each stream; the replay holds "
                f"{held} (it can hold {self.size}). Add more steps, or sample shorter windows."
            )
        windows = held - length + 1
        stream, start = np.divmod(rng.integers(self.streams * windows, size=batch), windows)
        indices = Indices(stream, self._oldest + start[:, None] + np.arange(length))
        places = self._places(indices)
        return {
            name: _flat(rows).take(places, axis=0) for name, rows in self._rows.items()
        }, indices

    def write(self, indices: Indices, fields: Mapping[str, np.ndarray]) -> None:
        """Overwrite mutable fields at sampled steps; `fields[name]` is `(batch, length, …)`.

        Steps that have left the replay since they were sampled are skipped. Where windows overlap,
        the last one in batch order is kept.

        **Errors:** `ValueError` or `TypeError` as in `add`; `ValueError` for a field that is not
        mutable. Nothing is written then.
        """
        if fixed := [name for name in fields if name not in self.mutable]:
            raise ValueError(f"Only mutable fields can be written: {self.mutable}; got {fixed[0]}.")
        shape = indices.time.shape
        checked = {name: self._checked(name, value, shape) for name, value in fields.items()}
        live = indices.time >= self._oldest
        places = self._places(indices)[live]
        for name, value in checked.items():
            _flat(self._rows[name])[places] = value[live]
        old = places[indices.time[live] < self._saved]
        _flat(self._changed)[old] = _flat(self._unsaved)[old] = True

    def save(self) -> dict[str, Any]:
        """Write the changes to `path` and return the index that `load` needs.

        The files of every earlier save stay until `commit`.

        **Errors:** `atomic.Full` if the disk is full. The files of this save are then removed; the
        replay and its earlier saves are unchanged.
        **Cost:** writes the rows added since the last save, and the mutable fields of the rows
        written back since then; from time to time those of every row ever written back.
        """
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max(self._number, 0, *_numbers(folder).values())
        new: list[list[Any]] = []
        patches: list[list[Any]] = []
        kept = [entry for entry in self._patches if entry[1] > self._oldest]
        unsaved = self._unsaved
        if sum(entry[2] for entry in kept) + int(unsaved.sum()) > len(self):
            kept, unsaved = [], self._changed
        try:
            self._write_rows(new, f"rows-{number}", max(self._saved, self._oldest))
            self._write_patches(patches, f"latents-{number}", unsaved)
        except BaseException:
            for entry in new + patches:
                (folder / entry[0]).unlink(missing_ok=True)
            raise
        rows = [entry for entry in self._segments if entry[2] > self._oldest] + new
        self._segments, self._patches = rows, kept + patches
        self._saved, self._number = self._added, number
        self._unsaved[...] = False
        return {
            "format": FORMAT,
            "streams": self.streams,
            "size": self.size,
            "added": self._added,
            "number": number,
            "fields": {n: [list(shape), kind.name] for n, (shape, kind) in self.fields.items()},
            "mutable": list(self.mutable),
            "rows": [list(entry) for entry in rows],
            "latents": [list(entry) for entry in self._patches],
        }

    def missing(self) -> Path | None:
        """A file of the last save that no longer exists, or None."""
        entries = [entry for entry in self._segments if entry[2] > self._oldest]
        entries += [entry for entry in self._patches if entry[1] > self._oldest]
        paths = (self._folder() / entry[0] for entry in entries)
        return next((path for path in paths if not path.exists()), None)

    def forget_files(self) -> None:
        """Record that the files of all saves are gone, so that the next save writes everything."""
        self._segments, self._patches, self._saved = [], [], 0
        self._changed[...] = self._unsaved[...] = False

    def commit(self, index: Mapping[str, Any]) -> None:
        """Remove the files of saves up to that of `index` that `index` does not need.

        Call it once the checkpoint with `index` is on the disk.
        """
        folder = self._folder()
        kept = {entry[0] for entry in (*index["rows"], *index["latents"])}
        for name, number in _numbers(folder).items():
            if number <= index["number"] and name not in kept:
                (folder / name).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove files that no save needs, of a save that a kill or a full disk ended.

        Only for the one process that writes the replay, before its first save.
        """
        kept = {entry[0] for entry in (*self._segments, *self._patches)}
        for name in _numbers(self._folder()):
            if name not in kept:
                (self._folder() / name).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, index: Mapping[str, Any]) -> "Replay":
        """Load the replay as it was when `save` returned `index`; later files are ignored.

        **Errors:** `store.Missing` and `store.Damaged` name the file that is absent, truncated or
        altered, or the format that this version does not read.
        **Cost:** one pass over the files, one segment (64 MiB) at a time.
        """
        if index.get("format") != FORMAT:
            raise store.Damaged(
                f"This version reads replays of format {FORMAT}; the index has format "
                f"{index.get('format')}. Resume with the version that wrote it."
            )
        replay = cls(
            {name: (tuple(shape), kind) for name, (shape, kind) in index["fields"].items()},
            streams=index["streams"],
            capacity=index["streams"] * index["size"],
            path=path,
            mutable=index["mutable"],
        )
        replay._added = replay._saved = index["added"]
        replay._number = index["number"]
        replay._segments = [list(entry) for entry in index["rows"]]
        replay._patches = [list(entry) for entry in index["latents"]]
        for entry in replay._segments:
            replay._read_rows(*entry)
        for entry in replay._patches:
            replay._read_patch(*entry)
        return replay

    def _checked(self, name: str, value: Any, leading: tuple[int, ...]) -> np.ndarray:
        shape, kind = self.fields[name]
        array = np.asarray(value)
        if array.shape != (*leading, *shape):
            raise ValueError(f"{name} must have shape {(*leading, *shape)}; got {array.shape}.")
        if not np.can_cast(array.dtype, kind, "same_kind"):
            raise TypeError(f"{name} is stored as {kind}; got {array.dtype}. Convert it.")
        return array

    def _places(self, indices: Indices) -> np.ndarray:
        """Positions of time steps in a field with its streams end to end."""
        return indices.stream[:, None] * self.size + indices.time % self.size

    def _folder(self) -> Path:
        if self.path is None:
            raise ValueError("A replay is saved in its folder; this one has none. Give `path`.")
        return self.path

    def _write_rows(self, entries: list[list[Any]], prefix: str, start: int) -> None:
        """Write rows from time `start` on in segments of bounded size, and append their entries.

        A segment holds field after field, each `(streams, time, *shape)`; its entry is the file,
        the first time, the last time plus one, the number of bytes and their CRC-32.
        """
        row = self.streams * sum(self._bytes(name) for name in self.fields)
        span = max(1, SEGMENT_BYTES // max(1, row))
        for first in range(start, self._added, span):
            stop = min(first + span, self._added)
            at = np.arange(first, stop) % self.size
            chunks = [rows.take(at, axis=1) for rows in self._rows.values()]
            file = f"{prefix}-{first}-{stop}.bin"
            entries.append([file, first, stop, *self._write(file, chunks)])

    def _write_patches(self, entries: list[list[Any]], prefix: str, chosen: np.ndarray) -> None:
        """Write the mutable fields of chosen time steps, and append entries.

        A patch holds the streams and the times, each int64, then field after field; its entry is
        the file, the last time plus one, the number of rows, of bytes and their CRC-32.
        """
        stream, position = np.nonzero(chosen)
        # The newest row is one before `_added`, and each position holds one of the last `size`.
        time = self._added - 1 - (self._added - 1 - position) % self.size
        span = max(1, SEGMENT_BYTES // (16 + sum(self._bytes(name) for name in self.mutable)))
        for part, first in enumerate(range(0, len(stream), span)):
            own = slice(first, first + span)
            places = stream[own], position[own]
            chunks = [stream[own].astype(np.int64), time[own].astype(np.int64)]
            chunks += [self._rows[name][places] for name in self.mutable]
            file, last = f"{prefix}-{part}-{len(stream)}.bin", int(time[own].max()) + 1
            entries.append([file, last, len(stream[own]), *self._write(file, chunks)])

    def _write(self, file: str, chunks: Iterable[np.ndarray]) -> tuple[int, int]:
        """Write arrays one after the other. Returns the number of bytes and their CRC-32."""
        flat = [np.ascontiguousarray(chunk).reshape(-1).view(np.uint8) for chunk in chunks]
        crc = 0
        for chunk in flat:
            crc = zlib.crc32(chunk.data, crc)
        atomic.write_bytes(self._folder() / file, [chunk.data for chunk in flat])
        return sum(chunk.size for chunk in flat), crc

    def _read_rows(self, file: str, first: int, stop: int, size: int, crc: int) -> None:
        """Copy the rows of a segment to their positions.

        Segments are read in order of time, so later rows overwrite rows that had already left the
        replay.
        """
        at = np.arange(first, stop) % self.size
        content = self._read(file, size, crc)
        for name, (shape, kind) in self.fields.items():
            end = self.streams * (stop - first) * self._bytes(name)
            rows = content[:end].view(kind).reshape(self.streams, stop - first, *shape)
            self._rows[name][:, at], content = rows, content[end:]

    def _read_patch(self, file: str, last: int, count: int, size: int, crc: int) -> None:
        """Copy the mutable fields of a patch to their positions. Patches are read in order."""
        content = self._read(file, size, crc)
        stream, time = content[: 16 * count].view(np.int64).reshape(2, count)
        content, live = content[16 * count :], time >= self._oldest
        places = stream[live], time[live] % self.size
        for name in self.mutable:
            shape, kind = self.fields[name]
            end = count * self._bytes(name)
            self._rows[name][places] = content[:end].view(kind).reshape(count, *shape)[live]
            content = content[end:]
        self._changed[places] = True

    def _read(self, file: str, size: int, crc: int) -> np.ndarray:
        """The bytes of a file.

        **Errors:** `store.Missing`, `store.Damaged`.
        """
        path = self._folder() / file
        if not is_file(path):
            raise store.Missing(f"The replay needs {path}, which does not exist.")
        content = np.fromfile(path, np.uint8)
        if content.size != size or zlib.crc32(content.data) != crc:
            raise store.Damaged(
                f"{path} is not what was saved ({plural(content.size, 'byte')}, expected "
                f"{size:,}): "
                "it was truncated or altered. Restore it, or start a new run."
            )
        return content

    def _bytes(self, name: str) -> int:
        """Number of bytes of one time step of one stream."""
        shape, kind = self.fields[name]
        return math.prod(shape) * kind.itemsize


def _flat(rows: np.ndarray) -> np.ndarray:
    """A view with the streams laid end to end."""
    return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])


def _numbers(folder: Path) -> dict[str, int]:
    """The files of a replay, complete or not, and the number of the save that wrote each."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return {name: int(found[1]) for name in names if (found := NAMED.fullmatch(name))}
