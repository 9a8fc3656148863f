"""What stands where a file is expected is read if it is a file, and refused otherwise."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from thinkslow.bank import stored as bank
from thinkslow.dreamer.training import run
from thinkslow.dreamer.training.logs import Logs
from thinkslow.dreamer.training.replay import Replay
from thinkslow.evaluation import records
from thinkslow.gap import stored as gap
from thinkslow.storage import lines, reading, saves
from thinkslow.storage.faults import Damaged
from thinkslow.storage.lock import alone
from thinkslow.study import parsing
from thinkslow.study.run import finish


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


STANDINS = {
    "a pipe": pipe,
    "a folder": Path.mkdir,
    "a device": device,
    "a socket": listening,
    "a link to nothing": nothing,
    "cannot be read": circle,
}


@pytest.mark.parametrize("kind", STANDINS)
def test_only_a_file_is_one(tmp_path, kind):
    path = tmp_path / "file"
    assert not reading.is_file(path)
    STANDINS[kind](path)
    with pytest.raises(Damaged, match=kind):
        reading.is_file(path)


def test_a_file_of_any_size_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", 3)
    (tmp_path / "file").write_bytes(b"0123456789")
    assert reading.read_file(tmp_path / "file") == b"0123456789"
    assert reading.read_bounded(tmp_path / "file", 10, "short") == b"0123456789"
    with pytest.raises(Damaged, match="over 9 bytes"):
        reading.read_bounded(tmp_path / "file", 9, "short")


def replay(folder: Path) -> None:
    kept = Replay({"x": ((), np.dtype(np.float32))}, streams=1, capacity=4, path=folder)
    kept.add({"x": np.zeros(1, np.float32)})
    index = kept.save()
    (file,) = folder.glob("rows-*")
    file.unlink()
    os.mkfifo(file)
    Replay.load(folder, index)


def own_file(path: Path) -> None:
    with alone(path):
        pass


READERS = {
    "evaluation.json": lambda path: records.read(path.parent),
    "bank.json": lambda path: bank.read(path.parent),
    "plan.json": lambda path: gap.read(path.parent),
    "study.json": lambda path: finish(path.parent),
    "mine.toml": parsing.read,
    "config.json": lambda path: run.read(path.parent),
    "latest": lambda path: saves.latest(path.parent),
    "episodes.jsonl": lines.whole,
    "log.txt": lambda path: Logs(path.parent),
    "metrics.jsonl": lambda path: Logs(path.parent),
    "episode.mp4": own_file,
    "rows": lambda path: replay(path.parent / "replay"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_in_place_of_a_file_is_refused_by_name(tmp_path, name):
    """Some readers waited for its other end; others called the file missing, and began anew."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(Damaged, match=rf"{name.partition('.')[0]}.*it is a pipe"):
        READERS[name](tmp_path / name)
