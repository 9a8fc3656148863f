"""The architectures of agents, by the names in manifests.

An architecture is a class of models and a class of configurations. Both are imported on first use,
so reading a manifest does not import JAX.
"""

import importlib
from collections.abc import Callable
from typing import Any

from thinkslow import registry

_KNOWN: dict[str, tuple[Any, Any]] = {
    "dreamerv3-main": ("thinkslow.dreamer.model:Dreamer", "thinkslow.dreamer.config:ModelConfig"),
    "dreamerv3-v1": (
        "thinkslow.dreamer.v1.model:V1Dreamer",
        "thinkslow.dreamer.v1.config:V1Config",
    ),
}


def register_architecture(name: str, model: Callable[..., Any], config: type) -> None:
    """Register your own architecture, so that its agents can be saved and loaded.

    A file or a notebook cell may run again and register its architectures again.

    Args:
        name: Its name in manifests.
        model: Makes a model: `model(observations, actions, config, key=key)`, the first two
            mappings from a name to a `Space`. Its result is a `WorldModel` that keeps `config`.
        config: A dataclass of sizes; `config.from_json(dictionary)` reads back what
            `dataclasses.asdict` gave after a trip through JSON, and raises `ValueError` or
            `TypeError` for what no agent can be.

    **Errors:** `ValueError` if another architecture has this name.
    """
    pairs = zip((model, config), _KNOWN.get(name, (model, config)), strict=True)
    if not all(registry.redefines(new, old) for new, old in pairs):
        raise ValueError(f"There is an architecture {name!r} already. Choose another name.")
    _KNOWN[name] = (model, config)


def architectures() -> tuple[str, ...]:
    """All names that a manifest may have."""
    return tuple(_KNOWN)


def model_of(name: str) -> Callable[..., Any]:
    """The function that makes a model of an architecture. **Errors:** `KeyError` for an unknown
    name.
    """
    return _loaded(_KNOWN[name][0])


def config_of(name: str) -> Any:
    """The class of an architecture's configurations. **Errors:** `KeyError`."""
    return _loaded(_KNOWN[name][1])


def _loaded(place: Any) -> Any:
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
