"""Read files of `torch.save`, without PyTorch.

Such a file is a zip archive of `data.pkl`, a pickle whose arrays are references, and a file of
raw numbers for each storage. The pickle goes through `pickles.interpret`; the storages stay in
the archive until they are read, and their checksums are verified then.
"""

import dataclasses
import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from thinkslow.importers.formats.arrays import (
    DTYPES,
    SHARED,
    Budget,
    File,
    Stored,
    checked_shape,
)
from thinkslow.importers.formats.globals import Global, Refused
from thinkslow.importers.formats.pickles import interpret
from thinkslow.plural import plural
from thinkslow.storage.faults import Damaged

MOST_ENTRIES = 100_000
"""Largest number of files in an archive; a large agent with its optimiser has 1,000."""
LARGEST_PICKLE = 2**26
"""Largest size of `data.pkl` in bytes; a large agent with its optimiser has 200,000."""
MOST_SWELLING = 20
"""Largest ratio of the unpacked to the packed size; weights hardly compress."""
LARGEST_DIRECTORY = 2**24
"""Largest size of the list of entries, in bytes."""
MARK = b"PK\x03\x04"
"""The first bytes of an archive."""
OLD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of a file of PyTorch before 1.6, which is not an archive."""
SLACK = 2**20
"""Bytes allowed beyond that ratio."""

_END = struct.Struct("<4sHHHHIIH")
"""The end of an archive: a mark, its part and the first one, entries, size and place of their
list, length of a comment."""
_END_MARK = b"PK\x05\x06"
_END64 = struct.Struct("<4sQHHIIQQQQ")
"""The same record with wider numbers, which precedes it."""
_HEADER = struct.Struct("<4s22xHH")
"""The header of each entry: a mark, and the lengths of the name and of the extra field."""

STORAGES = {
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
"""Number types by the class that names them in the pickle."""


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A one-dimensional array of one type, in an entry of the archive."""

    archive: "_Archive"
    entry: zipfile.ZipInfo
    dtype: np.dtype

    @property
    def count(self) -> int:
        return self.entry.file_size // self.dtype.itemsize

    def read(self) -> np.ndarray:
        data = self.archive.read(self.entry)
        array = np.frombuffer(data, self.dtype)
        return array.byteswap(inplace=True) if self.archive.big_endian else array


def load(path: Path) -> Any:
    """The content of a file: numbers, strings, lists, dictionaries, and `Stored` for tensors.

    **Errors:** `pickles.Refused` for anything else, naming it; `Damaged` for a file that is
    broken, or that PyTorch before 1.6 wrote.
    **Cost:** reads the list of entries and `data.pkl`; tensors are read on request.
    """
    archive = _Archive(path)
    return interpret(
        io.BytesIO(archive.pickle),
        len(archive.pickle),
        path,
        calls=_CALLS,
        persistent=archive.storage,
        budget=archive.budget,
    )


class _Archive:
    """The entries of an archive, checked against the size of the file."""

    def __init__(self, path: Path):
        self.file = File(path)
        self.path = path
        _check_end(self.file)
        with path.open("rb") as stream, _opened(stream, path) as archive:
            entries = archive.infolist()
            self.entries = {entry.filename: entry for entry in entries}
            self._check(entries)
            self.budget = Budget(sum(entry.file_size for entry in entries), times=SHARED)
            pickles = [name for name in self.entries if name.endswith("/data.pkl")]
            if not pickles:
                raise Damaged(
                    f"{path} is an archive, but not one of `torch.save`: it has no data.pkl. If it "
                    "holds an agent, unpack it and give that folder."
                )
            if len(pickles) != 1:
                raise Damaged(
                    f"{path} is not what `torch.save` wrote: it has {plural(len(pickles), 'file')} "
                    "data.pkl, expected 1."
                )
            if self.entries[pickles[0]].file_size > LARGEST_PICKLE:
                raise Damaged(f"{path} is no checkpoint: its data.pkl is too large.")
            self.folder = pickles[0].removesuffix("data.pkl")
        self.pickle = bytes(self.read(self.entries[pickles[0]]))
        order = self.entries.get(f"{self.folder}byteorder")
        word = bytes(self.read(order)) if order and order.file_size <= 6 else b"little"
        if word not in (b"little", b"big"):
            raise Damaged(f"{path} is not readable: its byte order is {word!r}.")
        self.big_endian = word == b"big"

    def _check(self, entries: list[zipfile.ZipInfo]) -> None:
        path, size = self.path, self.file.size
        if len(entries) > MOST_ENTRIES or len(self.entries) != len(entries):
            raise Damaged(f"{path} is no checkpoint: its entries are too many, or named twice.")
        for entry in entries:
            stored = entry.compress_type == zipfile.ZIP_STORED
            if entry.flag_bits & 1 or entry.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise Damaged(
                    f"{path} is not readable: {entry.filename!r} is encrypted or packed "
                    "in an unknown way."
                )
            if (
                entry.header_offset < 0
                or entry.header_offset + entry.compress_size > size
                or (stored and entry.file_size != entry.compress_size)
            ):
                raise Damaged(f"{path} is broken: {entry.filename!r} does not fit into the file.")
        if sum(entry.file_size for entry in entries) > MOST_SWELLING * size + SLACK:
            raise Damaged(
                f"{path} is no checkpoint: unpacked it would be over {MOST_SWELLING} "
                "times as large."
            )

    def read(self, entry: zipfile.ZipInfo) -> bytearray:
        """All bytes of an entry, with a verified checksum."""
        header = self.file.read(entry.header_offset, _HEADER.size)
        mark, name, extra = _HEADER.unpack(header)
        start = entry.header_offset + _HEADER.size + name + extra
        if mark != MARK:
            raise Damaged(f"{self.path} is broken at {entry.filename!r}. Copy it again.")
        data: bytes | bytearray = self.file.read(start, entry.compress_size)
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.file_size + 1)
            except zlib.error as error:
                raise Damaged(f"{self.path} is broken at {entry.filename!r}: {error}.") from error
        if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
            raise Damaged(
                f"{self.path} is broken: {entry.filename!r} is not what was written there (its "
                "checksum differs). Copy it again."
            )
        return bytearray(data) if isinstance(data, bytes) else data

    def storage(self, id: Any) -> _Storage:
        """The storage that a persistent id names."""
        if not isinstance(id, tuple) or len(id) != 5 or id[0] != "storage":
            raise ValueError("it refers to something that is not a storage")
        _, kind, key, _, count = id
        if not isinstance(kind, Global) or kind.module != "torch" or kind.name not in STORAGES:
            raise ValueError("a storage has no known type")
        entry = self.entries.get(f"{self.folder}data/{key}") if isinstance(key, str) else None
        if entry is None:
            raise ValueError(f"the storage {str(key)[:40]!r} is missing")
        dtype = DTYPES[STORAGES[kind.name]]
        if type(count) is not int or entry.file_size != count * dtype.itemsize:
            raise ValueError(f"the storage {key!r} has another size than announced")
        return _Storage(self, entry, dtype)


