"""One line for an exception: the cause, where it is, and a remedy."""

import errno
import logging
import os
import re
from typing import Any

import pytest
from commands import DAMAGES, one_line
from helpers import slow
from jax.errors import JaxRuntimeError

from thinkslow.cli import inspect, main
from thinkslow.cli.common import log_to_console
from thinkslow.storage import store


@pytest.mark.parametrize("command", ["inspect", slow("evaluate")])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_agent_is_one_line_that_says_what_is_wrong(
    command, damage, agent, tmp_path, capsys
):
    damage(agent)
    out = [] if command == "inspect" else ["--out", str(tmp_path / "out")]
    assert main([command, str(agent), *out]) == 1
    line = one_line(capsys)
    assert DAMAGES[damage] in line
    assert str(agent) in line
    assert not (tmp_path / "out").exists()


def test_an_agent_of_another_shape_names_the_array_and_both_shapes(agent, capsys):
    weights, manifest = store.read(agent)
    manifest["model"]["deter"] = 64
    store.write(agent, weights, manifest)
    assert main(["evaluate", str(agent)]) == 1
    assert "is (4, 8, 24), expected (4, 16, 48)" in one_line(capsys)


def test_a_full_disk_says_how_to_go_on(monkeypatch, capsys):
    def full(options):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/first/metrics.jsonl")

    monkeypatch.setattr(inspect, "run", full)
    assert main(["inspect", "agent"]) == 1
    said = one_line(capsys)
    assert "The disk is full" in said
    assert "metrics.jsonl" in said
    assert "run the command again" in said


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EROFS, "allow access"), (errno.ENOTDIR, "Give another path.")]
)
def test_an_error_of_the_system_is_told_without_its_number(number, remedy, monkeypatch, capsys):
    def barred(options):
        raise OSError(number, os.strerror(number), "/media/out")

    monkeypatch.setattr(inspect, "run", barred)
    assert main(["inspect", "agent"]) == 1
    said = one_line(capsys)
    assert said.startswith(f"thinkslow: /media/out: {os.strerror(number)}. ")
    assert remedy in said
    assert "Errno" not in said


@pytest.mark.parametrize("words", [["--debug"], []])
def test_what_is_logged_for_debugging_is_shown_with_debug(words, monkeypatch, capsys):
    def told(options: Any) -> None:
        log_to_console()
        logging.getLogger("thinkslow").debug("a traceback\n  of two lines")

    logger = logging.getLogger("thinkslow")
    monkeypatch.setattr(logger, "handlers", [])
    before = logger.level
    monkeypatch.setattr(inspect, "run", told)
    assert main(["inspect", "agent", *words]) == 0
    assert ("a traceback\n  of two lines" in capsys.readouterr().err) == bool(words)
    assert logger.level == before


def test_an_unexpected_error_is_named_and_points_at_debug(monkeypatch, capsys):
    def broken(options):
        raise KeyError("gone")

    monkeypatch.setattr(inspect, "run", broken)
    assert main(["inspect", "agent"]) == 1
    # It may have arisen in a part of the user's, which is named by its line.
    said = one_line(capsys)
    assert said.startswith("thinkslow: KeyError: 'gone' (test_failures.py:")
    assert said.endswith(", in broken). Pass --debug for the traceback.")
    with pytest.raises(KeyError):
        main(["inspect", "agent", "--debug"])


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 9 TiB"), JaxRuntimeError("RESOURCE_EXHAUSTED: Out of 9 TiB")],
)
def test_memory_that_is_not_enough_is_told_with_what_to_lower(monkeypatch, capsys, error):
    def large(options):
        raise error

    monkeypatch.setattr(inspect, "run", large)
    assert main(["inspect", "agent"]) == 1
    assert re.search(r"not enough memory \(.*9 TiB\).*--batch.*--learning\.batch", one_line(capsys))


def test_a_plugin_of_jax_that_fails_is_one_line(caplog, capsys):
    """Where JAX for GPUs is installed and no GPU is there, it printed a page."""
    assert main(["agents", "--json"]) == 0
    try:
        raise RuntimeError("cuInit failed:\nno device")
    except RuntimeError:
        logging.getLogger("jax._src.xla_bridge").exception("calling %s.initialize()", "jax_cuda")
    assert caplog.records[-1].exc_info is None
    assert "calling jax_cuda.initialize(): cuInit failed: no device" in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("JAX_DEBUG_NANS", "1", FloatingPointError("invalid value (nan) encountered in stage")),
        ("JAX_TRANSFER_GUARD", "disallow", JaxRuntimeError("Disallowed host-to-device transfer")),
    ],
)
def test_a_variable_that_makes_jax_strict_is_named(monkeypatch, capsys, name, value, refused):
    """Only the function of ours was named, or the shape of an array."""

    def run(options):
        raise refused

    monkeypatch.setattr(inspect, "run", run)
    assert main(["inspect", "agent"]) == 1
    assert name not in one_line(capsys)
    monkeypatch.setenv(name, {"1": "False", "disallow": "allow"}[value])
    assert main(["inspect", "agent"]) == 1
    assert name not in one_line(capsys), "a usual value was named"
    monkeypatch.setenv(name, value)
    assert main(["inspect", "agent"]) == 1
    assert f"because of {name}={value}: unset it" in one_line(capsys)


@pytest.mark.parametrize("fails", ["assert None", "raise RuntimeError('no backend rocm')"])
def test_a_device_that_jax_does_not_have_is_named(monkeypatch, capsys, fails):
    """It was "AssertionError: no message", and for `gpu` only that there is no rocm."""
    bridge = compile(f"def run(options):\n    {fails}\n", "jax/_src/xla_bridge.py", "exec")
    exec(bridge, found := {})
    monkeypatch.setattr(inspect, "run", found["run"])
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert main(["inspect", "agent"]) == 1
    assert "no device of JAX_PLATFORMS=cuda. Unset" in one_line(capsys)


def test_what_xla_says_to_its_own_developers_needs_debug(monkeypatch):
    """On a loaded machine it asked the user to file a bug, because compiling took two minutes."""
    for flags, level in ((["--debug"], None), ([], "3")):
        monkeypatch.setattr(os, "environ", {**os.environ})
        os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
        assert main(["agents", "--json", *flags]) == 0
        assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == level


def test_brackets_in_a_message_are_printed_as_they_are(monkeypatch, capsys):
    def broken(options):
        raise ValueError("`shape` must be [64, 64]; got [red].")

    monkeypatch.setattr(inspect, "run", broken)
    assert main(["inspect", "agent"]) == 1
    assert one_line(capsys).startswith("thinkslow: `shape` must be [64, 64]; got [red]")
