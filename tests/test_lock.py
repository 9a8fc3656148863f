"""A folder has one writer at a time, and one that was killed does not keep it."""

import dataclasses
import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from thinkslow.storage import atomic, lines, lock

HOLD = """
import sys, time
from thinkslow.storage import lock
held = lock.claim(sys.argv[1])
print("held", flush=True)
time.sleep(600)
"""


def elsewhere(folder: Path) -> subprocess.Popen:
    """A process that holds the folder until it is ended."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    return process


def claimed_by(folder: Path, **changes) -> None:
    """The folder as another process left it."""
    claim = dataclasses.asdict(lock.Holder.me()) | changes
    atomic.write_text(folder / lock.NAME, json.dumps(claim))


def test_a_second_process_is_refused_by_name_until_the_first_ends(tmp_path):
    first = elsewhere(tmp_path)
    try:
        with pytest.raises(lock.Locked, match=rf"process {first.pid} .*choose another folder"):
            lock.claim(tmp_path)
    finally:
        first.terminate()
        first.communicate()
    lock.claim(tmp_path).release()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("waited_for", [True, False])
def test_a_killed_process_does_not_keep_its_folder(tmp_path, waited_for):
    """One that was killed and not waited for is a zombie, which still has its process id."""
    first = elsewhere(tmp_path)
    first.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    if waited_for:
        first.wait()
    held = lock.claim(tmp_path)
    held.check()
    held.release()
    first.communicate()


def test_a_folder_that_cannot_be_written_in_is_to_be_copied(tmp_path, monkeypatch):
    """A report of an archive said to choose another folder, which it cannot."""

    def fails(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(atomic, "write_text", fails)
    with pytest.raises(PermissionError, match=r"Read-only.*Copy it"):
        lock.claim(tmp_path)


def test_containers_of_one_name_do_not_take_each_others_folders(tmp_path, monkeypatch):
    """Each counts its processes, so the other's seemed to have ended, and two trained at once."""
    first = elsewhere(tmp_path)
    monkeypatch.setattr(lock, "_space", lambda: "pid:[1]")
    monkeypatch.setattr(lock, "began", lambda process: None)
    try:
        with pytest.raises(lock.Locked, match=r"in a container, .*end it there.*lock\.json"):
            lock.claim(tmp_path)
    finally:
        first.kill()
        first.communicate()
    lock.claim(tmp_path).release()


@pytest.mark.parametrize("since", ["1970-01-01 00:00:00", "2999-12-31 23:59:59"])
def test_a_claim_is_as_old_as_its_process_whatever_the_clock_said(tmp_path, since):
    first = elsewhere(tmp_path)
    claimed_by(tmp_path, process=first.pid, started=lock.began(first.pid), since=since)
    try:
        with pytest.raises(lock.Locked, match=since):
            lock.claim(tmp_path)
    finally:
        first.kill()
        first.communicate()
    lock.claim(tmp_path).release()


@pytest.mark.skipif(shutil.which("ps") is None, reason="no ps")
def test_the_start_of_a_process_does_not_depend_on_the_time_zone(monkeypatch):
    """Without /proc it is what `ps` says: local time, in the user's language."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    found = set()
    for zone in ("UTC", "Asia/Kolkata", "XYZ+11"):
        monkeypatch.setenv("TZ", zone)
        found.add(lock.began(os.getpid()))
    assert len(found) == 1
    assert None not in found


def test_a_process_does_not_claim_twice(tmp_path):
    held = lock.claim(tmp_path)
    with pytest.raises(lock.Locked, match=str(os.getpid())):
        lock.claim(tmp_path)
    held.release()
    held.release()
    lock.claim(tmp_path).release()


def test_a_process_id_that_was_given_again_is_not_the_holder(tmp_path):
    claimed_by(tmp_path, started="long ago")
    lock.claim(tmp_path).release()


def test_the_claim_of_another_machine_stands_until_its_file_is_deleted(tmp_path):
    claimed_by(tmp_path, host=platform.node() + "-2")
    with pytest.raises(lock.Locked, match=rf"{platform.node()}-2 .*delete .*{lock.NAME}"):
        lock.claim(tmp_path)
    (tmp_path / lock.NAME).unlink()
    lock.claim(tmp_path).release()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"host": 1}', "null", 10**5 * "["])
def test_a_claim_that_says_nothing_is_refused_with_the_file_to_delete(tmp_path, text):
    (tmp_path / lock.NAME).write_text(text)
    with pytest.raises(lock.Locked, match=r"delete that file") as error:
        lock.claim(tmp_path)
    assert lock.NAME in str(error.value)


def test_a_folder_that_is_deleted_while_it_is_held_is_noticed(tmp_path):
    held = lock.claim(tmp_path / "run")
    (tmp_path / "run" / lock.NAME).unlink()
    (tmp_path / "run").rmdir()
    with pytest.raises(lock.Lost, match="deleted"):
        held.check()
    held.release()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("again", ["nothing", "a folder", "another writer"])
def test_nothing_is_written_into_what_took_the_place_of_a_moved_folder(tmp_path, again):
    """An evaluation whose folder was moved said that its path was wrong, and appended its rows to
    another evaluation that was begun there."""
    place, moved = tmp_path / "out", tmp_path / "moved"

    def played() -> None:
        with lock.writing(place):
            lines.append(place / "rows.jsonl", [{"row": 1}])
            place.rename(moved)
            if again != "nothing":
                place.mkdir()
            if again == "another writer":
                claimed_by(place, process=1)
            for write in (lines.append, lines.write):
                with pytest.raises(lock.Lost):
                    write(place / "rows.jsonl", [{"row": 2}])
            (place / "rows.jsonl").read_bytes()

    with pytest.raises(lock.Lost, match=r"out was .* continue in its new place"):
        played()
    left = ["lock.json"] if again == "another writer" else []
    assert not place.exists() or os.listdir(place) == left
    assert (moved / "rows.jsonl").read_text() == '{"row": 1}\n'


def test_a_folder_that_is_still_to_be_written_is_claimed_again(tmp_path):
    with lock.writing(tmp_path / "out") as held:
        shutil.rmtree(tmp_path / "out")
        held.renew()
        atomic.write_text(tmp_path / "out" / "page", "page")
        with pytest.raises(lock.Locked):
            lock.claim(tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["page"]


def test_a_claim_is_not_given_free_by_an_earlier_one_of_its_process(tmp_path):
    """The object of the earlier claim, collected later, deleted the later claim."""
    first = lock.claim(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    second = lock.claim(tmp_path / "out")
    first.release()
    with pytest.raises(lock.Locked):
        lock.claim(tmp_path / "out")
    second.release()
    assert not os.listdir(tmp_path / "out")


def test_a_folder_that_is_taken_over_is_noticed_and_not_given_free(tmp_path):
    held = lock.claim(tmp_path)
    claimed_by(tmp_path, process=1)
    with pytest.raises(lock.Lost, match="taken over by process 1"):
        held.check()
    held.release()
    assert (tmp_path / lock.NAME).exists()


def test_of_many_that_claim_at_once_one_gets_the_folder(tmp_path):
    script = (
        "import sys, time\nfrom thinkslow.storage import lock\n"
        "try: held = lock.claim(sys.argv[1])\n"
        "except lock.Locked: print('no', flush=True)\n"
        "else: print('yes', flush=True)\n"
        "sys.stdin.read()\n"
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = [process.stdout.readline().strip() for process in many if process.stdout]
    for process in many:
        process.communicate()
    assert sorted(answers) == ["no", "no", "no", "yes"]
