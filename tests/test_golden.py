"""Parity with other projects' own code: every array of the golden files."""

import pickle
import shutil
from pathlib import Path

import golden
import jax
import numpy as np
import pytest
from helpers import GOLDEN, golden_case

from thinkslow import importers
from thinkslow.weights import named

BUNDLED = Path(__file__).parent / "data" / "golden" / "danijar_main-b"
CASES = (
    "danijar_main-a",
    "danijar_main-b",
    "r2dreamer-a",
    "r2dreamer-b",
    "sheeprl_v35-a",
    "dreamerv3_v150-a",
    "dreamerv3_v150-b",
    "nm512_torch-a",
    "sheeprl-a",
)
OTHERS = (*sorted({file.parent.name for file in GOLDEN.glob("*/golden.npz")} - set(CASES)),)


def check(folder: Path, least: int = 35) -> None:
    lines = golden.compare(folder)
    assert len(lines) > least, "the golden file lost its arrays"
    off = [
        f"{line.name}: {line.difference:.2e} > {line.allowed:.1e}"
        for line in lines
        if not line.good
    ]
    assert not off, "\n".join(off)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES + OTHERS)
def test_every_array_equals_the_sources_own_code(name):
    check(golden_case(name))


def test_the_case_in_this_repository_equals_the_sources_own_code():
    check(BUNDLED)


@pytest.mark.nightly  # the cases themselves call theirs by many names
def test_a_case_may_call_its_observations_as_it_likes(tmp_path):
    """The names are the case's: another image, other vectors in the same sorted order."""
    called = {
        "image": "camera",
        "height": "a_level",
        "orientations": "b_pose",
        "velocity": "c_speed",
    }
    folder = shutil.copytree(BUNDLED, tmp_path / "case")
    found = importers.find(folder)
    params = {name: array.read() for name, array in found.content["params"].items()}
    for old, new in called.items():
        params = {n.replace(f"dec/vec/{old}/", f"dec/vec/{new}/"): x for n, x in params.items()}
    found.file.write_bytes(pickle.dumps({"params": params}))
    with np.load(folder / "golden.npz") as file:
        arrays = dict(file)
    for old, new in called.items():
        for stem in ("in/", "out/recon_", "imag/recon_", "loss/"):
            if stem + old in arrays:
                arrays[stem + new] = arrays.pop(stem + old)
    np.savez(folder / "golden.npz", **arrays)  # pyright: ignore[reportArgumentType]
    check(folder)


def test_a_wrong_number_is_off(tmp_path):
    folder = shutil.copytree(BUNDLED, tmp_path / "case")
    with np.load(folder / "golden.npz") as file:
        arrays = dict(file)
    arrays["out/kl"] = arrays["out/kl"] + np.float32(1e-4)
    arrays["loss/image"] = arrays["loss/image"] * np.float32(1 + 1e-3)
    np.savez(folder / "golden.npz", **arrays)  # pyright: ignore[reportArgumentType]
    off = [line.name for line in golden.compare(folder) if not line.good]
    assert sorted(off) == ["loss/image", "out/kl"]


def test_the_container_of_december_2024_holds_the_same_agent():
    first = importers.load(golden_case("danijar_main-a"))
    second = importers.load(golden_case("danijar_dec2024-a"), classes=8)
    assert first.manifest["training"]["steps"] == second.manifest["training"]["steps"] == 4567
    jax.tree.map(np.testing.assert_array_equal, named(first.model), named(second.model))


def test_an_agent_without_a_decoder_is_the_same_otherwise():
    with_decoder = importers.load(golden_case("r2dreamer-a")).model
    without = importers.load(golden_case("r2dreamer-a-nodecoder"))
    assert without.model.decode(without.model.initial()) == {}
    assert "decode" in without.manifest["cannot"]
    names = {name for name in named(with_decoder) if not name.startswith("dec/")}
    assert names == set(named(without.model))


@pytest.mark.parametrize(
    ("name", "twin", "classes"),
    [
        ("sheeprl-a-rb", "sheeprl-a", None),  # beside its replay buffer
        ("nm512_torch-a/nocompile", "nm512_torch-a", 8),  # names without wrappers
        ("dreamerv3_v150-a-float16", "dreamerv3_v150-a", None),  # computed in half precision
    ],
)
def test_the_same_agent_in_another_file_is_the_same(name, twin, classes):
    first, second = (importers.load(golden_case(n), classes=classes) for n in (name, twin))
    assert jax.tree.structure(first.model) == jax.tree.structure(second.model)
    jax.tree.map(np.testing.assert_array_equal, named(first.model), named(second.model))
