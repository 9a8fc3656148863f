"""Which options the constructor of an environment accepts, for a message about one that it does
not.
"""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from thinkslow.registry import nearest

UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")
MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)$")
OF_MAKE = ("max_episode_steps",)
"""Options that `gymnasium.make` takes itself, for every environment."""
TAKEN = ("id", "disable_env_checker")
"""Arguments of `gymnasium.make` that are not options of an environment."""


def accepted(build: Callable[..., Any]) -> tuple[list[str], bool]:
    """The names that a function or a class takes, and whether this may not be all of them.

    Where a class passes further names on (`**kwargs`), its base classes are read too.

    >>> class Base:
    ...     def __init__(self, size=3): ...
    >>> class Maze(Base):
    ...     def __init__(self, level, **kwargs): ...
    >>> accepted(Maze)
    (['level', 'size'], True)
    """
    calls: list[Callable[..., Any]] = [build]
    if own := inspect.isclass(build):
        calls = [vars(kind)["__init__"] for kind in build.__mro__[:-1] if "__init__" in vars(kind)]
    names: dict[str, None] = {}
    open_ended = False
    for call in calls:
        try:
            parameters = list(inspect.signature(call).parameters.values())[own:]
        except (TypeError, ValueError):  # compiled code
            return list(names), True
        unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)
        passes = [one for one in parameters if one.kind == one.VAR_KEYWORD]
        names |= {one.name: None for one in parameters if one.kind not in unnamed}
        for one in passes:
            del names[one.name]
        open_ended = open_ended or bool(passes)
        if not passes:
            break
    return list(names), open_ended


def refused(
    id: str, build: Callable[..., Any], asked: Mapping[str, Any], also: Collection[str] = ()
) -> str | None:
    """The message for options that a constructor cannot take; None if it may take them.

    Args:
        id: the environment.
        build: its constructor.
        asked: the options.
        also: names of options that are used before the constructor is called.
    """
    names, open_ended = accepted(build)
    known = [*names, *also, *OF_MAKE]
    wrong = [name for name in asked if name in TAKEN or not (open_ended or name in known)]
    return said(id, wrong[0], known) if wrong else None


def of_error(
    id: str,
    build: Callable[..., Any],
    error: Exception,
    asked: Mapping[str, Any],
    also: Collection[str] = (),
) -> str | None:
    """The message for an option that the constructor passed on and whose receiver refused it, or
    for one that must be given; None for any other error.
    """
    if not isinstance(error, TypeError):
        return None
    known = [*accepted(build)[0], *also, *OF_MAKE]
    if (found := UNKNOWN.search(str(error))) and found[1] in asked:
        return said(id, found[1], [name for name in known if name != found[1]])
    if (names := missing(error)) and set(names) <= {*known}:
        return (
            f"{id} needs {'the option' if len(names) == 1 else 'the options'} "
            f'{", ".join(names)}: pass `options={{"{names[0]}": VALUE}}`'
            f"{' and so on' if len(names) > 1 else ''}."
        )
    return None


def missing(error: Exception) -> list[str]:
    """The required arguments that a call lacked; empty for any other error.

    >>> missing(TypeError("Maze() missing 2 required positional arguments: 'level' and 'size'"))
    ['level', 'size']
    """
    found = MISSING.search(str(error)) if isinstance(error, TypeError) else None
    return re.findall(r"'(\w+)'", found[1]) if found else []


def said(id: str, name: str, known: Collection[str]) -> str:
    """The message for an unknown option.

    >>> said("my/Maze-v0", "levl", ["level", "size"])
    'my/Maze-v0 has no option levl. Did you mean level? It accepts level, size.'
    """
    hint = nearest(name, known)
    listed = f" It accepts {', '.join(known)}." if known and "Did you mean" in hint else ""
    return f"{id} has no option {name}{hint.replace('Available:', 'It accepts')}{listed}"
