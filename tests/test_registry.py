"""Names for the command line: whose they are."""

import dataclasses
import re
import runpy
from typing import Literal

import jax
import pytest

from thinkslow import names, registry
from thinkslow.agent.arms.arm import Arm
from thinkslow.agent.thinking import Thinking
from thinkslow.objectives import Anchor, PresentTerm
from thinkslow.spaces import Space

OWN = """
import thinkslow
class Mine(thinkslow.PresentTerm):
    length: int = 1
    def value(self, belief, present, *, key):
        return 0.0
    def size(self):
        return {size}
thinkslow.register("term", "mine-again", Mine)
"""


def test_a_file_that_is_run_again_gives_its_names_anew_and_no_other_takes_them(tmp_path):
    file, other = tmp_path / "mine.py", tmp_path / "other.py"
    for size, name in ((0.5, "mine"), (0.25, "mine"), (0.25, "__main__")):
        file.write_text(OWN.format(size=size))
        runpy.run_path(str(file), run_name=name)
        assert registry.make("term", "mine-again").size() == size
    other.write_text(OWN.format(size=1.0))
    with pytest.raises(ValueError, match=r"'mine-again'.*another name"):
        runpy.run_path(str(other), run_name="other")
    assert registry.make("term", "mine-again").size() == 0.25


def test_a_name_of_ours_is_not_given_to_another():
    with pytest.raises(ValueError, match=r"'sig'.*another name"):
        registry.register("term", "sig", Anchor)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("make", [3, None, Anchor()])
def test_what_makes_nothing_is_given_no_name(make):
    with pytest.raises(TypeError, match="a class or a function"):
        registry.register("term", "makes-nothing", make)
    assert "makes-nothing" not in registry.entries("term")


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("thinking", ["evidence", None, Thinking])
def test_an_arm_is_made_of_thinking(thinking):
    with pytest.raises(TypeError, match="`Thinking`"):
        Arm(thinking)


KINDS = [kind for kind in names.KINDS if kind != "architecture"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_makes_another_kind_is_named(kind, monkeypatch):
    """An update registered as a term failed only in use, by its own text of several lines."""
    with pytest.raises(TypeError, match=rf"{kind} 'a-space' must be of class .*; got Space"):
        registry.register(kind, "a-space", Space)
    monkeypatch.setattr(registry, "check", lambda kind, spec: names.Entry(lambda: None, ""))
    with pytest.raises(TypeError, match=rf"{kind} 'forgets' must be of class .*; got NoneType"):
        registry.make(kind, "forgets")


def test_the_annotated_fields_of_a_term_are_its_arguments():
    """Without a decorator they were class attributes, which no argument could set."""

    class Bonus(PresentTerm):
        scale: float = 1.0

        def value(self, belief, present, *, key):
            return -self.scale * belief.entropy()

    registry.register("term", "bonus", Bonus)
    for kind in (Bonus, dataclasses.dataclass(frozen=True)(Bonus)):
        made = registry.make("term", "bonus:scale=3")
        assert made == kind(3)
        assert jax.tree.leaves(made) == [3.0]  # changing it does not compile again
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.scale = 4.0


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("update", "gradient:big", "`step_size` must be a number; got 'big'"),
        ("update", "gradient:nan", "`step_size` must be a number; got 'nan'"),
        ("update", "gradient:1:2", "`optimiser` must be an object.*got '2'"),
        ("update", "langevin:step-size=1:step_size=2", "each argument once"),
        ("readout", "best-of:2.5", "`count` must be an integer; got '2.5'"),
        ("term", "evidence:beta=x", "`beta` must be a number or None; got 'x'"),
        ("term", "evidence:beta=1:beta=2", "each argument once"),
        ("choice", "values:trace=x", "`trace` must be a number; got 'x'"),
        ("members", "noise:-1", r"`scale` must be 0 or more; got -1\.0"),
    ],
)
def test_an_argument_of_another_type_is_refused_by_its_name(kind, spec, said):
    with pytest.raises(ValueError, match=said):
        registry.make(kind, spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("evidence:step=3", "The arm evidence has no argument 'step'. Did you mean steps?"),
        ("sig-3:=1", "The arm sig-3 has no argument ''. Available: terms, steps"),
    ],
)
def test_a_setting_that_an_arm_lacks_is_answered_with_the_nearest(spec, said):
    """Python's words were shown: `Thinking.__init__() got an unexpected keyword argument`."""
    with pytest.raises(ValueError, match=re.escape(said)):
        registry.make("arm", spec)


def test_an_argument_is_read_by_its_annotation():
    got = []

    def named(label: str, size: float = 1, order: Literal["up", "down"] = "up", **more: int):
        got[:] = label, size, order, more
        return Anchor()

    registry.register("term", "named", named)
    registry.make("term", "named:8:size=2:order=down:extra=3")
    assert got == ["8", 2.0, "down", {"extra": 3}]
    with pytest.raises(ValueError, match="`order` must be up or down; got 'left'"):
        registry.make("term", "named:8:order=left")
