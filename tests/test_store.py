import errno
import json
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from crashes import every_kill
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from thinkslow.storage import atomic, checks, saves, store
from thinkslow.storage.manifest import LARGEST_MANIFEST, checksum


def agent(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "enc/cnn0/kernel": rng.normal(size=(2, 3)).astype(np.float32),
        "dyn/dynin0/bias": rng.normal(size=3).astype(np.float16),
        "dyn/dynin0/kernel": rng.normal(size=(1, 3)).astype(ml_dtypes.bfloat16),
        "pol/step": np.array(7, np.int64),
        "val/none": np.zeros((0, 4), np.uint8),
    }


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return list(first) == list(second) and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and first[name].tobytes() == second[name].tobytes()
        for name in first
    )


def signed(folder: Path, manifest: dict[str, Any]) -> None:
    """Puts another manifest in a folder, with its checksum made anew."""
    manifest = {**manifest, "checksum": checksum(manifest)}
    (folder / store.MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    store.write(tmp_path / "agent", agent(), {"preset": "tiny", "steps": 100})
    return tmp_path / "agent"


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    kind = np.dtype(draw(st.sampled_from(sorted(store.DTYPES))))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = int(np.prod(shape, dtype=int)) * kind.itemsize
    content = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    array = (content & 1 if kind.kind == "b" else content).view(kind).reshape(shape)
    return array.T if draw(st.booleans()) else array


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), arrays(), max_size=4))
def test_what_is_read_is_what_was_written_bit_for_bit(weights):
    if "__metadata__" in weights:
        return
    with tempfile.TemporaryDirectory() as folder:
        store.write(Path(folder, "agent"), weights, {"note": "ä"})
        read, manifest = store.read(Path(folder, "agent"))
    assert same(read, weights)
    assert manifest["note"] == "ä"


def test_manifest_gains_format_checksum_and_table(saved):
    manifest = store.read_manifest(saved)
    assert manifest["preset"] == "tiny"
    assert manifest["format"] == 2
    assert manifest["checksum"] == checksum(manifest)
    assert len(manifest["sha256"]) == 64
    assert manifest["weights"]["dyn/dynin0/kernel"] == [[1, 3], "bfloat16"]
    assert store.read(saved)[1] == manifest


def test_a_manifest_that_was_read_can_be_written_again(saved):
    weights, manifest = store.read(saved)
    del weights["val/none"]
    store.write(saved, weights, manifest)
    assert same(store.read(saved)[0], weights)


