"""Make the JSON of an episode: the block that the page reads, and flat records of its decisions.

`docs/watch.md` documents every field. Non-finite numbers are null. Lists over decisions have one
length; lists over frames are one longer.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.evaluation.images import psnr
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.watching import seeing
from thinkslow.evaluation.watching.episode import Episode
from thinkslow.evaluation.watching.pictures import inlined, stride
from thinkslow.refinement import Status
from thinkslow.spaces import Space

FORMAT = "thinkslow-episode-1"
_COLUMNS = {"PSNR, dB": "psnr", "RMSE": "rmse", "share wrong": "wrong"}
NUMBERS = 24
"""Largest number of values of a vector that are shown."""


class Gathering:
    """Collects the data decision by decision and makes the block.

    Args:
        episode: the played episode.
        parts: the shown parts of an observation, and the decoded ones.
        actions: spaces of the actions, by name.
    """

    def __init__(self, episode: Episode, parts: seeing.Parts, actions: Mapping[str, Space]):
        self.episode, self.parts, self.actions = episode, parts, actions
        self._current = seeing.came(episode)
        self._drawn: dict[str, dict[str, list[Any]]] = _empty(episode, parts)
        self._later: dict[str, dict[str, list[Any]]] = _empty(episode, parts)
        self._errors: dict[str, dict[str, list[Any]]] = _empty(episode, parts)

    def add(self, shown: seeing.Shown) -> None:
        """Add the images that the arms decode and imagine at the next decision."""
        reached = [shown.number + step for step in (0, *AHEAD)]
        for arm, now in shown.now.items():
            for name, image in now.items():
                later = shown.later[arm][name]
                whole = [image, *later]
                seen = [
                    self.episode.frames[at][name]
                    if at <= self.episode.length and self._current[at]
                    else None
                    for at in reached
                ]
                errors = [
                    None if real is None else _error(self.parts, name, one, real)
                    for one, real in zip(whole, seen, strict=True)
                ]
                self._errors[arm][name].append(errors)
                if name in self.parts.images:
                    self._drawn[arm][name].append(inlined(image))
                    self._later[arm][name].append([inlined(one) for one in later])
                else:
                    space = self.parts.numbers[name]
                    self._drawn[arm][name].append(_few(_classes(image, space)))

    def block(self, about: Mapping[str, Any], arms: Mapping[str, AbstractAgent]) -> dict[str, Any]:
        """The complete block.

        Args:
            about: facts of the episode, put first.
            arms: the agents that thought.
        """
        images = {
            name: [inlined(frame[name]) for frame in self.episode.frames]
            for name in self.parts.images
        }
        every = self._every(images)
        frames = self.episode.frames
        vectors = {name: [_few(frame[name]) for frame in frames] for name in self.parts.numbers}
        return {
            "format": FORMAT,
            **about,
            "acting": self.episode.acting,
            "decisions": self.episode.length,
            "ended": self.episode.ended,
            "error": self.episode.error,
            "ahead": list(AHEAD),
            "imagined_every": every,
            "parts": [
                {
                    "name": name,
                    "kind": "image" if name in images else "numbers",
                    "shape": list(space.shape),
                    "decoded": name in self.parts.decoded,
                    "error": _measure(self.parts, name),
                }
                for name, space in {**self.parts.images, **self.parts.numbers}.items()
            ],
            "actions": [
                {"name": name, "classes": space.classes, "shape": list(space.shape)}
                for name, space in self.actions.items()
            ],
            "reward": _plain(self.episode.rewards),
            "score": _plain(np.cumsum(self.episode.rewards)),
            "current": self._current,
            "came": {**images, **vectors},
            "arms": [self._arm(name, agent, every) for name, agent in arms.items()],
        }

    def _every(self, images: Mapping[str, Sequence[str]]) -> int | None:
        drawn = [
            one[name] for one in self._drawn.values() for name in one if name in self.parts.images
        ]
        fixed = sum(len(uri) for uris in [*images.values(), *drawn] for uri in uris)
        each = np.zeros(self.episode.length, int)
        for one in self._later.values():
            for several in one.values():
                for at, uris in enumerate(several):
                    each[at] += sum(map(len, uris))
        return stride(fixed, each.tolist())

    def _arm(self, name: str, agent: AbstractAgent, every: int | None) -> dict[str, Any]:
        told = self.episode.thoughts[name]
        believed = seeing.believed(agent, told)
        policies = {
            action: believed[f"policy {action}"]
            for action in self.actions
            if f"policy {action}" in believed
        }
        if len(self.actions) == 1 and all(one.improved is not None for one in told):
            policies = _improved(policies, told, self.actions)
        split = [agent.model.split(one.action) for one in told]
        return {
            "name": name,
            "action": {
                action: [_few(one.get(action, np.nan)) for one in split] for action in self.actions
            },
            "thinks": [one.thinks for one in told],
            "moved": _plain([one.moved for one in told]),
            "doubt": None
            if all(one.doubt is None for one in told)
            else _plain([one.doubt for one in told]),
            "objective": None
            if all(one.descent is None for one in told)
            else [_descent(one.descent) for one in told],
            **{key: _plain(value) for key, value in believed.items() if "policy" not in key},
            "policy": {action: _plain(value) for action, value in policies.items()},
            "decoded": self._drawn[name],
            "imagined": {
                part: [
                    uris if every and at % every == 0 else None
                    for at, uris in enumerate(self._later[name][part])
                ]
                for part in self.parts.decoded
                if part in self.parts.images
            },
            "error": {part: _plain(rows) for part, rows in self._errors[name].items()},
        }


def rows(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A flat record for every arm at every decision, without images."""
    classes = {one["name"]: one["classes"] for one in block["actions"]}
    for at in range(block["decisions"]):
        for arm in block["arms"]:
            descent = arm["objective"][at] if arm["objective"] else None
            policy = {
                f"policy_change_{name}": _change(each[at], classes[name])
                for name, each in arm["policy"].items()
            }
            errors = {
                f"{_COLUMNS[part['error']]}_{part['name']}": arm["error"][part["name"]][at][0]
                for part in block["parts"]
                if part["decoded"]
            }
            value = arm["value"][at] if "value" in arm else [None, None]
            yield {
                "decision": at,
                "arm": arm["name"],
                "acting": arm["name"] == block["acting"],
                "reward": block["reward"][at],
                "score": block["score"][at],
                **{f"action_{name}": taken[at] for name, taken in arm["action"].items()},
                "surprise": arm["surprise"][at] if "surprise" in arm else None,
                "doubt": arm["doubt"][at] if arm["doubt"] else None,
                "thinks": arm["thinks"][at],
                "moved": arm["moved"][at],
                "objective_before": descent["loss"][0] if descent else None,
                "objective_after": descent["loss"][descent["chosen"]] if descent else None,
                "value_before": value[0],
                "value_after": value[1],
                **policy,
                **errors,
            }


