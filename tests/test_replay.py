import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import psutil
import pytest
from crashes import every_kill
from helpers import nightly, slow
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkslow.dreamer.training import replay as module
from thinkslow.dreamer.training.replay import Indices, Replay
from thinkslow.storage import atomic, saves, store

FIELDS = {
    "image": ((2, 2, 3), np.uint8),
    "reward": ((), np.float32),
    "is_first": ((), np.bool_),
    "deter": ((3,), np.float16),
    "stoch": ((2,), np.uint8),
}
MUTABLE = ("deter", "stoch")


def row(time: int, streams: int) -> dict[str, np.ndarray]:
    """What happened at a time step: a function of stream and time, different for each."""
    identity = 100 * time + np.arange(streams)
    return {
        "image": (identity[:, None, None, None] + np.arange(12).reshape(2, 2, 3)).astype(np.uint8),
        "reward": identity.astype(np.float32),
        "is_first": (identity // 100) % 5 == 0,
        "deter": np.repeat((identity % 997).astype(np.float16)[:, None], 3, axis=1),
        "stoch": np.repeat((identity % 251).astype(np.uint8)[:, None], 2, axis=1),
    }


def filled(rows: int, *, streams: int = 2, capacity: int = 20, path: Path | None = None) -> Replay:
    replay = Replay(FIELDS, streams=streams, capacity=capacity, path=path, mutable=MUTABLE)
    for time_ in range(rows):
        replay.add(row(time_, streams))
    return replay


def refresh(replay: Replay, rng: np.random.Generator) -> None:
    """What a training step does: sample, compute better latents, write them back."""
    batch, indices = replay.sample(rng, 3, 2)
    replay.write(indices, {name: batch[name] + np.array(1, batch[name].dtype) for name in MUTABLE})


def content(replay: Replay) -> dict[str, bytes]:
    """Windows that begin anywhere, and whole streams: 48 draws from 3 at most leave none out."""
    rng = np.random.default_rng(0)
    held = len(replay) // replay.streams
    return {
        "len": bytes([len(replay)]),
        "steps": str(replay.steps).encode(),
        **{
            f"{name} {draw}": value.tobytes()
            for draw in range(3)
            for length in {1, held}
            if held
            for name, value in replay.sample(rng, 16, length)[0].items()
        },
    }


@settings(max_examples=150, deadline=None)
@given(
    streams=st.integers(1, 3),
    size=st.integers(1, 8),
    rows=st.integers(1, 30),
    length=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_window_is_what_its_stream_went_through(streams, size, rows, length, seed):
    replay = filled(rows, streams=streams, capacity=streams * size + streams - 1)
    held = min(rows, size)
    assert len(replay) == streams * held
    assert replay.steps == streams * rows
    if length > held:
        with pytest.raises(ValueError, match=rf"window of {length} steps .* holds {held} "):
            replay.sample(np.random.default_rng(seed), 4, length)
        return
    batch, indices = replay.sample(np.random.default_rng(seed), 4, length)
    np.testing.assert_array_equal(np.diff(indices.time, axis=1), 1)
    assert indices.time.min() >= rows - held
    assert indices.time.max() < rows
    for name, (shape, kind) in FIELDS.items():
        assert batch[name].shape == (4, length, *shape)
        assert batch[name].dtype == kind
        for b, stream in enumerate(indices.stream):
            truth = np.stack([row(time_, streams)[name][stream] for time_ in indices.time[b]])
            np.testing.assert_array_equal(batch[name][b], truth)


def test_all_windows_are_equally_likely():
    replay = filled(27, streams=3, capacity=3 * 10)
    draws = 16_000
    _, indices = replay.sample(np.random.default_rng(0), draws, 3)
    windows, counts = np.unique(
        np.stack([indices.stream, indices.time[:, 0]]), axis=1, return_counts=True
    )
    assert windows.shape[1] == 3 * 8
    deviation = np.sqrt(draws / 24)  # of a count, for rare events; five of them is one in 10^6
    assert np.abs(counts - draws / 24).max() < 5 * deviation


def test_the_same_generator_gives_the_same_sample():
    replay = filled(9)
    first, second = (replay.sample(np.random.default_rng(5), 4, 3)[0] for _ in range(2))
    for name in FIELDS:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_sample_is_a_copy():
    replay = filled(9)
    before = content(replay)
    batch, _ = replay.sample(np.random.default_rng(0), 4, 9)
    for value in batch.values():
        value[...] = 0
    assert content(replay) == before


def test_latents_written_back_are_sampled_next():
    replay = filled(13)
    indices = Indices(np.array([1]), np.array([[9, 10, 11, 12]]))
    latents = {"deter": np.full((1, 2, 3), 0.5, np.float32), "stoch": np.full((1, 2, 2), 7)}
    with pytest.raises(TypeError, match="stoch is stored as uint8; got int64"):
        replay.write(indices.part(2), latents)
    latents["stoch"] = latents["stoch"].astype(np.uint8)
    replay.write(indices.part(2), latents)
    batch, found = replay.sample(np.random.default_rng(0), 64, 1)
    changed = (found.stream == 1) & (found.time[:, 0] >= 11)
    assert changed.any()
    np.testing.assert_array_equal((batch["deter"] == 0.5).all((1, 2)), changed)
    np.testing.assert_array_equal((batch["stoch"] == 7).all((1, 2)), changed)


def test_steps_that_left_the_replay_are_not_written():
    replay = filled(10)  # holds times 0 to 9
    indices = Indices(np.array([0]), np.array([[0, 1, 2]]))
    for time_ in (10, 11):  # take the places of 0 and 1
        replay.add(row(time_, 2))
    replay.write(indices, {"stoch": np.full((1, 3, 2), 255, np.uint8)})
    batch, found = replay.sample(np.random.default_rng(0), 200, 1)
    written = (batch["stoch"] == 255).all((1, 2))
    np.testing.assert_array_equal(written, (found.stream == 0) & (found.time[:, 0] == 2))


def test_of_overlapping_windows_the_later_in_the_batch_wins():
    replay = filled(10)
    indices = Indices(np.array([0, 0, 0]), np.array([[1, 2], [2, 3], [1, 2]]))
    values = np.arange(6, dtype=np.uint8).reshape(3, 2, 1).repeat(2, 2) + 200
    replay.write(indices, {"stoch": values})
    batch, found = replay.sample(np.random.default_rng(0), 200, 1)
    for time_, value in ((1, 204), (2, 205), (3, 203)):
        at = (found.stream == 0) & (found.time[:, 0] == time_)
        assert (batch["stoch"][at] == value).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"extra": np.zeros(2)}, ValueError, "extra"),
        ({"reward": np.zeros(3, np.float32)}, ValueError, r"reward must have shape \(2,\)"),
        ({"stoch": np.zeros((2, 2), np.int32)}, TypeError, "stored as uint8; got int32"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_whole(change, error, message):
    replay = filled(4)
    before = content(replay)
    with pytest.raises(error, match=message):
        replay.add({**row(4, 2), **change})
    assert content(replay) == before


def test_arguments_without_sense_are_refused():
    with pytest.raises(ValueError, match="Raise the capacity"):
        Replay(FIELDS, streams=4, capacity=3)
    with pytest.raises(ValueError, match="deter is not"):
        Replay({"image": FIELDS["image"]}, streams=1, capacity=3, mutable=("deter",))
    with pytest.raises(ValueError, match="Python objects"):
        Replay({"image": ((), object)}, streams=1, capacity=3)
    with pytest.raises(ValueError, match="must be 1 or more"):
        filled(4).sample(np.random.default_rng(0), 0, 2)
    with pytest.raises(ValueError, match="Only mutable"):
        filled(4).write(Indices(np.zeros(1, int), np.zeros((1, 1), int)), {"reward": np.zeros(1)})
    with pytest.raises(ValueError, match="Give `path`"):
        filled(4).save()


def test_a_large_replay_takes_no_memory_while_empty():
    process = psutil.Process()
    before = process.memory_info().rss
    replay = Replay({"image": ((64, 64, 3), np.uint8)}, streams=16, capacity=500_000)  # 6 GB
    replay.add({"image": np.ones((16, 64, 64, 3), np.uint8)})
    # One huge page of 2 MB per stream, and as much again for whatever else runs here.
    assert process.memory_info().rss - before < 2 * 16 * 2**21


@settings(max_examples=30, deadline=None)
@given(
    segment=st.sampled_from([1, 100, 2**26]),
    operations=st.lists(st.sampled_from(["add", "add 3", "add 12", "write", "save"]), max_size=12),
)
def test_a_loaded_replay_equals_the_saved_one_bit_for_bit(segment, operations):
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEGMENT_BYTES", segment)
        replay = filled(0, path=Path(folder))
        index = {}
        for operation in [*operations, "save"]:
            if operation == "save":
                replay.commit(index := json.loads(json.dumps(replay.save())))
                replay = Replay.load(folder, index) if rng.random() < 0.5 else replay
            elif operation == "write":
                if len(replay) >= 4:
                    refresh(replay, rng)
            else:
                for _ in range(int(operation[4:] or 1)):
                    replay.add(row(replay.steps // 2, 2))
        assert content(Replay.load(folder, index)) == content(replay)
        files = {entry[0] for entry in index["rows"] + index["latents"]}
        assert set(os.listdir(folder)) == files


def test_a_save_writes_back_only_the_latents_that_changed_since_the_last(tmp_path):
    """It wrote those of every row each time: gigabytes for a large model, every five minutes."""
    replay = filled(10, path=tmp_path)
    first = replay.save()
    assert first["latents"] == [], "they are in the rows that were just written"
    indices = Indices(np.array([1]), np.array([[3, 4, 5]]))
    fields = {"deter": np.ones((1, 3, 3), np.float16), "stoch": np.ones((1, 3, 2), np.uint8)}
    replay.write(indices, fields)
    second = replay.save()
    assert [entry[2] for entry in second["latents"]] == [3]
    assert replay.save()["latents"] == second["latents"], "nothing new, nothing written"
    replay.commit(second)
    assert content(Replay.load(tmp_path, second)) == content(replay)


def test_patches_never_hold_more_rows_than_the_replay(tmp_path):
    replay, rng = filled(10, path=tmp_path), np.random.default_rng(0)
    for time_ in range(10, 40):
        refresh(replay, rng)
        index = replay.save()
        replay.commit(index)
        assert sum(entry[2] for entry in index["latents"]) <= len(replay)
        assert content(Replay.load(tmp_path, index)) == content(replay)
        if time_ % 3 == 0:
            replay.add(row(time_, 2))


def test_a_replay_whose_files_are_gone_is_written_whole_again(tmp_path):
    replay = filled(10, path=tmp_path)
    assert replay.missing() is None
    refresh(replay, np.random.default_rng(0))
    index = replay.save()
    assert replay.missing() is None
    (tmp_path / index["rows"][0][0]).unlink()
    gone = replay.missing()
    assert gone
    assert gone.name == index["rows"][0][0]
    replay.forget_files()
    assert content(Replay.load(tmp_path, replay.save())) == content(replay)


def test_a_field_of_bfloat16_or_of_no_size_is_saved(tmp_path):
    fields = {"deter": ((2,), ml_dtypes.bfloat16), "none": ((0,), np.float32)}
    replay = Replay(fields, streams=1, capacity=4, path=tmp_path)
    replay.add({"deter": np.full((1, 2), 1.5, ml_dtypes.bfloat16), "none": np.zeros((1, 0))})
    assert content(Replay.load(tmp_path, replay.save())) == content(replay)


def test_a_save_writes_only_what_is_new_and_the_disk_does_not_grow_with_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 100)
    replay = filled(10, path=tmp_path)
    sizes = []
    for time_ in range(10, 60):
        before = set(os.listdir(tmp_path))
        index = replay.save()
        assert before <= set(os.listdir(tmp_path)), "files of earlier saves stay until commit"
        new = [entry for entry in index["rows"] if entry[0] not in before]
        assert sum(entry[2] - entry[1] for entry in new) == (10 if time_ == 10 else 1)
        replay.commit(index)
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
        replay.add(row(time_, 2))
    assert max(sizes) <= sizes[0] + 100  # one segment that is not yet all too old


def test_rows_that_came_and_went_between_two_saves_are_not_written(tmp_path):
    replay = filled(4, path=tmp_path)
    replay.save()
    for time_ in range(4, 40):
        replay.add(row(time_, 2))
    assert [entry[1:3] for entry in replay.save()["rows"]] == [[30, 40]]


def test_a_new_replay_in_a_used_folder_does_not_touch_what_an_older_index_needs(tmp_path):
    older = filled(4, path=tmp_path)
    index = older.save()
    newer = filled(4, path=tmp_path)
    refresh(newer, np.random.default_rng(0))
    newer.save()
    assert content(Replay.load(tmp_path, index)) == content(older)


def test_a_commit_of_an_older_index_keeps_what_a_newer_save_wrote(tmp_path):
    replay = filled(4, path=tmp_path)
    first = replay.save()
    replay.add(row(4, 2))
    second = replay.save()
    replay.commit(first)
    for index in (first, second):
        Replay.load(tmp_path, index)


class Trainer:
    """As much of a trainer as touches the disk: each round adds, refreshes and checkpoints."""

    def __init__(self, run: Path, replay: Replay, rng: np.random.Generator):
        self.run, self.replay, self.rng = run, replay, rng

    @classmethod
    def start(cls, run: Path) -> "Trainer":
        return cls(run, filled(0, path=run / "replay"), np.random.default_rng(1))

    @classmethod
    def resume(cls, run: Path) -> "Trainer":
        save = saves.latest(run / "saves")
        if save is None:
            return cls.start(run)
        state = store.read_manifest(save)
        rng = np.random.default_rng()
        rng.bit_generator.state = state["rng"]
        return cls(run, Replay.load(run / "replay", state["replay"]), rng)

    def advance(self) -> None:
        for _ in range(3):
            self.replay.add(row(self.replay.steps // 2, 2))
            if len(self.replay) >= 4:
                refresh(self.replay, self.rng)

    def checkpoint(self) -> None:
        index = self.replay.save()
        state = {"replay": index, "rng": self.rng.bit_generator.state}
        saves.write(self.run / "saves", {}, state)
        self.replay.commit(index)


def uninterrupted(rounds: int) -> list[dict[str, bytes]]:
    """The content of the replay after each round; no disk is involved."""
    trainer = Trainer(Path(), filled(0), np.random.default_rng(1))
    contents = [content(trainer.replay)]
    for _ in range(rounds):
        trainer.advance()
        contents.append(content(trainer.replay))
    return contents


@pytest.mark.parametrize("rounds", [0, slow(1), nightly(5)])
def test_a_run_killed_at_any_instant_of_a_checkpoint_goes_on_as_if_never_killed(
    tmp_path, monkeypatch, rounds
):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 100)
    truth = uninterrupted(rounds + 2)
    run, trainer, reached = tmp_path / "run", None, set()

    def prepare():
        nonlocal trainer
        shutil.rmtree(run, ignore_errors=True)
        trainer = Trainer.start(run)
        for _ in range(rounds):
            trainer.advance()
            trainer.checkpoint()
        trainer.advance()

    for _ in every_kill(action=lambda: trainer and trainer.checkpoint(), prepare=prepare):
        resumed = Trainer.resume(run)
        after = resumed.replay.steps // 6
        reached.add(after)
        assert content(resumed.replay) == truth[after]
        for next_round in range(after + 1, rounds + 3):
            resumed.advance()
            assert content(resumed.replay) == truth[next_round]
            resumed.checkpoint()
        assert content(Trainer.resume(run).replay) == truth[-1]
        save = saves.latest(run / "saves")
        assert save
        index = store.read_manifest(save)["replay"]
        assert set(os.listdir(run / "replay")) == {
            entry[0] for entry in index["rows"] + index["latents"]
        }
    assert reached == {rounds, rounds + 1}


@pytest.mark.slow
def test_a_run_killed_by_the_system_goes_on_as_if_never_killed(tmp_path):
    script = (
        "import sys; from pathlib import Path; from test_replay import Trainer\n"
        "trainer = Trainer.resume(Path(sys.argv[1]))\n"
        "while True: trainer.advance(); trainer.checkpoint()"
    )
    rounds = 0
    for delay in np.random.default_rng(0).uniform(0.0, 0.1, size=2):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parent
        )
        before = sum(1 for _ in tmp_path.glob("replay/*"))
        deadline = time.monotonic() + 60
        while sum(1 for _ in tmp_path.glob("replay/*")) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed = Trainer.resume(tmp_path).replay
        rounds = resumed.steps // 6
        assert content(resumed) == uninterrupted(rounds)[-1]
    assert rounds > 0


@pytest.mark.parametrize("kind", ["rows", "latents"])
def test_a_segment_that_is_gone_torn_or_altered_is_named(tmp_path, kind):
    replay = filled(10, path=tmp_path)
    replay.save()
    refresh(replay, np.random.default_rng(0))
    index = replay.save()
    file = tmp_path / index[kind][0][0]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(store.Damaged, match=rf"{file.name} .*{len(whole) - 1} bytes"):
        Replay.load(tmp_path, index)
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(store.Damaged, match="altered"):
        Replay.load(tmp_path, index)
    file.unlink()
    with pytest.raises(store.Missing, match=file.name):
        Replay.load(tmp_path, index)
    with pytest.raises(store.Damaged, match="has format 3"):
        Replay.load(tmp_path, {**index, "format": 3})


def test_a_full_disk_during_a_save_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 100)
    replay = filled(4, path=tmp_path)
    first = replay.save()
    replay.commit(first)
    before, files = content(replay), set(os.listdir(tmp_path))
    for time_ in range(4, 9):
        replay.add(row(time_, 2))
    after = content(replay)
    for room in range(3):  # so many more files fit
        with monkeypatch.context() as patch:
            left, real = [room], os.fsync

            def fsync(descriptor, left=left, real=real):
                if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    return real(descriptor)
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(os, "fsync", fsync)
            with pytest.raises(atomic.Full, match="Free some space"):
                replay.save()
        assert set(os.listdir(tmp_path)) == files
        assert content(Replay.load(tmp_path, first)) == before
    assert content(Replay.load(tmp_path, replay.save())) == after


def test_files_of_a_save_that_was_never_finished_do_not_stay(tmp_path):
    """Each attempt on a full disk left its rows behind, so that the disk stayed full."""
    replay = filled(4, path=tmp_path)
    first = replay.save()
    before, files = content(replay), set(os.listdir(tmp_path))
    for time_ in range(4, 9):
        replay.add(row(time_, 2))
    replay.save()  # and the process ends before the checkpoint that holds its index
    again = Replay.load(tmp_path, first)
    again.remove_leftovers()
    assert set(os.listdir(tmp_path)) == files
    assert content(Replay.load(tmp_path, first)) == before
    filled(0, path=tmp_path).remove_leftovers()
    assert not os.listdir(tmp_path)


def test_a_replay_beyond_the_memory_says_how_much_it_needs():
    replay = Replay(FIELDS, streams=2, capacity=10)
    assert replay.nbytes == sum(rows.nbytes for rows in replay._rows.values())
    with pytest.raises(ValueError, match=r"replay of 10,[0,]* time steps needs .* GiB.*Lower"):
        Replay(FIELDS, streams=2, capacity=10**16)
