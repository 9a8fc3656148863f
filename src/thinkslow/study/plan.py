"""What a study is: agents, settings, arms, seeds and hypotheses, declared before it is played.

A plan is a TOML file. Whatever it says is checked before the first episode: an unknown key is
refused with the nearest known one, a name that is nothing is refused with those that exist.
"""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from thinkslow import registry
from thinkslow.registry import nearest

FORMAT = 1
SHIPPED = Path(__file__).parent / "shipped"
BASE = "none"

Purpose = Literal["report", "tuning"]
Expect = Literal["more", "less", "same"]


class Misplanned(ValueError):
    """A plan that cannot be meant; the message names the file and the place in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Agents that are training seeds of one recipe and budget."""

    name: str
    agents: tuple[str, ...]
    """Bundled names, or patterns of agent folders, such as `runs/plain-*/agents/60000`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Where agents play."""

    name: str
    groups: tuple[str, ...]
    """The groups that play here."""
    env: str | None = None
    """An id; None: the environment that each group was trained on."""
    shift: str = ""
    """What differs from training, as `envs.make` takes it: `dropped:3`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyArm:
    """A way to think: a named arm, of which some settings may be changed."""

    name: str
    arm: str
    changes: Mapping[str, Any]
    """Settings of `Thinking` and `Arm` by name; objects as on the command line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """One arm minus another, where one group plays in one setting."""

    arm: str
    baseline: str
    setting: str
    group: str

    def __str__(self) -> str:
        return f"{self.arm} - {self.baseline}, {self.group} in {self.setting}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A claim with what would decide it."""

    name: str
    claim: str
    effect: Effect
    minus: Effect | None
    """Another effect: the claim is then about the difference of the two."""
    measure: str
    expect: Expect


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole study."""

    name: str
    question: str
    purpose: Purpose
    seed: int
    episodes: int
    """Of each agent, setting and arm."""
    block: int
    """Episodes that are played in one task, side by side."""
    max_decisions: int | None
    tuned_on: tuple[int, ...]
    """Training seeds on which something was tuned: agents of these are not reported on."""
    looks: tuple[int, ...]
    """Numbers of training seeds at which the study may stop; none: once, at the end."""
    groups: tuple[Group, ...]
    settings: tuple[Setting, ...]
    arms: tuple[StudyArm, ...]
    hypotheses: tuple[Hypothesis, ...]
    hash: str
    """Of everything above: the same for two files that plan the same study."""

    def group(self, name: str) -> Group:
        return next(one for one in self.groups if one.name == name)

    def setting(self, name: str) -> Setting:
        return next(one for one in self.settings if one.name == name)


def shipped() -> dict[str, Path]:
    """Plans that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def read(source: str | Path, agents: Mapping[str, Sequence[str]] | None = None) -> Plan:
    """A plan from a file, or a shipped one by its name.

    Args:
        source: path of a TOML file, or a name of `shipped()`.
        agents: agents that take the place of those of a group, by the group's name.

    **Errors:** `FileNotFoundError` where there is neither; `Misplanned` for whatever cannot be
    meant, before anything is played.
    """
    path = Path(source)
    if not path.is_file():
        plans = shipped()
        if str(source) not in plans:
            raise FileNotFoundError(
                f"{source} is no file, and no study is called so{nearest(str(source), plans)}"
            )
        path = plans[str(source)]
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misplanned(f"{path} is not TOML: {error}.") from None
    return planned(content, str(path), agents)


def planned(
    content: Mapping[str, Any], where: str, agents: Mapping[str, Sequence[str]] | None = None
) -> Plan:
    """A plan from the content of its file; see `read`."""
    top = _Table(content, where)
    if top.take("format", int) != FORMAT:
        raise Misplanned(f"{where}: `format` must be {FORMAT}; got {content['format']!r}.")
    groups = _groups(top, dict(agents or {}))
    arms = _arms(top)
    settings = _settings(top, [one.name for one in groups])
    names = {"arm": [one.name for one in arms], "setting": [one.name for one in settings]}
    hypotheses = tuple(
        _hypothesis(_Table(each, f"{where}, hypothesis {number}"), names, settings)
        for number, each in enumerate(top.take("hypotheses", list, []), start=1)
    )
    _once([one.name for one in hypotheses], f"{where}: hypotheses")
    plan = Plan(
        name=top.take("name", str),
        question=top.take("question", str),
        purpose=top.choice("purpose", Purpose, "report"),
        seed=top.number("seed", 0, least=0),
        episodes=top.number("episodes", None, least=2),
        block=top.number("block", 8, least=2),
        max_decisions=top.number("max_decisions", 0, least=0) or None,
        tuned_on=tuple(top.take("tuned_on", list, [])),
        looks=tuple(top.take("looks", list, [])),
        groups=groups, settings=settings, arms=arms, hypotheses=hypotheses, hash="",
    )  # fmt: skip
    top.finish()
    if plan.episodes % plan.block:
        raise Misplanned(
            f"{where}: `episodes` must be a multiple of `block`, {plan.block}; got {plan.episodes}."
        )
    text = json.dumps(dataclasses.asdict(plan), sort_keys=True)
    return dataclasses.replace(plan, hash=hashlib.blake2b(text.encode(), digest_size=8).hexdigest())


