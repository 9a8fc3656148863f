"""What `thinkslow train` reads from its command line and says while it goes on."""

import logging
import time

import pytest

from thinkslow.cli import progress
from thinkslow.cli.numbers import whole
from thinkslow.cli.train import parse
from thinkslow.cli.usage import Usage
from thinkslow.dreamer.training.episodes import Progress


@pytest.mark.parametrize("text", ["100000", "100_000", "1e5", "1E+5", "0.1e6"])
def test_a_number_of_steps_may_be_written_as_people_write_it(text):
    assert parse(["CartPole-v1", "--steps", text]).steps == 100_000
    given = parse(["CartPole-v1", "--minutes", "1", "--learning.replay-capacity", text])
    assert given.learning.replay_capacity == 100_000
    assert parse(["CartPole-v1", "--steps", "1", "--budgets", "5", text]).budgets == (5, 100_000)


@pytest.mark.parametrize("text", ["1.5", "1e-1", "nan", "inf", "many", "", "1e30"])
def test_a_number_of_steps_that_is_not_whole_is_refused(text, capsys):
    with pytest.raises(ValueError, match="whole number"):
        whole(text)
    with pytest.raises(SystemExit) as raised:
        parse(["CartPole-v1", "--steps", text])
    assert raised.value.code == 2
    assert "whole" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--preset", "size1m"], ["--preset=size1m"]])
def test_a_preset_decides_the_other_defaults(given):
    learning = parse(["CartPole-v1", "--steps", "5", *given]).learning
    assert (learning.batch_length, learning.imagination_starts) == (64, 0)
    own = parse([*given, "CartPole-v1", "--learning.batch-length", "8", "--steps", "5"]).learning
    assert (own.batch_length, own.replay_ratio) == (8, 64.0)


def test_a_preset_that_there_is_not_is_refused_with_the_names(capsys):
    with pytest.raises(Usage, match=r"tiny, .*size1m"):
        parse(["CartPole-v1", "--steps", "5", "--preset", "huge"])
    with pytest.raises(SystemExit) as raised:
        parse(["CartPole-v1", "--steps", "5", "--preset"])
    assert raised.value.code == 2


@pytest.mark.usefixtures("jumping_clock")
def test_the_pace_is_of_the_time_that_passed(monkeypatch):
    pace, seconds = progress.Pace(1000, None), iter([100.0, 110.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    pace.of(Progress(0, 0, None))
    assert pace.of(Progress(100, 0, None)) == ("10", "2 min")


def test_without_a_terminal_a_run_says_how_it_goes(monkeypatch, caplog):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with (
        caplog.at_level(logging.INFO, logger="thinkslow"),
        progress.shown(steps=20_000, minutes=None) as show,
    ):
        show(Progress(4, 0, None))
        show(Progress(1204, 96, 0.00012345))
    first, second = caplog.messages
    assert "4 of 20,000 decisions, 0 updates, score -" in first
    assert "1,204 of 20,000 decisions, 96 updates, score 0.0001234" in second
    assert second.endswith("min left")
