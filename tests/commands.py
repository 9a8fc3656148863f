"""The command line in tests: a process of its own, damages, the one line of an error."""

import sys
from pathlib import Path

from thinkslow.storage import store

THINKSLOW = (sys.executable, "-m", "thinkslow")
"""The command in a process of its own."""


def missing(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def without_weights(folder: Path) -> None:
    (folder / store.WEIGHTS).unlink()


def truncated(folder: Path) -> None:
    path = folder / store.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def altered(folder: Path) -> None:
    path = folder / store.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def truncated_manifest(folder: Path) -> None:
    path = folder / store.MANIFEST
    path.write_text(path.read_text()[:200])


DAMAGES = {
    missing: "There is no file, folder or bundled agent",
    without_weights: store.WEIGHTS,
    truncated: "truncated",
    altered: "altered",
    truncated_manifest: "not JSON",
}


def one_line(capsys) -> str:
    """The only line on standard error; standard output must be empty."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("thinkslow: ")
    return lines[0]
