"""The hash of the code that a user's object runs, by which an edited arm is another arm."""

import functools
import json
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import optax
import pytest

from thinkslow.agent.thinking import Thinking
from thinkslow.evaluation.running_code import code_of
from thinkslow.evaluation.subjects import written
from thinkslow.refinement import Gradient

TERM = '''
import functools
import equinox as eqx
import jax

SCALE = 2.0
KNOWN = {"beta": 1.0}


def helper(x):
    return x + SCALE


def made(power):
    return lambda x: x**power


class Base(eqx.Module):
    def value(self, x):
        return helper(x)


class Term(Base):
    limit = 3
    step: float = 1.0
    how: str = eqx.field(static=True, default="sum")
    inner = made(2)

    def total(self, x):
        """What is added up."""
        return sum(y for y in x if y in {"a", "b", "c"}) - KNOWN["beta"]

    @property
    def half(self):
        return self.step / 2

    @staticmethod
    def first(x):
        return x[0]

    @functools.partial(jax.jit, static_argnums=0)
    def fast(self, x):
        return x * 4


term = Term()
'''


def typed(text: str, name: str = "__main__") -> Any:
    """The last object of a text that is run as at a prompt, without a file."""
    names = {"__name__": name}
    exec(compile(text, "<stdin>", "exec"), names)
    return names["term"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x + SCALE", "x - SCALE"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ('"beta": 1.0', '"beta": 2.0'),
        ("made(2)", "made(3)"),
        ("x**power", "x*power"),
        ("limit = 3", "limit = 4"),
        ('default="sum"', 'default="mean"'),
        ("y in {", "y not in {"),
        ("self.step / 2", "self.step / 3"),
        ("x[0]", "x[1]"),
        ("x * 4", "x * 5"),
        ("return helper(x)", "return 1 + helper(x)"),
    ],
)
def test_a_term_that_was_typed_and_edited_runs_other_code(old, new):
    """Without a source file every such term had the same hash."""
    assert TERM.count(old) == 1
    assert code_of(typed(TERM.replace(old, new))) != code_of(typed(TERM))


@pytest.mark.parametrize("name", ["__main__", "a_cell", "builtins"])
def test_a_cell_that_is_run_again_further_down_runs_the_same_code(name):
    once = code_of(typed(TERM, name))
    assert once is not None
    assert code_of(typed("\n# a comment" + TERM.replace("x + SCALE", "x  +  SCALE"), name)) == once


def test_a_term_inside_another_counts_and_its_numbers_do_not():
    around = TERM + "\n\nclass Around(eqx.Module):\n    parts: tuple\n\nterm = Around((Term(S),))\n"

    def code(of: str, step: str = "1.0") -> str | None:
        return code_of(typed(around.replace("x * 4", of).replace("(S)", f"({step})")))

    assert code("x * 5") != code("x * 4")
    assert code("x * 4", step="7.0") == code("x * 4")


def test_a_file_that_is_edited_after_its_import_does_not_count(tmp_path, monkeypatch):
    """What runs is what was imported."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "imported_once.py"
    file.write_text(TERM)
    import imported_once  # pyright: ignore[reportMissingImports]

    once = code_of(imported_once.term)
    file.write_text(TERM.replace("x * 4", "x * 5"))
    assert code_of(imported_once.term) == once == code_of(typed(TERM))


def told(optimiser: Any) -> str:
    """What the records have of an arm that descends by it."""
    return written(Thinking(update=Gradient(1.0, optimiser)))["update"]


def test_an_optimiser_of_a_package_is_known_by_its_constants_in_words():
    """By a hash, an evaluation could not go on with Adam under another version of Python."""
    assert code_of(Gradient(1.0, optax.adam(1.0))) is None
    adam = told(optax.adam(1.0))
    assert "scale_by_adam(b1=0.9, b2=0.999, eps=1e-08" in adam
    assert adam == told(optax.adam(1.0))
    others = optax.adam(1.0, b1=0.5), optax.adam(1.0, mu_dtype="float16"), optax.sgd(1.0)
    assert len({adam, *map(told, others)}) == 4
    assert written(Thinking(update=Gradient(2.0)))["update"] == "Gradient(step_size=2.0)"


@pytest.mark.parametrize(
    "make",
    [
        lambda size: optax.sgd(jnp.asarray(size)),
        lambda size: optax.sgd(optax.piecewise_constant_schedule(1.0, {3: size})),
        lambda size: optax.sgd(optax.warmup_constant_schedule(0.0, size, 3)),
        lambda size: optax.sgd(functools.partial(jnp.full_like, fill_value=size)),
        lambda size: optax.inject_hyperparams(optax.adam)(learning_rate=size),
        lambda size: optax.partition({"a": optax.sgd(size)}, {"a": "a"}),
    ],
)
def test_constants_inside_arrays_schedules_and_tables_are_told(make):
    """An evaluation went on with another schedule, or another step size given as an array."""
    assert told(make(0.5)) == told(make(0.5)) != told(make(0.25))


def test_a_schedule_of_ones_own_in_an_optimiser_is_known_by_its_code():
    def of(text: str) -> str | None:
        return code_of(Gradient(1.0, optax.adam(typed(f"term = lambda count: {text}"))))

    assert of("0.1") is not None
    assert of("0.1") == of("0.1") != of("0.2")


@pytest.mark.slow
def test_two_processes_give_the_same_hash():
    """Sets of texts have another order in each process, and objects other addresses."""
    code = f"{TERM}\nfrom thinkslow.evaluation.running_code import code_of\nprint(code_of(term))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code.replace("\n", "\n" * lines)],
            env={"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, lines in (("1", 1), ("2", 2))
    }
    assert len(found) == 1, json.dumps(sorted(found))