def test_arrays_that_are_not_contiguous_or_big_endian_are_saved_by_value(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    store.write(tmp_path / "a", {"t": values.T, "s": values[:, ::2], "b": values.astype(">f8")}, {})
    read, _ = store.read(tmp_path / "a")
    np.testing.assert_array_equal(read["t"], values.T)
    np.testing.assert_array_equal(read["s"], values[:, ::2])
    np.testing.assert_array_equal(read["b"], values)


def test_arrays_that_were_read_can_be_changed(saved):
    weights, _ = store.read(saved)
    weights["enc/cnn0/kernel"] += 1
    assert same(store.read(saved)[0], agent())


def test_both_files_can_be_read_by_whom_the_umask_allows(saved):
    modes = {(saved / name).stat().st_mode for name in (store.WEIGHTS, store.MANIFEST)}
    assert len(modes) == 1


def test_a_link_to_an_agent_is_read_and_the_agent_behind_it_replaced(saved, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(saved)
    store.write(link, agent(1), {})
    assert link.is_symlink()
    assert same(store.read(saved)[0], store.read(link)[0])


@pytest.mark.parametrize(
    ("weights", "manifest", "error"),
    [
        ({"a": np.zeros(2, complex)}, {}, ValueError),
        ({"a": np.array([None])}, {}, ValueError),
        ({"": np.zeros(2)}, {}, ValueError),
        ({"__metadata__": np.zeros(2)}, {}, ValueError),
        ({}, {"steps": float("nan")}, ValueError),
        ({}, {"steps": float("inf")}, ValueError),
        ({}, {"environment": {"options": {"high": float("nan")}}}, ValueError),
        ({}, {"environment": {"size": float("inf")}}, ValueError),
        ({}, {"path": Path()}, TypeError),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_disk_is_touched(
    saved, weights, manifest, error
):
    with pytest.raises(error):
        store.write(saved, weights, manifest)
    assert same(store.read(saved)[0], agent())
    assert os.listdir(saved.parent) == ["agent"]


def test_options_of_an_environment_may_be_without_bound(tmp_path):
    """An agent of a robot without an upper limit was trained, and could never be saved."""
    options = {"range": [0.7, float("inf")], "low": -float("inf")}
    store.write(tmp_path / "agent", agent(), {"environment": {"options": options}})
    text = (tmp_path / "agent" / store.MANIFEST).read_text()
    assert "Infinity" not in text
    assert store.read(tmp_path / "agent")[1]["environment"]["options"] == options


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis\.tex"):
        store.write(tmp_path, agent(), {})
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_is_never_replaced_by_a_folder(tmp_path):
    (tmp_path / "file").write_text("content")
    with pytest.raises(NotADirectoryError, match="it is a file"):
        store.write(tmp_path / "file", agent(), {})
    assert (tmp_path / "file").read_text() == "content"


def test_an_absent_folder_or_file_is_missing(saved, tmp_path):
    with pytest.raises(store.Missing, match="does not exist"):
        store.read(tmp_path / "nowhere" / "agent")
    (saved / store.WEIGHTS).unlink()
    with pytest.raises(store.Missing, match=store.WEIGHTS):
        store.read(saved)
    (saved / store.MANIFEST).unlink()
    with pytest.raises(store.Missing, match=store.MANIFEST):
        store.read(saved)
    with pytest.raises(store.Damaged, match="is a file"):
        store.read(Path(__file__))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "names no format"),
        ('{"format": "1"}', "names no format"),
        ('{"format": 3}', "Upgrade thinkslow"),
        ('{"format": 0}', "never existed"),
        ('{"format": true}', "names no format"),
        ('{"format": 2}', "checksum differs"),
        ('{"format": 1}', "lacks the checksum"),
        ('{"format": 1, "format": 1}', "not JSON"),
        ('{"format": 1, "a": NaN}', "not JSON"),
        ('{"format": 1, "a": 1e999}', "holds an infinite number"),
        ('{"format": 1, "environment": {"size": 1e999}}', "holds an infinite number"),
        ('{"format": 1, "environment": {"options": {"a": Infinity}}}', "not JSON"),
        ('{"format": 1, "a": ' + "9" * 100_000 + "}", "not JSON"),
        (" " * LARGEST_MANIFEST + "{}", "too large"),
    ],
)
def test_a_manifest_that_is_none_is_damaged(saved, text, message):
    (saved / store.MANIFEST).write_text(text)
    with pytest.raises(store.Damaged, match=message) as error:
        store.read(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [store.WEIGHTS, store.MANIFEST])
def test_a_file_truncated_anywhere_never_loads_as_something_else(saved, name):
    content = (saved / name).read_bytes()
    for length in range(len(content)):
        (saved / name).write_bytes(content[:length])
        if name == store.MANIFEST and length == len(content) - 1:  # only the last newline
            assert same(store.read(saved)[0], agent())
            continue
        with pytest.raises(store.Damaged) as error:
            store.read(saved)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [store.WEIGHTS, store.MANIFEST])
def test_one_flipped_bit_never_loads_wrong_weights(saved, name):
    content = bytearray((saved / name).read_bytes())
    right = store.read_manifest(saved)
    bits = np.random.default_rng(0).integers(8, size=len(content))
    for position, bit in enumerate(bits):
        content[position] ^= 1 << bit
        (saved / name).write_bytes(content)
        content[position] ^= 1 << bit
        try:
            weights, manifest = store.read(saved)
        except store.Damaged as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert name == store.MANIFEST, "only spaces between the names of JSON are free"
            assert same(weights, agent())
            assert manifest == right