def _check_end(file: File) -> None:
    """Check that an archive is complete, and that its list of entries can be read at once.

    **Errors:** `Damaged`.
    """
    start = max(0, file.size - _END.size - 2**16)
    tail = bytes(file.read(start, file.size - start))
    where = tail.rfind(_END_MARK)
    if where < 0 or len(tail) - where < _END.size:
        if tail.startswith(MARK) or bytes(file.read(0, min(4, file.size))) == MARK:
            raise Damaged(
                f"{file.path} is cut off: it begins as `torch.save` writes and has no end. Copy it "
                "again."
            )
        raise Damaged(
            f"{file.path} is not what `torch.save` writes since PyTorch 1.6, a zip archive. Copy "
            "it again, or save it again with a newer PyTorch."
        )
    _, disk, first, _, _, size, _, _ = _END.unpack_from(tail, where)
    if tail[max(0, where - 20) : where][:4] == b"PK\x06\x07" and where >= _END64.size + 20:
        mark, *_, size64, _ = _END64.unpack_from(tail, where - 20 - _END64.size)
        size = size64 if mark == b"PK\x06\x06" and size == 2**32 - 1 else size
    if disk not in (0, 2**16 - 1) or first not in (0, 2**16 - 1) or size > LARGEST_DIRECTORY:
        raise Damaged(
            f"{file.path} is not readable: its list of entries is in parts, or too large. Copy it "
            "again."
        )


def _opened(stream: io.BufferedIOBase, path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(stream)
    except MemoryError:
        raise
    except Exception as error:
        # A broken directory can cause any of these errors, including a seek before the start.
        raise Damaged(
            f"{path} is not what `torch.save` writes since PyTorch 1.6, a zip archive: {error}. "
            "Copy it again, or save it again with a newer PyTorch."
        ) from error


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Stored:
    """A view of a storage. It must lie inside the storage and must not contain a number twice."""
    shape = checked_shape(shape)
    strides = checked_shape(strides)
    if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0:
        raise ValueError("a tensor has no storage")
    size = math.prod(shape)
    last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
    if size and (last >= storage.count or size > storage.count):
        raise ValueError(f"a tensor of shape {shape} reaches beyond its storage")
    if size and not _distinct(shape, strides):
        raise ValueError(
            f"a tensor of shape {shape} has strides {strides}, which name a number twice"
        )

    def fetch() -> np.ndarray:
        if not size:
            return np.zeros(shape, storage.dtype)
        row = storage.read()[offset:]
        bytes_ = tuple(step * storage.dtype.itemsize for step in strides)
        view = np.lib.stride_tricks.as_strided(row, shape, bytes_)
        return np.ascontiguousarray(view).reshape(shape)

    return Stored(shape, storage.dtype, fetch)


def _distinct(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether all indices refer to different numbers: each stride exceeds the extent of all smaller
    ones.

    >>> _distinct((2, 3), (3, 1)), _distinct((2, 3), (1, 2)), _distinct((2, 3), (1, 1))
    (True, True, False)
    """
    covered = 1
    for step, side in sorted(zip(strides, shape, strict=True)):
        if side > 1 and step < covered:
            return False
        covered += (side - 1) * step
    return True


def _parameter(tensor: Any, *_: Any) -> Stored:
    if not isinstance(tensor, Stored):
        raise ValueError("a parameter has no tensor")
    return tensor


def _not_called(*_: Any) -> Any:
    raise Refused("a checkpoint may hold arrays only, and this one calls the name of a type.")


_CALLS = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): checked_shape,
    **{("torch", kind): _not_called for kind in STORAGES},
}
