"""Parity with the official DreamerV3: every array of the golden files."""

import os
from pathlib import Path

import golden
import pytest

GOLDEN = Path(__file__).parents[1] / ".." / "shared" / "golden"


@pytest.mark.parametrize("name", ["danijar_main-a", "danijar_main-b"])
def test_every_array_equals_the_official_code(name):
    folder = (GOLDEN / name).resolve()
    if not folder.exists():
        if os.environ.get("THINKSLOW_REQUIRE_GOLDEN") == "1":
            pytest.fail(f"THINKSLOW_REQUIRE_GOLDEN=1, but {folder} is not there.")
        pytest.skip(f"{folder} is not there: it comes with the project's shared folder")
    lines = golden.compare(folder)
    assert len(lines) > 40, "the golden file lost its arrays"
    off = [f"{line.name}: {line.difference:.2e} > {line.allowed:.1e}" for line in lines
           if not line.good]  # fmt: skip
    assert not off, "\n".join(off)