def restored(data: Mapping[str, Any]) -> Plan:
    """A plan as `dataclasses.asdict` and JSON left it."""

    def effect(given: Any) -> Any:
        return None if given is None else Effect(**given)

    return Plan(**{
        **data,
        "tuned_on": tuple(data["tuned_on"]), "looks": tuple(data["looks"]),
        "groups": tuple(
            Group(name=one["name"], agents=tuple(one["agents"])) for one in data["groups"]
        ),
        "settings": tuple(
            Setting(**{**one, "groups": tuple(one["groups"])}) for one in data["settings"]
        ),
        "arms": tuple(StudyArm(**one) for one in data["arms"]),
        "hypotheses": tuple(
            Hypothesis(**{**one, "effect": effect(one["effect"]), "minus": effect(one["minus"])})
            for one in data["hypotheses"]
        ),
    })  # fmt: skip


def _groups(top: "_Table", instead: dict[str, Sequence[str]]) -> tuple[Group, ...]:
    given = top.take("agents", dict)
    for name in instead:
        if name not in given:
            raise Misplanned(f"{top.where}: there is no group {name!r}{nearest(name, given)}")
    out = []
    for name, agents in {**given, **instead}.items():
        listed = [agents] if isinstance(agents, str) else list(agents)
        if not listed or not all(isinstance(one, str) for one in listed):
            raise Misplanned(
                f"{top.where}: agents of {name} must be names or patterns of folders; got "
                f"{agents!r}."
            )
        out.append(Group(name=name, agents=tuple(listed)))
    if not out:
        raise Misplanned(f"{top.where}: `agents` must name one group or more; got none.")
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
    return tuple(out)


def _hypothesis(
    table: "_Table", names: Mapping[str, Sequence[str]], settings: Sequence[Setting]
) -> Hypothesis:
    def effect(given: Mapping[str, Any], where: str) -> Effect:
        inner = _Table(given, where)
        found = {
            "arm": inner.take("arm", str), "baseline": inner.take("baseline", str, BASE),
            "setting": inner.take("setting", str, names["setting"][0]),
        }  # fmt: skip
        for key, value in found.items():
            known = names["setting" if key == "setting" else "arm"]
            if value not in known:
                raise Misplanned(f"{where}: there is no {key} {value!r}{nearest(value, known)}")
        playing = next(one for one in settings if one.name == found["setting"]).groups
        group = inner.take("agents", str, playing[0])
        if group not in playing:
            raise Misplanned(
                f"{where}: {group} does not play in {found['setting']}{nearest(group, playing)}"
            )
        inner.finish()
        return Effect(**found, group=group)

    minus = table.take("minus", dict, {})
    found = Hypothesis(
        name=table.take("name", str),
        claim=table.take("claim", str),
        effect=effect(table.take("effect", dict), f"{table.where}, effect"),
        minus=effect(minus, f"{table.where}, minus") if minus else None,
        measure=table.take("measure", str, "score"),
        expect=table.choice("expect", Expect, "more"),
    )
    table.finish()
    if found.minus is not None and found.expect == "same":
        raise Misplanned(
            f"{table.where}: `expect` must be more or less for a difference of two effects; got "
            "same."
        )
    return found


def _once(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise Misplanned(f"{where} must each have a name of their own; {name!r} comes twice.")


class _Table:
    """A table of the file, whose keys are taken one by one, so that none is unknown."""

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

    def number(self, key: str, default: int | None, *, least: int) -> int:
        value = self.take(key, int, default)
        if value < least:
            raise Misplanned(f"{self.where}: `{key}` must be {least} or more; got {value}.")
        return value

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
        """**Errors:** `Misplanned` for a key that nobody took."""
        for key in self.left:
            raise Misplanned(f"{self.where}: there is no `{key}`{nearest(key, self.known)}")


_KINDS = {int: "a whole number", str: "a text", list: "a list", dict: "a table"}
