"""A hash of the user's code that an object runs, such as a term or an update of their own.

It is made from the code in memory and not from files: a class may have been typed at a prompt, and
a file may have been edited since it was imported. It covers the methods of the user's classes, the
functions that these call, and the constants that both read. Line numbers, comments, addresses and
the names of files do not count. Of the code of packages only names and constants count. An
optimiser of a package has no hash: the records have its constants in words (`trees.words`).

The hash depends on the version of Python, because the bytecode does.
"""

import dataclasses
import dis
import functools
import hashlib
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thinkslow.envs.failures import OWN, USERS, owner
from thinkslow.trees import Alike

PLAIN = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType)
WRAPPED = ("func", "function", "jvp", "fwd", "bwd")
"""Where descriptors and transformations keep functions, besides `__wrapped__`."""


def code_of(*objects: Any) -> str | None:
    """The hash; None if these objects run our own code alone.

    Equal in two processes with the same version of Python. Fields that are numbers or arrays do
    not count, as they are no code.

    Args:
        *objects: agents, models, terms, updates or anything else that runs. Their fields are
            followed.
    """
    walk = _Walk()
    for one in objects:
        walk.instance(one)
    return walk.found.hexdigest() if walk.others else None


class _Walk:
    """Adds everything that is reachable to one hash. Objects seen before count by their order."""

    def __init__(self):
        self.found = hashlib.blake2b(digest_size=8)
        self.others = False
        """Whether there is code that is not ours and that the records do not have in words."""
        self.users = False
        self._seen: dict[int, tuple[int, Any]] = {}

    def add(self, *words: object) -> None:
        for word in words:
            self.found.update(f"{word!r}\0".encode(errors="backslashreplace"))

    def seen(self, value: Any) -> bool:
        before = self._seen.get(id(value))
        if before is None:
            self._seen[id(value)] = (len(self._seen), value)  # kept, so that its id stays its own
            return False
        self.add("again", before[0])
        return True

    def instance(self, value: Any) -> None:
        """An object: its class, and its fields without numbers and, for our own classes, texts."""
        kind = type(value)
        if self.seen(value):
            return
        owned = [one for one in kind.__mro__ if is_users(one)]
        for one in owned:
            self.kind(one)
        if not owned:
            self.add(kind.__module__, kind.__qualname__)
        for name, field in _fields(value, everything=bool(owned)):
            if not _is_numbers(field):
                self.add(name)
                self.value(field, constants=bool(owned))

    def value(self, value: Any, *, constants: bool) -> None:
        """Anything that code refers to.

        Args:
            value: the value.
            constants: whether to count the content of dictionaries, lists and arrays. Packages
                keep other things there, such as what they have compiled.
        """
        if isinstance(value, PLAIN):
            self.add(value)
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, type):
            self.kind(value)
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.ModuleType):
            self.add(value.__name__)
        elif isinstance(value, Alike):
            self.told_in_words(value)
        elif isinstance(value, tuple):
            self.add(type(value).__name__)
            for one in value:
                self.value(one, constants=constants)
        elif isinstance(value, set | frozenset):
            self.add(sorted(repr(one) for one in value if isinstance(one, PLAIN)))
        elif isinstance(value, Mapping | list):
            self.container(value, constants=constants)
        elif isinstance(value, np.ndarray | np.generic | jax.Array):
            self.add(value.shape, str(value.dtype))
            if constants and not jnp.issubdtype(value.dtype, jax.dtypes.extended):
                self.found.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, property):
            for one in (value.fget, value.fset):
                self.value(one, constants=constants)
        elif isinstance(value, functools.partial):
            for one in (value.func, value.args, value.keywords):
                self.value(one, constants=constants)
        elif isinstance(value, types.MethodType):
            self.function(value.__func__)
            self.instance(value.__self__)
        elif not is_users(type(value)) and (inside := _wrapped(value)):
            if not self.seen(value):
                for one in inside:
                    self.value(one, constants=constants)
        else:
            self.instance(value)

    def told_in_words(self, value: Alike) -> None:
        """A part of an optimiser: the records have the constants of packages in words."""
        before = self.others
        self.value(value.function, constants=False)
        self.others = before or self.users

    def container(self, value: Mapping[Any, Any] | list[Any], *, constants: bool) -> None:
        self.add(type(value).__name__)
        if not constants or self.seen(value):
            return
        items: Iterable[tuple[Any, Any]]
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in items:
            self.value(key, constants=True)
            self.value(one, constants=True)

    def kind(self, kind: type) -> None:
        """A class: of the user its functions and constants, of others its name."""
        if self.seen(kind):
            return
        self.add(kind.__qualname__)
        if not is_users(kind):
            self.add(kind.__module__)
            return
        self.others = self.users = True
        for base in kind.__mro__[1:]:
            self.kind(base)
        for name, value in sorted(vars(kind).items()):
            special = name.startswith("__") and name.endswith("__")
            if special and not isinstance(value, types.FunctionType):
                continue  # what Python notes of a class, such as its line in the file
            self.add(name)
            self.value(value, constants=True)

    def function(self, function: types.FunctionType) -> None:
        """A function: of the user its code and what it reads, of others its name and constants."""
        if self.seen(function):
            return
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.value(wrapped, constants=True)
        owned = _is_from(function.__module__, function.__code__.co_filename)
        if not owned:
            self.add(function.__module__, function.__qualname__)
            if wrapped is not None:
                return  # such as `jax.vmap` and checks of types
        self.others |= owner(function.__code__.co_filename) != OWN
        self.users |= owned
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        for one in (function.__defaults__, function.__kwdefaults__, *cells):
            self.value(one, constants=owned)
        if not owned:
            return
        self.code(function.__code__)
        for name in sorted(_globals(function.__code__)):
            if name in function.__globals__:
                self.add(name)
                self.reached(function.__globals__[name], function.__code__)

    def reached(self, value: Any, code: types.CodeType) -> None:
        """A global that code of the user reads; of their own modules, the attributes."""
        self.value(value, constants=True)
        if isinstance(value, types.ModuleType) and _is_from(value.__name__, None):
            for name in sorted(_names(code)):
                if name in vars(value):
                    self.add(name)
                    self.value(vars(value)[name], constants=True)

    def code(self, code: types.CodeType) -> None:
        self.add(
            code.co_code,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
            code.co_exceptiontable,
        )
        for constant in code.co_consts:
            self.value(constant, constants=True)


