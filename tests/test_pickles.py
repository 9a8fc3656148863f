"""Reading what others wrote: arrays come out as they were, and nothing else ever happens."""

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkslow.importers.formats import arrays, pickles, torchfile
from thinkslow.storage.store import Damaged

NUMBERS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]
PROTOCOL = b"\x80\x02"


def opened(value: Any) -> Any:
    """The structure with its arrays read."""
    if isinstance(value, arrays.Stored):
        return value.read()
    if isinstance(value, dict):
        return {key: opened(item) for key, item in value.items()}
    return [opened(item) for item in value] if isinstance(value, list) else value


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, np.ndarray):
        equal = np.array_equal(ours, theirs, equal_nan=theirs.dtype.kind == "f")
        return ours.dtype == theirs.dtype and ours.shape == theirs.shape and equal
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in theirs)
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs or str(ours) == str(theirs) == "nan"


def load(data: bytes, folder: Path, reader: Any = pickles) -> Any:
    path = folder / "file"
    path.write_bytes(data)
    return opened(reader.load(path))


def attempt(data: bytes, folder: Path, reader: Any = pickles) -> tuple[Any, str]:
    """What was loaded, or the error: one of the two kinds that there are."""
    try:
        return load(data, folder, reader), ""
    except (pickles.Refused, Damaged) as error:
        return None, str(error)


# --- what checkpoints hold -----------------------------------------------------------------------


def an_array(kind: str, shape: list[int], fortran: bool, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 50, shape).astype(kind)
    return np.asfortranarray(values) if fortran else values


ARRAYS = st.builds(
    an_array,
    st.sampled_from(NUMBERS),
    st.lists(st.integers(0, 40), max_size=3),
    st.booleans(),
    st.integers(0, 9),
)
LEAVES = st.one_of(
    ARRAYS,
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(),
    st.booleans(),
    st.none(),
    st.binary(),
    st.builds(np.float32, st.floats(width=32)),
)
CONTENT = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(st.integers(), max_size=3).map(sorted),
    ),
    max_leaves=8,
)


@settings(max_examples=15, deadline=None)
@given(CONTENT, st.sampled_from([2, 3, 4, 5]))
def test_arrays_in_any_structure_come_back_as_they_were(tmp_path_factory, content, protocol):
    found = load(pickle.dumps(content, protocol), tmp_path_factory.mktemp("pickle"))
    assert same(found, content)


@pytest.mark.parametrize(
    ("columns", "others", "refused"), [(1, 15, True), (15, 1, True), (2, 14, False), (1, 14, False)]
)
def test_an_array_alone_in_another_order_is_refused(tmp_path, columns, others, refused):
    """One changed bit says so of an array; its numbers were read in the wrong places."""
    whole = {str(i): np.full((2, 3), i, np.float32) for i in range(columns + others)}
    turned = {name: np.asfortranarray(whole[name]) for name in list(whole)[:columns]}
    row = {"one row": np.ones((1, 4), np.float32), "one number": np.float32(1)}
    found, error = attempt(pickle.dumps(whole | turned | row), tmp_path)
    assert same(found, None if refused else whole | row)
    assert ("(2, 3) is stored" in error) is refused


def test_long_arrays_stay_in_the_file_until_they_are_read(tmp_path):
    content = {"a": np.arange(10_000.0), "b": np.ones((100, 100), np.float32)}
    (tmp_path / "file").write_bytes(pickle.dumps(content))
    found = pickles.load(tmp_path / "file")
    assert found["b"].shape == (100, 100)
    assert same(opened(found), content)
    (tmp_path / "file").write_bytes(pickle.dumps(content | {"c": 1}))
    with pytest.raises(Damaged, match="changed while it was read"):
        found["a"].read()


def test_optimisers_and_buffers_become_stubs(tmp_path):
    data = PROTOCOL + b"coptax._src.transform\nScaleByAdamState\n" + b"K\x01K\x02\x86\x81."
    assert isinstance(load(data, tmp_path), pickles.Stub)
    data = PROTOCOL + b"csheeprl.utils.fs\nBufferFiles\n)\x81}b."
    assert isinstance(load(data, tmp_path), pickles.Stub)


# --- what a pickle may ask for -------------------------------------------------------------------