def test_one_flipped_bit_of_an_ensemble_never_loads_other_members(saved):
    members = {"a/kernel": np.arange(12, dtype=np.float32).reshape(2, 2, 3)}
    store.write_ensemble(saved, members, {"fit": 0})
    content = bytearray((saved / store.ENSEMBLE).read_bytes())
    for position in range(len(content)):
        content[position] ^= 1 << position % 8
        (saved / store.ENSEMBLE).write_bytes(content)
        content[position] ^= 1 << position % 8
        with pytest.raises(store.Damaged, match="Fit it again"):
            store.read_whole(saved)
    (saved / store.ENSEMBLE).write_bytes(content)
    ensemble = store.read_whole(saved)[1]
    assert ensemble is not None
    assert same(ensemble, members)


def test_a_manifest_that_was_changed_is_damaged(saved):
    path = saved / store.MANIFEST
    path.write_text(path.read_text().replace('"steps": 100', '"steps": 900'))
    with pytest.raises(store.Damaged, match="checksum differs"):
        store.read_manifest(saved)


def test_the_format_before_the_checksum_is_read(saved):
    manifest = store.read_manifest(saved)
    del manifest["checksum"]
    (saved / store.MANIFEST).write_text(json.dumps({**manifest, "format": 1}))
    weights, _ = store.read(saved)
    assert same(weights, agent())


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null", "nowhere", ".", "manifest.json"])
def test_a_manifest_that_is_no_file_is_refused_at_once(saved, target):
    (saved / store.MANIFEST).unlink()
    (saved / store.MANIFEST).symlink_to(target)
    with pytest.raises((store.Damaged, OSError)):
        store.read(saved)
    (saved / store.MANIFEST).unlink()
    os.mkfifo(saved / store.MANIFEST)
    with pytest.raises(store.Damaged, match="it is a pipe"):
        store.read(saved)


def test_weights_of_another_agent_are_damaged(saved, tmp_path):
    store.write(tmp_path / "other", agent(1), {})
    shutil.copy(tmp_path / "other" / store.WEIGHTS, saved)
    with pytest.raises(store.Damaged, match="swapped"):
        store.read(saved)


def test_a_table_that_does_not_describe_the_weights_is_damaged(saved):
    def change(old: str, new: str) -> None:
        table = json.loads(json.dumps(right["weights"]).replace(old, new, 1))
        signed(saved, {**right, "weights": table})

    right = store.read_manifest(saved)
    change("uint8", "int8")
    with pytest.raises(store.Damaged, match="its manifest says"):
        store.read(saved)
    change("pol/step", "pol/stop")
    with pytest.raises(store.Damaged, match="is only in"):
        store.read(saved)
    change("[2, 3]", "[2, 3000]")
    with pytest.raises(store.Damaged, match="bytes and is not the file"):
        store.read(saved)


def test_weights_that_are_no_safetensors_are_damaged_though_the_checksum_holds(saved):
    size = (saved / store.WEIGHTS).stat().st_size
    (saved / store.WEIGHTS).write_bytes(b"cos\nsystem\n(S'true'\ntR.".ljust(size, b"."))
    signed(
        saved,
        {
            **store.read_manifest(saved),
            "sha256": store.sha256(saved / store.WEIGHTS),
        },
    )
    with pytest.raises(store.Damaged, match="not a safetensors file"):
        store.read(saved)


def test_a_kill_at_any_instant_leaves_the_old_or_the_new_agent(tmp_path):
    path = tmp_path / "agent+[1]"
    outcomes = []
    for _ in every_kill(
        action=lambda: store.write(path, agent(1), {"steps": 1}),
        prepare=lambda: store.write(path, agent(0), {"steps": 0}),
    ):
        weights, manifest = store.read(path)
        assert same(weights, agent(manifest["steps"]))
        outcomes.append(manifest["steps"])
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1}
    assert len(os.listdir(path)) == 2, "the last write removes what the kills left"
    assert os.listdir(tmp_path) == [path.name]


def test_a_kill_at_the_first_save_leaves_no_agent_or_the_new_one(tmp_path):
    path = tmp_path / "agent"
    for _ in every_kill(
        action=lambda: store.write(path, agent(), {}),
        prepare=lambda: shutil.rmtree(path, ignore_errors=True),
    ):
        try:
            assert same(store.read(path)[0], agent())
        except store.Missing:
            assert not path.exists()


