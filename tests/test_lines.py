"""Records as lines: what a killed process leaves."""

import json
import os
from pathlib import Path

import pytest

from thinkslow.storage import atomic, jsontext, lines

ROWS = [{"a": 1}, {"a": 2.5, "b": "line\nbreak"}]


def test_what_a_copy_shares_by_hard_links_stays_as_it_is(tmp_path):
    """Rows of a run that went on appeared in the run from which it was copied so."""
    first, copy = tmp_path / "first.jsonl", tmp_path / "copy.jsonl"
    first.write_text('{"a": 1}\n{"to')
    os.link(first, copy)
    lines.drop_torn(copy)
    os.link(copy, tmp_path / "another.jsonl")
    (tmp_path / "link.jsonl").symlink_to(copy)
    lines.append(tmp_path / "link.jsonl", [{"a": 2}])
    assert (tmp_path / "link.jsonl").is_symlink()
    assert first.read_text() == '{"a": 1}\n{"to'
    assert (tmp_path / "another.jsonl").read_text() == '{"a": 1}\n'
    assert copy.read_text() == '{"a": 1}\n{"a": 2}\n'


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_file_that_is_cut_anywhere_goes_on_behind_its_last_whole_line(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    lines.append(path, ROWS)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    there = content[:-cut].count(b"\n")
    assert [json.loads(line) for line in lines.whole(path)] == ROWS[:there]
    lines.drop_torn(path)
    lines.append(path, ROWS[there:])
    assert path.read_bytes() == content


def test_a_full_disk_is_said_with_the_file():
    """An evaluation was told to continue a training run, and not which file was too large."""
    with pytest.raises(atomic.Full, match=r"Saving /dev/full needs .* Free some space"):
        lines.append(Path("/dev/full"), ROWS)


def test_a_number_that_is_non_finite_writes_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        lines.append(path, [{"a": 1}, {"a": float("nan")}])
    assert lines.whole(path) == []
    lines.drop_torn(path)
    assert not path.exists()


def test_a_setting_without_bound_is_valid_json():
    """A study whose plan had an infinite `max_kl` wrote `Infinity`, which is no JSON."""
    value = {"max_kl": [float("inf"), float("-inf")], 'Infinity "NaN': "-Infinity\\", "on": True}

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(jsontext.dumps(value), parse_constant=refuse) == value
    assert json.loads(jsontext.dumps([float("nan")]), parse_constant=refuse) == [None]