COMMAND = b"X\x1b\x00\x00\x00touch thinkslow-was-tricked"
SYSTEM = b"cposix\nsystem\n"
NUMPY = b"cnumpy\n"
PAYLOADS = {
    "REDUCE": SYSTEM + COMMAND + b"\x85R.",
    "GLOBAL alone": SYSTEM + b".",
    "STACK_GLOBAL": b"\x8c\x05posix\x8c\x06system\x93" + COMMAND + b"\x85R.",
    "STACK_GLOBAL of numbers": b"K\x01K\x02\x93.",
    "INST": b"(" + COMMAND + b"iposix\nsystem\n.",
    "OBJ": b"(" + SYSTEM + COMMAND + b"o.",
    "NEWOBJ": b"csubprocess\nPopen\n" + COMMAND + b"\x85\x81.",
    "NEWOBJ of a known function": NUMPY + b"dtype\nX\x02\x00\x00\x00f4\x85\x81.",
    "NEWOBJ_EX": b"csubprocess\nPopen\n" + COMMAND + b"\x85}\x92.",
    "NEWOBJ of a string": COMMAND + b")\x81.",
    "BUILD of an instance": b"cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00ak\x01sb.",
    "BUILD of a list": b"]}b.",
    "EXT1": b"\x82\x01.",
    "EXT2": b"\x83\x01\x00.",
    "EXT4": b"\x84\x01\x00\x00\x00.",
    "PERSID": b"Pposix.system\n.",
    "BINPERSID": COMMAND + b"Q.",
    "copyreg": b"ccopyreg\n_reconstructor\n(cposix\nsystem\nc__builtin__\nobject\nNtR.",
    "copyreg extension": b"ccopyreg\nadd_extension\n)R.",
    "builtins": b"cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.",
    "getattr": b"cbuiltins\ngetattr\n.",
    "dotted name": b"\x8c\x05numpy\x8c\x13ndarray.__reduce_ex__\x93.",
    "numpy's own doors": b"cnumpy.core.multiarray\nfromfile\n.",
    "numpy load": b"cnumpy\nload\n.",
    "calling text": COMMAND + b")R.",
    "calling a stub's result": b"coptax\nadam\n)R)R.",
    "objects": NUMPY + b"dtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R.",
    "records": NUMPY + b"dtype\nX\x02\x00\x00\x00V8K\x00K\x01\x87R.",
    "Python 2": b"S'a'\n.",
    "torch functions": b"ctorch._utils\n_rebuild_tensor_v2\n.",
    "torch load": b"ctorch\nload\n.",
    "buffer": b"\x97.",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_whatever_asks_for_more_than_arrays_is_refused_and_nothing_runs(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((pickles.Refused, Damaged)) as caught:
        load(PROTOCOL + PAYLOADS[name], tmp_path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["REDUCE", "STACK_GLOBAL", "GLOBAL alone"])
def test_a_refusal_names_what_was_asked_for(name, tmp_path):
    with pytest.raises(pickles.Refused, match=r"posix\.system\. Nothing was run"):
        load(PROTOCOL + PAYLOADS[name], tmp_path)


def test_no_module_is_imported_for_a_name(tmp_path, monkeypatch):
    (tmp_path / "optax_evil.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    for line in (b"coptax_evil\na\n.", b"coptax.evil\na\n."):
        found, error = attempt(PROTOCOL + line, tmp_path)
        assert isinstance(found, pickles.Global) or "optax_evil.a" in error


BOMBS = {
    "memo": b"Nr\xff\xff\xff\xff.",
    "bytes": b"\x8e" + struct.pack("<Q", 2**60) + b".",
    "byte array": b"\x96" + struct.pack("<Q", 2**60) + b".",
    "text": b"\x8d" + struct.pack("<Q", 2**60) + b".",
    "number": b"\x8b" + struct.pack("<I", 2**31) + b".",
    "array without bytes": (
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85"
        + NUMPY
        + b"dtype\nX\x02\x00\x00\x00f4\x85R\x89C\x00tb."
    ),
    "names of lists": b"}" + b"]" * 9 + b"\x85" * 500 + b"Ns.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_cannot_ask_for_much(name, tmp_path):
    if name == "memo":
        assert load(PROTOCOL + BOMBS[name], tmp_path) is None
        return
    with pytest.raises((pickles.Refused, Damaged)):
        load(PROTOCOL + BOMBS[name], tmp_path)


def test_what_calls_make_counts_against_the_size_of_the_file(tmp_path):
    """A text of the file, made into bytes 600,000 times, took all memory."""
    text = b"X" + struct.pack("<I", 2**16) + b"a" * 2**16 + b"q\x00"
    again = b"h\x01h\x00\x85R0"
    begun = PROTOCOL + text + b"0c_codecs\nencode\nq\x010"
    assert load(begun + 12 * again + b"N.", tmp_path) is None
    with pytest.raises(Damaged, match="texts are larger than the whole file"):
        load(begun + 40 * again + b"N.", tmp_path)


def test_arrays_of_the_same_bytes_count_against_the_size_of_the_file(tmp_path):
    data = b"B" + struct.pack("<I", 2**19) + bytes(2**19) + b"q\x00"
    kind = NUMPY + b"dtype\nX\x02\x00\x00\x00u1\x85Rq\x010"
    again = b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01J" + struct.pack("<i", 2**19)
    again += b"\x85X\x01\x00\x00\x00CtRa"
    begun = PROTOCOL + data + b"0" + kind + b"]"
    assert len(load(begun + 5 * again + b".", tmp_path)) == 5
    with pytest.raises(Damaged, match="arrays are larger than the whole file"):
        load(begun + 12 * again + b".", tmp_path)


def test_endless_instructions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_INSTRUCTIONS", 1000)
    with pytest.raises(pickles.Refused, match="fewer than 1,000 instructions"):
        load(PROTOCOL + b"N0" * 600 + b"N.", tmp_path)


def test_a_name_given_twice_is_damage(tmp_path):
    with pytest.raises(Damaged, match="gives a twice"):
        load(PROTOCOL + b"}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.", tmp_path)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_load_or_give_one_error(tmp_path_factory, data):
    _, error = attempt(PROTOCOL + data, tmp_path_factory.mktemp("fuzz"))
    assert "\n" not in error


SMALL = {"params": {f"layer{i}/kernel": np.full((3, i), i, np.float32) for i in range(4)}}


@pytest.mark.slow
def test_every_truncation_is_damage(tmp_path):
    for protocol in (2, 4, 5):
        data = pickle.dumps(SMALL, protocol)
        for end in range(len(data)):
            with pytest.raises((Damaged, pickles.Refused)):
                load(data[:end], tmp_path)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_flipped_bytes_load_or_give_one_error(tmp_path_factory, data):
    raw = bytearray(pickle.dumps(SMALL, data.draw(st.sampled_from([2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    _, error = attempt(bytes(raw), tmp_path_factory.mktemp("flip"))
    assert "\n" not in error


# --- archives of torch.save ----------------------------------------------------------------------

KINDS = {
    "HalfStorage": "f2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "BFloat16Storage": ml_dtypes.bfloat16,
}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"


def tensor(kind: str, key: str, count: int, offset: int, shape: Any, strides: Any) -> bytes:
    storage = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + numbers(count)[1:-1]
        + b"tQ"
    )
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + numbers(offset)[1:-1]
        + numbers(*shape)
        + numbers(*strides)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def archive(
    path: Path,
    program: bytes,
    storages: dict[str, bytes],
    *,
    byteorder: str = "little",
    packing: int = zipfile.ZIP_STORED,
) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file:
        file.writestr("archive/data.pkl", PROTOCOL + program + b".")
        file.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_tensors_of_every_type_come_back_as_they_were(kind, packing, tmp_path):
    values = np.arange(12).astype(KINDS[kind])
    program = tensor(kind, "0", 12, 0, (3, 4), (4, 1))
    path = archive(tmp_path / "a.pt", program, {"0": values.tobytes()}, packing=packing)
    found = torchfile.load(path).read()
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values.reshape(3, 4))


def test_views_of_one_storage_and_another_byte_order(tmp_path):
    values = np.arange(12, dtype=np.float32)
    program = b"(" + tensor("FloatStorage", "0", 12, 4, (4, 2), (1, 4)) + b"t"
    path = archive(
        tmp_path / "a.pt", program, {"0": values.astype(">f4").tobytes()}, byteorder="big"
    )
    (found,) = torchfile.load(path)
    np.testing.assert_array_equal(found.read(), values[4:].reshape(2, 4).T)
    path = archive(
        tmp_path / "b.pt", tensor("FloatStorage", "0", 1, 0, (), ()), {"0": values[:1].tobytes()}
    )
    assert torchfile.load(path).read().shape == ()


WRONG_TENSORS = {
    "reaches beyond": ("FloatStorage", "0", 12, 8, (5,), (1,)),
    "strides reach beyond": ("FloatStorage", "0", 12, 0, (2, 3), (100, 1)),
    "swells by strides of zero": ("FloatStorage", "0", 12, 0, (2**20, 2**20), (0, 0)),
    "names a number twice": ("FloatStorage", "0", 12, 0, (2, 3), (1, 1)),
    "repeats a row": ("FloatStorage", "0", 12, 0, (2, 3), (0, 1)),
    "negative stride": ("FloatStorage", "0", 12, 11, (3,), (-1,)),
    "negative offset": ("FloatStorage", "0", 12, -1, (3,), (1,)),
    "negative side": ("FloatStorage", "0", 12, 0, (-3,), (1,)),
    "other strides than sides": ("FloatStorage", "0", 12, 0, (3,), (1, 1)),
    "another size": ("FloatStorage", "0", 13, 0, (3,), (1,)),
    "another type": ("DoubleStorage", "0", 12, 0, (3,), (1,)),
    "missing storage": ("FloatStorage", "1", 12, 0, (3,), (1,)),
    "a path for a key": ("FloatStorage", "../byteorder", 12, 0, (3,), (1,)),
    "unknown type": ("QInt8Storage", "0", 12, 0, (3,), (1,)),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_tensors_that_cannot_be_are_refused(name, tmp_path):
    values = np.arange(12, dtype=np.float32).tobytes()
    path = archive(tmp_path / "a.pt", tensor(*WRONG_TENSORS[name]), {"0": values})
    with pytest.raises((pickles.Refused, Damaged)) as caught:
        torchfile.load(path).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PAYLOADS)
def test_payloads_in_an_archive_are_refused_too(name, tmp_path):
    if name == "torch functions":  # known there, and only a name
        return
    with pytest.raises((pickles.Refused, Damaged)):
        torchfile.load(archive(tmp_path / "a.pt", PAYLOADS[name][:-1], {}))


def small_archive(folder: Path, packing: int = zipfile.ZIP_STORED) -> tuple[Path, np.ndarray]:
    values = np.arange(12, dtype=np.float32)
    program = b"}" + text("kernel") + tensor("FloatStorage", "0", 12, 0, (3, 4), (4, 1)) + b"s"
    path = archive(folder / "a.pt", program, {"0": values.tobytes()}, packing=packing)
    return path, values.reshape(3, 4)


def test_every_truncation_of_an_archive_is_damage(tmp_path):
    path, _ = small_archive(tmp_path)
    data = path.read_bytes()
    for end in range(len(data)):
        with pytest.raises((Damaged, pickles.Refused)):
            load(data[:end], tmp_path, torchfile)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_flipped_bytes_of_an_archive_are_found_or_do_not_matter(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    packing = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    path, values = small_archive(folder, packing)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    found, error = attempt(bytes(raw), folder, torchfile)
    assert "\n" not in error
    assert error or same(found, {"kernel": values})


def test_archives_that_would_fill_the_memory_are_refused(tmp_path):
    path = archive(
        tmp_path / "a.pt",
        tensor("ByteStorage", "0", 2**26, 0, (2**26,), (1,)),
        {"0": bytes(2**26)},
        packing=zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(Damaged, match="over 20 times as large"):
        torchfile.load(path)
    _, _ = small_archive(tmp_path)
    raw = bytearray((tmp_path / "a.pt").read_bytes())
    where = raw.index(b"PK\x01\x02") + 20  # both sizes of the first entry
    raw[where : where + 8] = struct.pack("<II", 2**31, 2**31)
    with pytest.raises(Damaged, match="does not fit into the file"):
        load(bytes(raw), tmp_path, torchfile)


def test_what_is_no_archive_says_so(tmp_path):
    for data in (b"", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"PK\x05\x06" + bytes(18)):
        with pytest.raises(Damaged, match=r"torch\.save"):
            load(data, tmp_path, torchfile)


def test_a_folder_or_a_pipe_is_no_file_to_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Damaged, match=r"is not\. Check the path"):
        pickles.load(tmp_path / "pipe")
    with pytest.raises(Damaged, match=r"is not\. Check the path"):
        torchfile.load(tmp_path)