def test_a_kill_while_an_ensemble_is_fitted_again_leaves_the_old_or_the_new_one(tmp_path):
    path, outcomes = tmp_path / "agent", []
    store.write(path, agent(), {"steps": 0})
    members = {name: np.stack([array, array]) for name, array in agent(5).items()}

    for _ in every_kill(
        action=lambda: store.write_ensemble(path, agent(6), {"fit": 1}),
        prepare=lambda: store.write_ensemble(path, members, {"fit": 0}),
    ):
        weights, ensemble, manifest = store.read_whole(path)
        assert same(weights, agent())
        assert ensemble
        assert same(ensemble, agent(6) if manifest["ensemble"]["fit"] else members)
        outcomes.append(manifest["ensemble"]["fit"])
    assert set(outcomes) == {0, 1}
    assert len(os.listdir(path)) == 3


@pytest.mark.parametrize("step", ["before", "after"])
def test_an_interruption_around_the_new_manifest_leaves_a_whole_agent(saved, monkeypatch, step):
    """Right after it, the file of the new arrays is the one that must not be tidied away."""
    real = os.replace

    def replace(source, target):
        if step == "after":
            real(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            store.write(saved, agent(1), {})
    assert same(store.read(saved)[0], agent(step == "after"))


def test_an_agent_that_is_written_again_as_it_is_keeps_its_files(saved):
    store.write(saved, agent(), {"steps": 5})
    assert sorted(os.listdir(saved)) == [store.MANIFEST, store.WEIGHTS]
    (saved / store.WEIGHTS).write_bytes(b"damaged")
    store.write(saved, agent(), {"steps": 6})
    assert same(store.read(saved)[0], agent())


def test_a_reader_whose_agent_is_replaced_meanwhile_gets_the_new_one(saved, monkeypatch):
    real, once = store.read_manifest, [None]

    def read_manifest(folder):
        manifest = real(folder)
        if once:  # the manifest is the old one, and its weights are about to go
            once.clear()
            store.write(saved, agent(1), {})
        return manifest

    monkeypatch.setattr(store, "read_manifest", read_manifest)
    assert same(store.read(saved)[0], agent(1))


@pytest.mark.parametrize("name", ["../weights.safetensors", "manifest.json", "x", 3, None])
def test_a_manifest_that_names_another_file_as_its_weights_is_damaged(saved, name):
    path = saved / store.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"file": name}))
    with pytest.raises(store.Damaged, match="altered"):
        store.read(saved)


def test_a_new_folder_takes_the_place_of_nothing_that_is_there(saved):
    with pytest.raises(FileExistsError, match="must not exist"), atomic.folder(saved):
        pass
    assert same(store.read(saved)[0], agent())


def test_a_kill_at_any_instant_of_a_save_leaves_the_old_or_the_new_one(tmp_path):
    outcomes = []
    for _ in every_kill(
        action=lambda: saves.write(tmp_path, agent(1), {"steps": 1}),
        prepare=lambda: saves.write(tmp_path, agent(0), {"steps": 0}),
    ):
        save = saves.latest(tmp_path)
        assert save
        weights, manifest = store.read(save)
        assert same(weights, agent(manifest["steps"]))
        outcomes.append(manifest["steps"])
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1}
    save = saves.latest(tmp_path)
    assert save
    assert sorted(os.listdir(tmp_path)) == [save.name, "latest"]


def test_there_is_no_save_before_the_first(tmp_path):
    assert saves.latest(tmp_path) is None
    assert saves.latest(tmp_path / "absent") is None


@pytest.mark.parametrize("text", [b"", b"../agent", b"7", b"\xff", "٠٠٠٠٠١".encode()])
def test_a_pointer_that_names_no_save_is_damaged(tmp_path, text):
    (tmp_path / "latest").write_bytes(text)
    with pytest.raises(store.Damaged, match="number of a save"):
        saves.latest(tmp_path)
    (tmp_path / "latest").write_text("000007")
    with pytest.raises(store.Missing, match="000007"):
        saves.latest(tmp_path)


def no_space_in_safetensors(patch: pytest.MonkeyPatch) -> None:
    def save_file(weights, path):
        Path(path).write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    patch.setattr(safetensors.numpy, "save_file", save_file)


