"""What is imported before it is needed: help texts, argument errors and environments stay light.

Nothing here is timed: JAX takes a second to import and NumPy a tenth of one, so a command that
loads neither is fast.
"""

import ast
import gc
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest

import thinkslow
from thinkslow import zoo
from thinkslow.cli import COMMANDS, early, main
from thinkslow.dreamer.nets import LayerNorm, Linear
from thinkslow.envs import VectorEnv
from thinkslow.envs.crew import started_early
from thinkslow.trees import put
from thinkslow.weights import shaped

HEAVY = {"jax", "numpy", "optax", "equinox", "gymnasium", "jinja2", "tensorboardX"}
SLOW = {"rich", "typeguard", "email"}
"""What tables, tyro's check of a default and the look at installed packages would load."""
HELP = [[name, "--help"] for name in COMMANDS]
ERRORS = [
    ["dream"],
    ["inspect", "agent", "--no-such-flag"],
    ["report"],
    ["demo", "--episodes", "1"],
    ["train", "some/Env-v0", "--steps", "0"],
    ["ensemble", "agent", "--members", "1"],
    ["evaluate"],
]
INSPECT = ["inspect", str(Path(thinkslow.__file__).parent / "zoo" / "collect-half")]
LIGHT = ("thinkslow", "thinkslow.cli", "thinkslow.envs", "thinkslow.spaces")
PAGES = ("thinkslow.study.run", "thinkslow.evaluation.report.page")

FORKS = """
import json, os, sys
import tyro  # what every command loads, once
for code in json.load(sys.stdin):
    read, write = os.pipe()
    if not os.fork():
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        exec(code)
        os.write(write, json.dumps(list({name.split(".")[0] for name in sys.modules})).encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        print(pipe.read() or "null")
    os.wait()
"""
"""Runs each piece of code in a fork of one process and says what packages were loaded."""


def command(words: list[str]) -> str:
    return f"from thinkslow.cli import main; main({words!r})"


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Packages that each piece of code has loaded when it ends; None if it failed."""
    codes = [command(words) for words in (*HELP, *ERRORS, INSPECT)]
    codes += [f"import {module}" for module in (*LIGHT, *PAGES)]
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        input=json.dumps(codes),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(zip(codes, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, id=" ".join(words)) for words in (*HELP, *ERRORS)],
)
def test_help_and_argument_errors_load_nothing_heavy(words, loaded):
    assert not (HEAVY | SLOW).intersection(loaded[command(words)])


def test_an_agent_is_inspected_without_jax(loaded):
    assert not (HEAVY - {"numpy"} | SLOW).intersection(loaded[command(INSPECT)])


@pytest.mark.parametrize("module", LIGHT)
def test_what_runs_in_an_environments_process_does_not_import_jax(module, loaded):
    assert "jax" not in loaded[f"import {module}"]


@pytest.mark.parametrize("module", PAGES)
def test_a_page_is_made_without_jax(module, loaded):
    assert "jax" not in loaded[f"import {module}"]


CART = {"id": "CartPole-v1", "size": 64, "repeat": 1}


def test_processes_that_start_early_play():
    with started_early(CART, 2) as crew:
        early_ones = [worker.process.pid for worker in crew.workers]
        with VectorEnv(**CART, count=2) as envs, VectorEnv(**CART, count=2) as others:
            assert envs.pids == early_ones
            assert not set(others.pids) & set(early_ones)
            envs.reset()
    assert not any(map(psutil.pid_exists, early_ones))


@pytest.mark.parametrize("other", [{"count": 1}, {"count": 2, "repeat": 2}])
def test_early_processes_of_another_environment_end_unused(other):
    with started_early(CART, 2) as crew:
        early_ones = [worker.process.pid for worker in crew.workers]
        with VectorEnv(**CART | other) as envs:
            assert not set(envs.pids) & set(early_ones)
    assert not any(map(psutil.pid_exists, early_ones))


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("collect-half", ValueError("no such environment")),
        ("no-such-agent", CART),
        (__file__, CART),
    ],
)
def test_nothing_starts_early_if_the_agent_or_its_environment_is_in_doubt(agent, said, monkeypatch):
    """The usual way then says what is wrong."""

    def described(agents):
        if isinstance(said, ValueError):
            raise said
        return {**agents[0].environment, **said}

    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    with early.environments([Path(agent)], described, 1):
        assert not started


def test_the_environment_of_a_bundled_agent_starts_early():
    seen = []

    def described(agents):
        seen.append(agents[0].environment["id"])
        return CART

    with early.environments([Path(zoo.DEMO[0])], described, 1):
        assert seen == ["thinkslow/CollectGoodObjects-v0"]
        (child,) = psutil.Process().children()
    assert not child.is_running()


def test_numbers_become_arrays_without_a_program_for_each_shape(caplog):
    """`jnp.asarray` compiled one for each shape, at every start."""
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for side in (5, 17, 31):
            array = put(np.full((side, 3), 0.5, np.float32))
            assert array.shape == (side, 3)
            assert float(put(0.5, np.float32)) == 0.5
            assert LayerNorm(side).scale.shape == (side,)
    assert "ompil" not in caplog.text


def test_the_shapes_of_a_model_need_no_random_numbers(monkeypatch):
    def layer(key):
        return Linear(3, 2, key=key)

    drawn = layer(jax.random.key(0))
    monkeypatch.setattr(jax.random, "truncated_normal", None)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shaped(layer)) == jax.tree.map(
        lambda x: (x.shape, x.dtype), drawn
    )
    monkeypatch.undo()
    np.testing.assert_array_equal(layer(jax.random.key(0)).kernel, drawn.kernel)


def test_playing_does_not_import_optax():
    """Only optimisers need it, and it takes longer to import than the agents do."""
    parts = ("agent", "evaluation", "objectives", "refinement", "importers")
    found = []
    for part in parts:
        for path in (Path(thinkslow.__file__).parent / part).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                found += [path for name in names if name.partition(".")[0] == "optax"]
    assert not found


def test_a_command_called_from_python_leaves_its_garbage_collector_alone(monkeypatch, capsys):
    before = gc.get_threshold()
    assert main(["--version"]) == 0
    assert gc.get_threshold() == before
    monkeypatch.setattr(sys, "argv", ["thinkslow", "--version"])
    try:
        assert main() == 0
        assert gc.get_threshold()[0] > 2_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
    assert capsys.readouterr().out
