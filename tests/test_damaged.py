"""Checkpoints of other projects with wrong weights, or cut off, or altered."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import golden_case, nightly, slow

from thinkslow import importers
from thinkslow.importers.formats.arrays import Stored
from thinkslow.importers.loading import read, saved_from
from thinkslow.saved import folder as checkpoint
from thinkslow.storage import checks, store

MAIN = ("danijar_main-a", "r2dreamer-b", "sheeprl_v35-a")


def state(content: Any) -> dict[str, Any]:
    """The names and arrays of a checkpoint, to change."""
    for key in ("params", "agent_state_dict", "world_model"):
        if key in content:
            return content[key]
    return content["agent"]


def some(arrays: dict[str, Any]) -> str:
    """A weight that is neither square nor frozen."""
    return next(
        name
        for name, x in arrays.items()
        if isinstance(x, Stored)
        and len(x.shape) == 2
        and x.shape[0] != x.shape[1]
        and not name.startswith(("opt", "_frozen"))
        and x.size > 100
    )


def replaced(array: Stored, values: np.ndarray) -> Stored:
    return dataclasses.replace(array, shape=values.shape, dtype=values.dtype, fetch=values.copy)


def changed(folder: Path, change: Any, **options: Any) -> checkpoint.Saved:
    """The agent of a checkpoint whose content was changed."""
    found = importers.find(folder)
    change(state(found.content))
    return saved_from(folder, found, read(found), **options)


@pytest.mark.parametrize("name", MAIN)
def test_a_missing_weight_is_named(name):
    with pytest.raises((store.Misfit, store.Damaged), match=r"missing|of no weight"):
        changed(golden_case(name), lambda arrays: arrays.pop(some(arrays)))


@pytest.mark.parametrize("name", MAIN)
def test_an_unknown_weight_is_named(name):
    def add(arrays: dict[str, Any]) -> None:
        arrays["rssm.surplus.weight"] = arrays[some(arrays)]

    with pytest.raises(store.Misfit, match=r"rssm\.surplus\.weight"):
        changed(golden_case(name), add)


@pytest.mark.parametrize("name", MAIN)
def test_a_transposed_weight_is_refused(name):
    def transpose(arrays: dict[str, Any]) -> None:
        array = arrays[some(arrays)]
        arrays[some(arrays)] = replaced(array, array.read().T.copy())

    with pytest.raises(store.Misfit):
        changed(golden_case(name), transpose)


@pytest.mark.parametrize("name", MAIN)
def test_weights_that_cannot_be_are_refused_unless_allowed(name):
    """A bit that changed in an exponent gave a weight of 1e20, and nothing said so."""

    def spoil(arrays: dict[str, Any]) -> None:
        values = arrays[some(arrays)].read()
        values[0, :3] = np.nan, np.inf, 1e20
        arrays[some(arrays)] = replaced(arrays[some(arrays)], values)

    with pytest.raises(ValueError, match=r"3 of \d+ values of .* are non-finite.*nonfinite"):
        changed(golden_case(name), spoil)
    saved = changed(golden_case(name), spoil, allow_nonfinite=True)
    assert list(saved.manifest["nonfinite"].values()) == [3]


@pytest.mark.parametrize("wrong", [lambda name: name[:-1] + "?", lambda name: "opt/x" + name[5:]])
def test_an_altered_name_in_the_optimiser_tells_that_more_may_be(wrong):
    """A pickle has no checksum: fifty random bytes of one were loaded, and nothing said so."""

    def rename(arrays: dict[str, Any]) -> None:
        name = next(name for name in arrays if name.startswith("opt/state/1/1/"))
        arrays[wrong(name)] = arrays.pop(name)

    with pytest.raises(store.Damaged, match="altered"):
        changed(golden_case("danijar_main-a"), rename)


def weights_of(file: Path, config: Path | None) -> dict[str, np.ndarray] | str:
    """What a file gives: weights, or the one line of its error."""
    try:
        found = dataclasses.replace(importers.find(file), config=config)
        foreign = read(found)
        saved_shapes = {name: array.shape for name, array in foreign.weights.items()}
        checks.match(foreign.weights, saved_shapes, what="")
    except (ValueError, OSError) as error:
        return str(error)
    return foreign.weights


@pytest.mark.parametrize("kilobytes", [slow(16), nightly(1)])
@pytest.mark.parametrize("name", MAIN)
def test_a_file_cut_anywhere_gives_one_error(name, kilobytes, tmp_path):
    found = importers.find(golden_case(name))
    data = found.file.read_bytes()
    file = tmp_path / found.file.name
    # An archive without its end fails at once; of a pickle, all that is there is looked at first,
    # which takes long with every call type-checked: the next test cuts it at every kilobyte.
    pickled = found.format == "dreamerv3"
    for end in range(0, len(data), 1024 * kilobytes * (24 if pickled else 1)):
        file.write_bytes(data[:end])
        error = weights_of(file, found.config)
        assert isinstance(error, str)
        assert "\n" not in error


CUT = """
import sys
from pathlib import Path
from thinkslow.importers.formats import pickles
from thinkslow.storage import store
whole, cut = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for end in range(0, len(whole), 1024):
    cut.write_bytes(whole[:end])
    try:
        pickles.load(cut)
    except store.Damaged as error:
        assert str(error) and chr(10) not in str(error)
    else:
        sys.exit(f"cut after {end} bytes it was read")
"""


@pytest.mark.slow
def test_a_pickle_cut_at_every_kilobyte_is_damaged(tmp_path):
    """In a process of its own, where calls are not type-checked."""
    whole = importers.find(golden_case("danijar_main-a")).file
    command = [sys.executable, "-c", CUT, str(whole), str(tmp_path / "agent.pkl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [slow(2), nightly(6)])
@pytest.mark.parametrize("name", MAIN)
def test_a_flipped_byte_spoils_one_weight_at_most_or_is_found(name, count, tmp_path):
    """A pickle has no checksum, so that a flip inside of a number cannot be seen; an archive's
    checksums see it. Neither ever moves a weight to another place."""
    found = importers.find(golden_case(name))
    right = read(found).weights
    data = bytearray(found.file.read_bytes())
    rng = np.random.default_rng(0)
    # Half of them in what is not numbers, where a flip changes what the numbers are.
    text = [i for i in rng.integers(0, len(data), 4000) if data[i] in b"/_kernelbiasc\x94R\x85"]
    for where in [*rng.integers(0, len(data), count), *text[:count]]:
        before = data[where]
        data[where] ^= 1 << rng.integers(8)
        file = tmp_path / found.file.name
        file.write_bytes(data)
        data[where] = before
        got = weights_of(file, found.config)
        if isinstance(got, str):
            assert "\n" not in got
            continue
        assert got.keys() == right.keys()
        other = [n for n in right if not np.array_equal(got[n], right[n])]
        assert len(other) <= (name == "danijar_main-a")
