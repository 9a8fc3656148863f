"""The description of an environment: the arguments of `make` as users, manifests and headers give
them.
"""

from collections.abc import Mapping
from typing import Any

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

    **Errors:** `ValueError` for an unknown key, with the nearest, and for a module that only the
    files of an agent name; `TypeError` for a value of another type.
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
    return consented(arguments(given))


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

    **Errors:** those of `described`.
    """
    return {"size": 64, "repeat": 1, **described(environment)}
