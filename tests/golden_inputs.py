"""The inputs of a golden case, whatever it calls its observations and actions, and tolerances."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thinkslow.dreamer.vision import width
from thinkslow.spaces import Space

STEPS = frozenset({"is_first", "is_last", "is_terminal", "reward"})
"""Inputs of every case that are no observations."""
ACTIONS = ("prev_action", "action", "imag_action")
"""The others: what led to an observation, what was chosen there, and what is imagined."""

# Float noise of this size is 2e-6 on logits and 1e-6 on images (float32 against float64 of the
# same code); 1e-4 still catches a wrong norm epsilon or an unsorted key.
TOLERANCE = 2e-5
RELATIVE = 2e-6
LOGIT_NOISE, IMAGE_NOISE = 2e-6, 1e-6


def facts(folder: Path) -> dict[str, Any]:
    """What `golden.json` says beside the arrays."""
    path = folder / "golden.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def unwritten_classes(folder: Path) -> int | None:
    """What a user passes as `--classes` for the one source that writes no configuration."""
    overrides = facts(folder).get("overrides")
    return overrides.get("dyn_discrete") if isinstance(overrides, dict) else None


def observations(golden: Mapping[str, np.ndarray], actions: Mapping[str, Space]) -> list[str]:
    """Names of the observations, in the order of the file: all inputs that are nothing else."""
    other = set(STEPS) | {
        name.replace("action", action) for name in ACTIONS for action in ("action", *actions)
    }
    names = [name.removeprefix("in/") for name in golden if name.startswith("in/")]
    return [name for name in names if name.partition("/")[0] not in other]


def space(array: np.ndarray, own: Space | None) -> Space:
    """Of an input `[T, B, ...]`; how many values a discrete one takes only the agent knows."""
    shape = array.shape[2:]
    if own is not None and own.discrete:
        return own
    return Space(shape, "uint8" if len(shape) == 3 else "float32")


def aliases(seen: Mapping[str, Space], names: list[str], golden: Mapping[str, np.ndarray]) -> dict:
    """The golden name of each observation: its own, or that of the only other one of its kind."""
    out = {name: name for name in seen if name in names}
    for picture in (True, False):
        free = [n for n in names if n not in out and (golden[f"in/{n}"].ndim == 5) == picture]
        rest = [n for n in seen if n not in out and (len(seen[n].shape) == 3) == picture]
        if len(free) == len(rest) == 1:
            out[rest[0]] = free[0]
    return out


def action(
    golden: Mapping[str, np.ndarray], stem: str, spaces: Mapping[str, Space]
) -> dict[str, np.ndarray]:
    """Each action of an input, which one array holds for all, or one array each."""
    if f"in/{stem}" not in golden:
        named = {
            name: next(
                golden[key]
                for key in (
                    f"in/{stem}/{name}",
                    f"in/{stem}_{name}",
                    f"in/{stem.replace('action', name)}",
                )
                if key in golden
            )
            for name in spaces
        }
        return {name: _index(array, spaces[name]) for name, array in named.items()}
    array = golden[f"in/{stem}"]
    if len(spaces) == 1:
        ((name, space),) = spaces.items()
        return {name: _index(array, space)}
    sizes = [width(space) for space in spaces.values()]
    if array.shape[-1] == len(spaces) and all(space.discrete for space in spaces.values()):
        sizes = [1] * len(spaces)  # one index each
        parts = [part[..., 0] for part in np.split(array, len(spaces), -1)]
    else:
        parts = np.split(array, np.cumsum(sizes)[:-1], -1)
    return {
        name: _index(part, space) for (name, space), part in zip(spaces.items(), parts, strict=True)
    }


def _index(array: np.ndarray, space: Space) -> np.ndarray:
    """A discrete action as an index, which some sources hold as one-hot."""
    one_hot = space.classes is not None and array.ndim == 3 and array.shape[-1] == space.classes
    return array.argmax(-1).astype(np.int32) if one_hot else array


def allowed(
    name: str,
    theirs: np.ndarray,
    golden: Mapping[str, np.ndarray],
    *,
    summed: Mapping[str, int],
    wide_bins: bool,
) -> float:
    """The largest difference of two correct programs in an array.

    A number by itself has `TOLERANCE` and its own rounding. A loss is a sum of `n` terms: each of
    them has rounding of its own, and the order of adding is the compiler's, so that its noise
    grows with the root of `n` and with its value. `summed` gives `n` by the array's last name.
    A mean of `wide_bins`, up to symexp(20), is a sum of large numbers that cancel: its noise is
    that of the probabilities times the bins.
    """
    kind = theirs.dtype if theirs.dtype.kind == "f" else np.dtype("f4")
    epsilon = max(float(np.finfo(kind).eps), float(np.finfo("f4").eps))
    largest = float(np.max(np.abs(theirs), initial=0.0))
    out = TOLERANCE + (RELATIVE + epsilon) * largest
    group, _, last = name.rpartition("/")
    if (terms := summed.get(last, 1)) > 1 and group == "loss":
        out += np.sqrt(terms) * epsilon * largest  # adding
        out += 2 * IMAGE_NOISE * np.sqrt(terms * largest)  # squares of differences
    logits = golden.get(f"{group}/{last.removeprefix('slow_')}_logits")
    if wide_bins and last in ("reward", "value", "slow_value") and logits is not None:
        logits = logits.astype(np.float64)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        bins = np.linspace(-20.0, 20.0, logits.shape[-1])
        bins = np.sign(bins) * np.expm1(np.abs(bins))
        spread = np.sum(weights * np.abs(bins), -1) / np.sum(weights, -1)
        out += LOGIT_NOISE * float(np.max(spread))
    return float(out)
