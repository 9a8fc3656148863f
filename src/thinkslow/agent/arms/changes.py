"""Change single settings of an arm: the fields of `Thinking` and `Arm`, by name.

The flags of the command line and the plans of studies use this. Nothing here needs JAX until an
object is made.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from thinkslow import names, registry
from thinkslow.agent.arms.arm import Arm
from thinkslow.agent.thinking import Thinking
from thinkslow.registry import nearest

OF_ARM = {field.name: field for field in dataclasses.fields(Arm) if field.name != "thinking"}
"""Settings of when and for how long to think."""
SETTINGS = {field.name: field for field in dataclasses.fields(Thinking)} | OF_ARM


def kind_of(name: str) -> str | None:
    """The kind of the registry for a setting's values; None for numbers and words.

    >>> kind_of("update"), kind_of("gate"), kind_of("steps")
    ('update', 'gate', None)
    """
    return name if name in names.KINDS else SETTINGS[name].metadata.get("kind")


def made(name: str, value: Any) -> Any:
    """The value of a setting; for an object written as text, the object.

    Args:
        name: the name of the setting.
        value: a number, a word, an object, or a text such as `sig,0.5*evidence` or `gradient:0.1`.

    **Errors:** `ValueError` for an unknown setting or name, with the nearest.
    """
    if name not in SETTINGS:
        raise ValueError(f"There is no setting {name!r}{nearest(name, SETTINGS)}")
    kind = kind_of(name)
    if kind is None or not isinstance(value, str):
        return value
    return registry.weighted(kind, value) if kind == "term" else registry.make(kind, value)


def changed(arm: Arm, values: Mapping[str, Any]) -> Arm:
    """An arm with other values of some settings.

    Args:
        arm: the arm to change.
        values: values by setting, as `made` returns them.

    **Errors:** `ValueError` or `TypeError` for values out of range or settings that exclude each
    other.
    """
    thinking = {name: value for name, value in values.items() if name not in OF_ARM}
    return dataclasses.replace(
        arm,
        thinking=dataclasses.replace(arm.thinking, **thinking),
        **{name: value for name, value in values.items() if name in OF_ARM},
    )
