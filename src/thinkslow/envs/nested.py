"""Dictionaries and tuples in the spaces of an environment, and in what it shows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gymnasium import spaces

from thinkslow.envs.failures import Mismatch
from thinkslow.envs.requirements import Unavailable
from thinkslow.plural import plural

DEEPEST = 32
"""How many dictionaries and tuples may be nested."""
Path = tuple[str, ...]


def repeated(names: Iterable[str]) -> str:
    """The first repeated name; empty if there is none."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), "")


def check_depth(id: str, space: spaces.Space) -> None:
    """**Errors:** `Unavailable` for a space of the environment `id` that is nested too deeply."""
    level, inside = 0, [space]
    while inside := [one for outer in inside for _, one in within(outer)]:
        level += 1
        if level > DEEPEST:
            raise Unavailable(
                f"{id} has a space of more than {DEEPEST} dictionaries and tuples inside each "
                'other. Flatten it: `wrappers=["module:Class"]`.'
            )


def within(space: spaces.Space) -> Iterable[tuple[Any, spaces.Space]]:
    """The spaces of a dictionary or a tuple, each with its key; none of another space."""
    if isinstance(space, spaces.Dict):
        return space.spaces.items()
    return enumerate(space.spaces) if isinstance(space, spaces.Tuple) else ()


def leaves(space: spaces.Space, path: Path = ()) -> Iterator[tuple[Path, spaces.Space]]:
    """The spaces inside dictionaries and tuples, with their paths."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield path, space
    for key, one in within(space):
        yield from leaves(one, (*path, str(key)))


def brief(space: spaces.Space) -> str:
    """A space as it is shown in a message, shortened: a dictionary may hold thousands."""
    text = str(space)
    return text if len(text) <= 200 else f"{text[:150]} ... {text[-40:]}"


def at(value: Any, path: Path) -> Any:
    """The value at a path of an observation.

    **Errors:** `Mismatch` if the observation lacks it.
    """
    for depth, key in enumerate(path):
        if isinstance(value, Mapping):
            if key not in value:  # a key that is a number
                value = {str(name): one for name, one in value.items()}
            if key not in value:
                raise Mismatch(
                    f"its observation lacks {'/'.join(path[: depth + 1])}, which is declared; it "
                    f"shows {', '.join(map(str, value)) or 'nothing'}. Show every declared part at "
                    "every step, or declare what is shown."
                )
            value = value[key]
        elif isinstance(value, tuple | list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            place = " " + "/".join(path[:depth]) if depth else ""
            what, part = type(value).__name__, f"part {key}"
            if isinstance(value, tuple | list):
                what, part = f"{what} of {plural(len(value), 'part')}", f"{part}, counted from 0,"
            raise Mismatch(
                f"its observation{place} is a {what}, but {part} is declared. Return a "
                'dictionary or a tuple as declared, or wrap it: `wrappers=["module:Class"]`.'
            )
    return value


def undeclared(space: spaces.Space, value: Any, path: Path = ()) -> Iterator[str]:
    """The paths of what an observation shows and its space does not declare."""
    if isinstance(space, spaces.Dict) and isinstance(value, Mapping):
        shown = value.items()
    elif isinstance(space, spaces.Tuple) and isinstance(value, tuple | list):
        shown = enumerate(value)
    else:
        return
    declared = {str(key): one for key, one in within(space)}
    for key, one in shown:
        here = (*path, str(key))
        if str(key) in declared:
            yield from undeclared(declared[str(key)], one, here)
        else:
            yield "/".join(here)
