"""Read plans from TOML files. Everything is checked before the first episode. An unknown key is
refused with the nearest known key, and an unknown name with the existing names.
"""

import dataclasses
import hashlib
import json
import math
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from thinkslow import registry
from thinkslow.evaluation.metrics import METRICS, metric
from thinkslow.evaluation.planning import LOOKS
from thinkslow.registry import nearest
from thinkslow.storage.paths import expanded
from thinkslow.storage.reading import is_file, read_bounded
from thinkslow.study.plan import (
    BASE,
    Effect,
    Expect,
    Group,
    Hypothesis,
    Misplanned,
    Of,
    Plan,
    Purpose,
    Setting,
    StudyArm,
)

FORMAT = 1
LARGEST = 2**20
"""Largest size of a plan in bytes."""
MOST = 1_000_000
"""Largest number of episodes; every block of them is a task."""
SHIPPED = Path(__file__).parent / "shipped"


def shipped() -> dict[str, Path]:
    """Plans that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def read(source: str | Path, agents: Mapping[str, Sequence[str]] | None = None) -> Plan:
    """A plan from a file, or a shipped one by its name.

    Args:
        source: path of a TOML file, or a name of `shipped()`.
        agents: agents that replace those of a group, by the name of the group.

    **Errors:** `FileNotFoundError` if neither exists; `Misplanned` for an invalid plan, before
    anything is played.
    """
    path = expanded(source)
    plans = shipped()
    # a folder of the results may have the name of its study
    if path.is_dir() and str(source) not in plans:
        raise FileNotFoundError(
            f"A plan is a TOML file; {str(source)!r} is a folder. Give the file of the plan, or "
            f"rebuild a page: thinkslow report {shlex.quote(str(source))}"
        )
    if path.is_dir() or not is_file(path):
        if str(source) not in plans:
            raise FileNotFoundError(
                f"There is no file or bundled study {str(source)!r}{nearest(str(source), plans)}"
            )
        path = plans[str(source)]
    written = read_bounded(path, LARGEST, "a plan")
    try:
        content = tomllib.loads(written.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also of integers of thousands of digits
        raise Misplanned(f"{path} is not TOML: {error}.") from None
    plan = planned(content, str(path), agents)
    return dataclasses.replace(plan, file=path.name, file_hash=_hash(written))


def planned(
    content: Mapping[str, Any], where: str, agents: Mapping[str, Sequence[str]] | None = None
) -> Plan:
    """A plan from the content of its file; see `read`."""
    top = _Table(content, where)
    if top.take("format", int) != FORMAT:
        raise Misplanned(f"{where}: `format` must be {FORMAT}; got {content['format']!r}.")
    outcome = _measure(top, "outcome", "score")
    groups = _groups(top, dict(agents or {}))
    arms = _arms(top)
    settings = _settings(top, [one.name for one in groups])
    names = {"arm": [one.name for one in arms], "setting": [one.name for one in settings]}
    hypotheses = tuple(
        _hypothesis(_Table(each, f"{where}, hypothesis {number}"), names, settings, outcome)
        for number, each in enumerate(top.take("hypotheses", list, []), start=1)
    )
    _once([one.name for one in hypotheses], f"{where}: hypotheses")
    plan = Plan(
        name=top.take("name", str),
        question=top.take("question", str),
        purpose=top.choice("purpose", Purpose, "report"),
        outcome=outcome,
        seed=top.number("seed", 0, least=0),
        episodes=top.number("episodes", None, least=2, most=MOST),
        block=top.number("block", 8, least=2),
        max_decisions=top.number("max_decisions", 0, least=0) or None,
        tuned_on=top.numbers("tuned_on"),
        looks=top.numbers("looks"),
        groups=groups,
        settings=settings,
        arms=arms,
        hypotheses=hypotheses,
        hash="",
        file="",
        file_hash="",
    )
    top.finish()
    if plan.episodes % plan.block:
        raise Misplanned(
            f"{where}: `episodes` must be a multiple of `block`, {plan.block}; got {plan.episodes}."
        )
    for look in plan.looks:
        if look not in LOOKS:
            raise Misplanned(
                f"{where}: `looks` must be numbers of training seeds with known bounds, "
                f"{', '.join(map(str, LOOKS))}; got {look}."
            )
    if plan.purpose == "tuning" and not plan.tuned_on:
        raise Misplanned(
            f"{where}: `purpose` is tuning, so `tuned_on` must name the training seeds that are "
            "tuned on; it is empty."
        )
    _named([plan.name], f"{where}: `name`")
    text = json.dumps(dataclasses.asdict(plan), sort_keys=True)
    return dataclasses.replace(plan, hash=_hash(text.encode()))


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _measure(table: "_Table", key: str, default: str) -> str:
    """A measure by which arms are compared, by the name of its column."""
    name = table.take(key, str, default)
    if metric(name).effect is None:
        known = [one.name for one in METRICS.values() if one.effect is not None]
        raise Misplanned(
            f"{table.where}: `{key}` must be a measure by which arms are compared, "
            f"{', '.join(known)}; got {name!r}{nearest(name, known)}"
        )
    return name


def _groups(top: "_Table", instead: dict[str, Sequence[str]]) -> tuple[Group, ...]:
    given = top.take("agents", dict)
    for name in instead:
        if name not in given:
            raise Misplanned(f"{top.where}: there is no group {name!r}{nearest(name, given)}")
    out = []
    for name, asked in {**given, **instead}.items():
        agents, budget = asked, None
        if isinstance(asked, Mapping):
            table = _Table(asked, f"{top.where}, agents {name}")
            agents, budget = table.left.pop("runs", None), table.number("budget", None, least=1)
            table.known.append("runs")
            table.finish()
        listed = [agents] if isinstance(agents, str) else list(agents or ())
        if not listed or not all(isinstance(one, str) for one in listed):
            raise Misplanned(
                f"{top.where}: agents of {name} must be names or patterns of folders, or `runs` "
                f"with a `budget`; got {asked!r}."
            )
        out.append(Group(name=name, agents=tuple(listed), budget=budget))
    _named([one.name for one in out], f"{top.where}: `agents`")
    return tuple(out)


def _arms(top: "_Table") -> tuple[StudyArm, ...]:
    out = [StudyArm(name=BASE, arm=BASE, changes={})]
    for number, each in enumerate(top.take("arms", list), start=1):
        if isinstance(each, str):
            table = _Table({"arm": each}, f"{top.where}, arm {number}")
        else:
            table = _Table(each, f"{top.where}, arm {number}")
        arm = table.take("arm", str)
        found = StudyArm(name=table.take("name", str, arm), arm=arm, changes=table.rest())
        if found.name != BASE:
            out.append(found)
        try:
            registry.check("arm", arm)
        except ValueError as error:
            raise Misplanned(f"{table.where}: {error}") from None
    _once([one.name for one in out], f"{top.where}: arms")
    if len(out) < 2:
        raise Misplanned(f"{top.where}: `arms` must name one arm besides `{BASE}`; got none.")
    return tuple(out)


def _settings(top: "_Table", groups: Sequence[str]) -> tuple[Setting, ...]:
    out = []
    for name, each in top.take("settings", dict, {"own": {}}).items():
        table = _Table(each, f"{top.where}, setting {name}")
        mine = table.take("agents", list, list(groups))
        if not mine:
            raise Misplanned(f"{table.where}: `agents` must name one group or more; got none.")
        for group in mine:
            if group not in groups:
                raise Misplanned(
                    f"{table.where}: there is no group {group!r}{nearest(group, groups)}"
                )
        env = table.take("env", str, "")
        out.append(
            Setting(
                name=name, groups=tuple(mine), env=env or None, shift=table.take("shift", str, "")
            )
        )
        table.finish()
    _named([one.name for one in out], f"{top.where}: `settings`")
    return tuple(out)


def _hypothesis(
    table: "_Table", names: Mapping[str, Sequence[str]], settings: Sequence[Setting], outcome: str
) -> Hypothesis:
    name, claim = table.take("name", str), table.take("claim", str)
    effect = _effect(_Table(table.take("effect", dict), f"{table.where}, effect"), names, settings)
    minus, times = None, 1.0
    if other := table.take("minus", dict, {}):
        inner = _Table(other, f"{table.where}, minus")
        times = inner.share("times", 1.0)
        minus = _effect(inner, names, settings)
    found = Hypothesis(
        name=name,
        claim=claim,
        effect=effect,
        minus=minus,
        times=times,
        measure=_measure(table, "measure", outcome),
        of=table.choice("of", Of, "mean"),
        by=table.share("by", 0.0),
        expect=table.choice("expect", Expect, "more"),
    )
    table.finish()
    for key, plain in (("expect", found.expect != "same"), ("by", not found.by)):
        if found.minus is not None and not plain:
            raise Misplanned(
                f"{table.where}: `{key}` is a share of the baseline's mean, which does not exist "
                "for the difference of two effects. Leave out `minus`, or expect more or less."
            )
    if found.by and found.expect == "same":
        raise Misplanned(f"{table.where}: `by` goes with `expect` more or less; got same.")
    absolute = metric(found.measure).effect == found.measure
    for key, asked in (
        ("of", found.of == "spread"),
        ("by", found.by > 0),
        ("expect", found.expect == "same"),
    ):
        if asked and not absolute:
            raise Misplanned(
                f"{table.where}: `{key}` {getattr(found, key)} is of a measure of episodes, score "
                f"or length; {found.measure} is compared frame by frame."
            )
    return found


def _effect(
    table: "_Table", names: Mapping[str, Sequence[str]], settings: Sequence[Setting]
) -> Effect:
    found = {
        "arm": table.take("arm", str),
        "baseline": table.take("baseline", str, BASE),
        "setting": table.take("setting", str, names["setting"][0]),
    }
    found["baseline_setting"] = table.take("baseline_setting", str, found["setting"])
    for key, value in found.items():
        kind = key.removeprefix("baseline_")
        known = names["arm" if kind == "baseline" else kind]
        if value not in known:
            raise Misplanned(f"{table.where}: there is no {kind} {value!r}{nearest(value, known)}")
    both = [
        next(one for one in settings if one.name == found[key]).groups
        for key in ("setting", "baseline_setting")
    ]
    group = table.take("agents", str, both[0][0])
    for setting, playing in zip((found["setting"], found["baseline_setting"]), both, strict=True):
        if group not in playing:
            raise Misplanned(
                f"{table.where}: {group} does not play in {setting}{nearest(group, playing)}"
            )
    table.finish()
    effect = Effect(**found, group=group)
    if (effect.arm, effect.setting) == (effect.baseline, effect.baseline_setting):
        raise Misplanned(f"{table.where}: {effect} compares an arm with itself.")
    return effect


def _named(names: Sequence[str], where: str) -> None:
    """**Errors:** `Misplanned` for an empty list, or a name that is not a valid folder name."""
    if not names:
        raise Misplanned(f"{where} must name one or more; got none.")
    for name in names:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise Misplanned(
                f"{where}: a name must be of letters, digits, `_`, `-`, `+` and `.`, as a folder "
                f"is called so; got {name!r}."
            )


def _once(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise Misplanned(f"{where} must each have a name of their own; {name!r} comes twice.")


class _Table:
    """A table of the file. Its keys are taken one by one, so unknown keys are found."""

    def __init__(self, content: Any, where: str):
        if not isinstance(content, Mapping):
            raise Misplanned(f"{where} must be a table; got {content!r}.")
        self.left, self.where = dict(content), where
        self.known: list[str] = []

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        self.known.append(key)
        if key not in self.left:
            if default is None:
                raise Misplanned(f"{self.where}: `{key}` is missing.")
            return default
        value = self.left.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Misplanned(f"{self.where}: `{key}` must be {_KINDS[kind]}; got {value!r}.")
        return value

    def number(
        self, key: str, default: int | None, *, least: int, most: float | int = math.inf
    ) -> int:
        value = self.take(key, int, default)
        if value < least:
            raise Misplanned(f"{self.where}: `{key}` must be {least} or more; got {value}.")
        if value > most:
            raise Misplanned(f"{self.where}: `{key}` must be at most {most:,}; got {value}.")
        return value

    def numbers(self, key: str) -> tuple[int, ...]:
        values = self.take(key, list, [])
        if not all(type(one) is int and one >= 0 for one in values):
            raise Misplanned(
                f"{self.where}: `{key}` must be a list of whole numbers; got {values}."
            )
        return tuple(values)

    def share(self, key: str, default: float) -> float:
        self.known.append(key)
        value = self.left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise Misplanned(f"{self.where}: `{key}` must be between 0 and 1; got {value!r}.")
        return float(value)

    def choice(self, key: str, kind: Any, default: str) -> Any:
        value, allowed = self.take(key, str, default), get_args(kind)
        if value not in allowed:
            raise Misplanned(
                f"{self.where}: `{key}` must be one of {', '.join(allowed)}; got {value!r}."
            )
        return value

    def rest(self) -> dict[str, Any]:
        left, self.left = self.left, {}
        return left

    def finish(self) -> None:
        """**Errors:** `Misplanned` for an unknown key."""
        for key in self.left:
            raise Misplanned(f"{self.where}: there is no `{key}`{nearest(key, self.known)}")


_KINDS = {int: "a whole number", str: "a text", list: "a list", dict: "a table"}