def is_users(kind: type) -> bool:
    """Whether a class is the user's own, from a file, a notebook or a prompt."""
    if _is_from(kind.__module__, None):
        return True
    return kind.__module__ == "builtins" and any(  # run by `exec` without a name of a module
        isinstance(one, types.FunctionType) and _is_from(one.__module__, one.__code__.co_filename)
        for one in vars(kind).values()
    )


def _is_from(module: str | None, file: str | None) -> bool:
    """Whether the user wrote a module or, if it is given, a file. Text in angle brackets is none,
    such as `<stdin>`.
    """
    if file is not None and not file.startswith("<"):
        return owner(file) == USERS
    if module in (None, "builtins"):
        return file is not None and not file.startswith("<frozen")
    if module == "__main__":
        return True
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is not None:
        return owner(loaded) == USERS
    return module.partition(".")[0] not in {*sys.builtin_module_names, *sys.stdlib_module_names}


def _globals(code: types.CodeType) -> set[str]:
    """Global names that code reads, also in functions inside it."""
    reading = ("LOAD_GLOBAL", "LOAD_NAME")
    found = {one.argval for one in dis.get_instructions(code) if one.opname in reading}
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return found.union(*map(_globals, inner))


def _names(code: types.CodeType) -> set[str]:
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _fields(value: Any, *, everything: bool) -> list[tuple[str, Any]]:
    """The fields of an object, in order.

    Args:
        value: the object.
        everything: whether to include texts, defaults and, of other objects than dataclasses, all
            attributes.
    """
    if not dataclasses.is_dataclass(value):
        return list(getattr(value, "__dict__", {}).items()) if everything else []
    found = []
    for field in dataclasses.fields(value):
        content, default = getattr(value, field.name, None), field.default
        if default is not dataclasses.MISSING and "converter" in field.metadata:
            default = field.metadata["converter"](default)
        plain = isinstance(content, PLAIN) or _is_numbers(content)
        usual = plain or (type(content) is type(default) and content == default)
        if everything or not usual:
            found.append((field.name, content))
    return found


def _is_numbers(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex) or eqx.is_array_like(value)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that was deleted or not given yet
        return False


def _wrapped(value: Any) -> list[Any]:
    """The functions in a descriptor or a transformation, such as `jax.jit`."""
    kept = getattr(value, "__dict__", {})
    found = [getattr(value, "__wrapped__", None), *(kept.get(name) for name in WRAPPED)]
    return [one for one in found if callable(one)]