def no_space_when_flushed(patch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(os, "fsync", fsync)


def no_quota_for_the_manifest(patch: pytest.MonkeyPatch) -> None:
    def replace(source, target):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    patch.setattr(os, "replace", replace)


@pytest.mark.parametrize(
    "no_space", [no_space_in_safetensors, no_space_when_flushed, no_quota_for_the_manifest]
)
def test_a_full_disk_leaves_the_old_agent_and_says_so_in_one_line(saved, monkeypatch, no_space):
    with monkeypatch.context() as patch:
        no_space(patch)
        with pytest.raises(atomic.Full, match=r"MiB are free.*untouched.*Free some") as error:
            store.write(saved, agent(1), {})
    assert "\n" not in str(error.value)
    assert error.value.errno in (errno.ENOSPC, errno.EDQUOT)
    assert same(store.read(saved)[0], agent(0))
    assert sorted(os.listdir(saved)) == [store.MANIFEST, store.WEIGHTS]


def test_a_write_that_a_limit_ends_names_its_file(tmp_path):
    """ "File too large" named none."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(OSError, match=r"File too large: '.*page\.html'"):
            atomic.write_bytes(tmp_path / "page.html", [bytes(8192)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_other_failures_of_safetensors_keep_their_own_words(saved, monkeypatch):
    def save_file(weights, path):
        raise SafetensorError("something else")

    monkeypatch.setattr(safetensors.numpy, "save_file", save_file)
    with pytest.raises(SafetensorError, match="something else"):
        store.write(saved, agent(1), {})


def test_a_disk_that_is_really_full_leaves_the_old_agent(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        store.write(disk / "agent", agent(), {})
        with pytest.raises(atomic.Full):
            store.write(disk / "agent", {"a": np.zeros(2**17)}, {})
        assert same(store.read(disk / "agent")[0], agent())
        with pytest.raises(atomic.Full):
            atomic.write_bytes(disk / "text", [bytes(2**21)])
        assert os.listdir(disk) == ["agent"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_body_that_fails_leaves_no_folder(tmp_path):
    def interrupted() -> None:
        with atomic.folder(tmp_path / "new") as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "file").write_text("one")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_text_is_wholly_old_or_wholly_new_after_a_kill(tmp_path):
    path = tmp_path / "run" / "config.json"
    outcomes = set()
    for _ in every_kill(
        action=lambda: atomic.write_text(path, "new"),
        prepare=lambda: atomic.write_text(path, "old"),
    ):
        outcomes.add(path.read_text())
    assert outcomes == {"old", "new"}
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["config.json"]


def test_names_that_look_like_leftovers_of_another_are_left_alone(tmp_path):
    stranger = tmp_path / ".agent.tmp-notes"
    stranger.mkdir()
    store.write(tmp_path / "agent", agent(), {})
    store.write(tmp_path / "[a]*", agent(), {})
    assert stranger.is_dir()


def test_a_match_ignores_the_order_of_names():
    weights = {"a": np.zeros(2), "b": np.zeros((2, 3))}
    checks.match(weights, {"b": (2, 3), "a": (2,)}, what="Checkpoint x does not fit y")


def test_a_misfit_names_the_first_wrong_shape_and_counts_names():
    weights = {"dyn/kernel": np.zeros((4, 5)), "old/a": np.zeros(1), "old/b": np.zeros(1)}
    expected = {"dyn/kernel": (2, 3), "new/a": (1,)}
    with pytest.raises(store.Misfit) as error:
        checks.match(
            weights,
            expected,
            what="Checkpoint size50m does not fit size12m",
            remedy="Pass --preset size50m.",
        )
    assert str(error.value) == (
        "Checkpoint size50m does not fit size12m: dyn/kernel is (4, 5), expected (2, 3); missing "
        "1 of 2 names, first new/a; 2 unexpected names, first old/a. Pass --preset size50m."
    )


def test_a_path_that_is_not_utf8_can_be_written_into_a_page(tmp_path):
    """An evaluation into such a folder failed when its page was written."""
    atomic.write_text(tmp_path / "page.html", "out/by\udcfftes")
    assert (tmp_path / "page.html").read_text() == r"out/by\udcfftes"
