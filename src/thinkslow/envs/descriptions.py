"""The description of an environment: the arguments of `make` as users, manifests and headers give
them.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from thinkslow.consent import consented
from thinkslow.registry import nearest
from thinkslow.settings import plain

ARGUMENTS = {
    "id": "a text",
    "size": "an integer",
    "repeat": "an integer",
    "image": "a list of texts",
    "options": "a mapping",
    "wrappers": "a list of texts",
    "shift": "a text",
}
"""Arguments of `make` that a description of an environment may hold, with their types."""


def arguments(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `make` in a description of an environment, such as a manifest's.

    Args:
        environment: any mapping; other keys are ignored.

    >>> arguments({"id": "CartPole-v1", "size": 64, "repeat": 1, "task": "gym_cartpole"})
    {'id': 'CartPole-v1', 'size': 64, 'repeat': 1}
    """
    return {name: environment[name] for name in ARGUMENTS if name in environment}


RECORDED = ("task",)
"""What the manifest of an imported agent also says of its environment."""


def described(environment: str | Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `make` in an environment that a user names.

    Args:
        environment: its id, or a mapping such as an agent's `about.environment`.

    Returns: the arguments, with Python's numbers instead of NumPy's.

    **Errors:** `ValueError` for an unknown key, with the nearest, for NaN among the options, and
    for a module that only the files of an agent name; `TypeError` for a value of another type.

    >>> described({"id": "Hopper-v5", "options": {"healthy_z_range": (0.7, math.inf)}})
    {'id': 'Hopper-v5', 'options': {'healthy_z_range': (0.7, inf)}}
    """
    given = {"id": environment} if isinstance(environment, str) else environment
    if not isinstance(given, Mapping):
        raise TypeError(
            "An environment must be its id, or a mapping such as {'id': 'CartPole-v1'}; got "
            f"{given!r:.80}. Yours is `module:Class`, or `module:function` that makes it."
        )
    for name, value in given.items():
        if name not in (*ARGUMENTS, *RECORDED):
            raise ValueError(
                f"An environment has no setting {name!r}{nearest(str(name), ARGUMENTS)}"
            )
        if name in ARGUMENTS and not _fits(value, ARGUMENTS[name]):
            raise TypeError(
                f"`{name}` of an environment must be {ARGUMENTS[name]}; got {value!r:.80}."
            )
    if "id" not in given:
        raise ValueError(f"An environment must have an `id`; got {given!r:.80}.")
    found = arguments(given)
    if isinstance(options := found.get("options"), Mapping):
        found["options"] = dict(options)
    return consented(_with_numbers(found))


def _with_numbers(value: Any) -> Any:
    """Settings with Python's numbers instead of NumPy's. Objects of other classes, such as a
    dictionary with attributes or a date of NumPy, stay what their environment expects.

    **Errors:** `ValueError` for NaN.
    """
    if type(value) is dict:
        return {name: _with_numbers(one) for name, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_with_numbers(one) for one in value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufU":
        value = plain(value)
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(
            "`options` of an environment must not hold NaN, which JSON cannot record. Leave the "
            "option out, or pass None."
        )
    return value


def _fits(value: Any, wanted: str) -> bool:
    """Whether a value is of a type of `ARGUMENTS`."""
    if wanted == "a list of texts":
        return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    if wanted == "a mapping":
        return value is None or isinstance(value, Mapping)
    return isinstance(value, str) if wanted == "a text" else type(plain(value)) is int


def described_environment(environment: str | Mapping[str, Any]) -> dict[str, Any]:
    """As `described`, with the `size` and the `repeat` that apply if none are given.

    Args:
        environment: its id, or a mapping such as an agent's `about.environment`.

    **Errors:** those of `described`; `TypeError` for options that JSON cannot record.
    """
    found = described(environment)
    try:
        json.dumps(found)
    except TypeError as error:
        raise TypeError(
            "`options` of an environment are recorded, so they must be texts, numbers, lists or "
            f"mappings of these; {error}. Pass such a value, or write a `module:function` that "
            "makes the environment."
        ) from None
    return {"size": 64, "repeat": 1, **found}