def _empty(episode: Episode, parts: seeing.Parts) -> dict[str, dict[str, list[Any]]]:
    return {arm: {name: [] for name in parts.decoded} for arm in episode.thoughts}


def _classes(decoded: np.ndarray, space: Space) -> np.ndarray:
    """A discrete part as a class, if probabilities of its classes were decoded."""
    whole = space.classes is not None and decoded.shape != space.shape
    return np.asarray(decoded.argmax(-1)) if whole else decoded


def _measure(parts: seeing.Parts, name: str) -> str:
    """The unit of the error of a part."""
    if name in parts.images:
        return "PSNR, dB"
    return "RMSE" if parts.numbers[name].classes is None else "share wrong"


def _error(parts: seeing.Parts, name: str, found: np.ndarray, real: np.ndarray) -> float:
    if name in parts.images:
        return float(psnr(found, real))
    space = parts.numbers[name]
    if space.classes is not None:
        return float(np.mean(_classes(found, space) != np.asarray(real)))
    gap = np.asarray(found, float) - np.asarray(real, float)
    return float(np.sqrt(np.mean(gap**2))) if gap.size else 0.0


def _descent(descent: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if descent is None:
        return None
    return {
        "loss": _plain(descent["loss"]),
        "moved": _plain(descent["moved"]),
        "chosen": descent["chosen"],
        "status": Status(descent["status"]).text,
    }


def _improved(
    policies: dict[str, np.ndarray], told: Sequence[Any], actions: Mapping[str, Space]
) -> dict[str, np.ndarray]:
    """Policies before and after thinking. After a choice by value that compared every action,
    `after` is the distribution that it drew from.
    """
    (name, space), *_ = actions.items()
    after = np.stack([one.improved for one in told])
    if space.shape or space.classes != after.shape[-1] or name not in policies:
        return policies
    order = np.stack([one.compared for one in told]).argmax(-1)
    whole = policies[name].copy()
    np.put_along_axis(whole[:, 1], order, after.astype(whole.dtype), -1)
    return {name: whole}


def _change(pair: Sequence[Any], classes: int | None) -> float | None:
    """Total variation between two policies over classes; for continuous actions, the largest change
    of a mean.
    """
    before, after = (np.asarray(one, float) for one in pair)
    if classes is None:
        return _number(np.abs(after - before)[..., 0].max())
    return _number(0.5 * np.abs(after - before).sum(-1).max())


def _few(value: Any) -> Any:
    """A number, or the first `NUMBERS` of an array."""
    array = np.asarray(value)
    return _plain(array if array.ndim == 0 else array.ravel()[:NUMBERS])


def _plain(value: Any) -> Any:
    """Nested lists of numbers with six digits."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | str) else _number(value)


def _number(value: Any) -> float | int | None:
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, int):
        return number
    return float(f"{number:.6g}") if math.isfinite(number) else None
