"""Checkpoints that mean harm, or were harmed: refused in one line, soon, and never run."""

from pathlib import Path

import hostile
import pytest


def check(name: str, count: int, seed: int, work: Path) -> None:
    if not hostile.FORMATS[name].source.exists():
        pytest.skip(f"{hostile.FORMATS[name].source} comes with the project's shared folder")
    bad = [
        f"{mutant.kind}, {mutant.label}: {verdict}"
        for mutant, verdict in hostile.judged(name, count, seed, work)
        if verdict not in hostile.GOOD
    ]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("name", ["ours", "dreamerv3"])
def test_a_sample_of_mutants_is_refused(name, tmp_path, monkeypatch):
    """Those of other formats, and all of them, are slow."""
    monkeypatch.chdir(tmp_path)
    check(name, count=15, seed=0, work=tmp_path)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("name", hostile.FORMATS)
def test_mutants_of_every_format_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(name, count=300, seed=1, work=tmp_path)
