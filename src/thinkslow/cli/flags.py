"""Flags that change how arms think, made from the fields of `Thinking` and `Arm`.

A new field there is a new flag here. Objects are made late, so that help and wrong values do not
import JAX.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import tyro

from thinkslow import registry, settings
from thinkslow.agent.arms.arm import Arm, arm, check_when
from thinkslow.agent.arms.changes import OF_ARM, SETTINGS, changed, kind_of, made
from thinkslow.agent.thinking import Thinking
from thinkslow.cli import common
from thinkslow.cli.parsing import checked_quickly, documentation, written

METAVARS = {int: "N", float: "X", str: "NAME"}
UNITS = {"max_kl": "NATS", "deadline_ms": "MS", "share": "SHARE", "memory_share": "SHARE"}
ELSEWHERE = ("delay", "members")
"""Settings without a flag here: an evaluation knows the delay of its observations, and `members`
is a flag for all arms."""


def _flag(field: dataclasses.Field, text: str) -> tuple[str, Any, Any]:
    """One field as an option that is None unless given."""
    kind = kind_of(field.name)
    given: Any = str if kind else field.type
    if get_origin(given) is UnionType or NoneType in get_args(given):
        given = next(one for one in get_args(given) if one is not NoneType)
    metavar = {"term": "TERMS", None: METAVARS.get(given)}.get(kind, str(kind).upper())
    metavar = UNITS.get(field.name, metavar)
    if get_origin(given) is Literal:
        metavar = "|".join(get_args(given))
    if given is bool:
        metavar = "True|False"
    note = tyro.conf.arg(help=text.replace("%", "%%"), metavar=metavar, help_behavior_hint="")
    hint = checked_quickly(Annotated[given | None, note])
    return field.name, hint, dataclasses.field(default=None)


FIELDS = {name: field for name, field in SETTINGS.items() if name not in ELSEWHERE}
TEXTS = documentation(Thinking) | documentation(Arm)

if TYPE_CHECKING:

    class Changes:
        """Changed settings of every arm that refines: an option for each of `FIELDS`."""

else:
    Changes = dataclasses.make_dataclass(
        "Changes",
        [_flag(field, TEXTS[name]) for name, field in FIELDS.items()],
        frozen=True,
        kw_only=True,
    )


def given(changes: Any) -> dict[str, Any]:
    """The given options, by name.

    **Errors:** `ValueError` for a value out of range, or an unknown name.
    """
    out = {name: getattr(changes, name) for name in FIELDS if getattr(changes, name) is not None}
    for name, value in out.items():
        field = FIELDS[name]
        if kind := kind_of(name):
            specs = registry.weights(value) if kind == "term" else [(value, 1.0)]
            for spec, _ in specs:
                registry.check(kind, spec)
        elif "least" in field.metadata:
            settings.check_value(field, value)
    # A share alone is meant for arms that have a gate.
    when = {name: out[name] for name in ("share", "deadline_ms") if name in out}
    check_when(gated="gate" in out or "share" in out, **when)
    return out


def arms(names: Sequence[str], changes: Mapping[str, Any]) -> dict[str, Arm]:
    """The arms with these names, changed, by label.

    **Errors:** `ValueError` for an unknown arm or an impossible value.
    """
    objects = {name: (made(name, value), value) for name, value in changes.items()}
    return dict(labelled(name, objects) for name in names)


def without_effect(changes: Mapping[str, Any], arms: Mapping[str, Arm]) -> dict[str, str]:
    """The given settings that change nothing in these arms, with the reason.

    Args:
        changes: from `given`.
        arms: from `arms`, changed.

    >>> without_effect({"steps": 3}, {"none": Arm(Thinking())})
    {'steps': 'no arm refines'}
    """
    refining = [one for one in arms.values() if one.thinking.steps]
    terms = [term for one in refining for term, _ in one.thinking.terms]
    unless = {
        "share": (
            any(one.gate is not None for one in arms.values()),
            "no arm has a gate; pass --gate too",
        ),
        "judges": (
            any(one.thinking.accept for one in refining),
            "no arm judges its steps; pass --accept True",
        ),
        "check": (
            any(one.thinking.check is not None for one in arms.values()),
            "no arm checks its frames, such as robust",
        ),
        **dict.fromkeys(
            ("horizon", "rollouts", "imagery"),
            (
                any(hasattr(term, "at_step") for term in terms),
                "no arm has an imagined term, such as sig",
            ),
        ),
    }
    out = {}
    for name in changes:
        used, reason = unless.get(name, (True, ""))
        if not used:
            out[name] = reason
        elif not refining and changes.get("steps") != 0 and f"+{name}=" not in "".join(arms):
            out[name] = "no arm refines"
        elif not any(f"+{name}=" in label for label in arms):
            out[name] = "every arm that refines has this value already, or keeps its own"
    if "gate" in changes:  # a gate has a share, given or not
        out.pop("share", None)
    return out


def labelled(name: str, changes: Mapping[str, tuple[Any, Any]]) -> tuple[str, Arm]:
    """An arm with changed settings, and a label that names the changes.

    An arm is changed where it has the stage of a setting: one that checks frames takes another
    check, one that chooses by value another choice, one that refines all others. The random
    controls stay random: a random step follows no gradient, so nothing selects among its steps. A
    setting that keeps its value is not in the label.

    Args:
        name: the name of the arm.
        changes: by setting, the value and how to write it.

    **Errors:** `ValueError` for an unknown arm or an impossible value.

    >>> labelled("sig-3", {"horizon": (8, 8), "steps": (1, 1)})[0]
    'sig-3+horizon=8'
    """
    found = arm(name)
    thinking = found.thinking
    stages = {"check": thinking.check is not None}
    if not thinking.steps:  # it does not refine, so the objective has no effect
        stages |= dict.fromkeys(FIELDS.keys() - stages.keys(), False)
        chooses = thinking.choice is not None
        stages |= dict.fromkeys([*OF_ARM, "carry", "choice"], chooses)
    keeps = {*getattr(thinking.update, "keeps", ()), *getattr(found.gate, "keeps", ())}

    def differs(key: str, value: Any) -> bool:
        return value != getattr(found if key in OF_ARM else thinking, key)

    mine = {
        key: value
        for key, (value, _) in changes.items()
        if stages.get(key, True) and key not in keeps and differs(key, value)
    }
    label = "".join(f"+{key}={written(changes[key][1])}" for key in mine)
    return name + label, changed(found, mine)


def typed(options: Any, without: Sequence[str]) -> list[str]:
    """`common.typed`, with the flags of thinking.

    Args:
        options: with `changes` of thinking and `imports`.
        without: as there.
    """
    out = common.typed(options, (*without, "changes"))
    for name, value in vars(options.changes).items():
        if value is not None:
            out += [f"--{name.replace('_', '-')}", str(value)]
    return out
