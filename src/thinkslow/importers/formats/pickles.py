"""Read pickled arrays without executing the pickle.

A pickle is a program that may call anything. This module does not use Python's unpickler. It
interprets as data the few instructions that checkpoints contain. The name of a module and a class
stays a name; a table maps the few allowed names to our own functions. Every other name is refused
before anything else happens. Nothing is imported, and no other code is called.

A small file cannot use much memory or time. Memory is allocated only for bytes that the file holds.
Text, numbers and instructions are bounded. The results of our own functions, and arrays that refer
to the same bytes repeatedly, are counted against the size of the file.
"""

import dataclasses
import io
import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from thinkslow.importers.formats.arrays import SHARED, Budget, File, Span, Stored
from thinkslow.importers.formats.globals import (
    CALLS,
    Array,
    Global,
    Refused,
    Stub,
    Type,
    array_of,
    check_type,
    short,
    stubbed,
)
from thinkslow.plural import plural
from thinkslow.storage.faults import Damaged
from thinkslow.storage.reading import unreadable

__all__ = ["Global", "Refused", "Stub", "interpret", "load"]

MOST_INSTRUCTIONS = 2_000_000
"""Largest number of instructions of a file. An agent with its optimiser has 50,000; old replay
buffers have more.
"""
FREE_INSTRUCTIONS = 500_000
"""Instructions that a file of any size may have, plus one for each `BYTES_EACH` bytes."""
BYTES_EACH = 64
MOST_ARGUMENTS = 32
"""Largest number of arguments of a call; calls that make arrays have five."""
LARGEST_KEY = 2**53
"""Largest integer as a key. Larger ones could be chosen to have equal hashes."""
LONGEST_TEXT = 2**20
"""Largest number of bytes of a string, such as a name."""
LONGEST_NUMBER = 64
"""Largest number of bytes of an integer."""
MANY = 16
"""A file of so many tables stores all of them in one order; agents have dozens."""
LAZY = 4096
"""Byte strings of at least this length stay in the file until they are read."""


def load(path: Path) -> Any:
    """The content of a file: numbers, strings, lists, dictionaries, and `Stored` for arrays.

    Tuples and sets become lists, and objects of optimisers become `Stub`.

    **Errors:** `Refused` for anything else, with its name; `Damaged` for a broken file.
    **Cost:** one pass over the file that skips the arrays.
    """
    file = File(path)
    with path.open("rb") as stream:
        return interpret(stream, file.size, path, file=file)


def interpret(
    stream: io.BufferedIOBase,
    size: int,
    path: Path,
    *,
    file: File | None = None,
    calls: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
    persistent: Callable[[Any], Any] | None = None,
    budget: Budget | None = None,
) -> Any:
    """As `load`, for a stream of `size` bytes; `path` is for messages.

    `calls` are functions that stand for more global names, and `persistent` gives the object of
    a persistent id. With `file`, long byte strings stay in it. `budget` is for the numbers of all
    arrays that are read; without one it follows from `size`.
    """
    machine = _Machine(stream, size, file, calls or {}, persistent)
    try:
        value = machine.run()
        if stream.read(1):
            raise ValueError("it continues after its end")
        return _plain(
            value,
            Budget(size, times=SHARED) if budget is None else budget,
        )
    except Refused as error:
        raise Refused(f"{path}: {error}") from None
    except (Damaged, FileNotFoundError, PermissionError, MemoryError):
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:
        # A broken program can fail in any way that its instructions can; every such error means
        # damage.
        why = str(error) if type(error) is ValueError else "its instructions make no sense"
        if machine.first not in _BEGINNINGS:
            raise Damaged(
                f"{path} is not a checkpoint: it is neither a pickle nor a torch file. Give an "
                "agent folder, a log folder or a checkpoint file."
            ) from error
        raise Damaged(f"{path} is not a readable checkpoint: {why}. Copy it again.") from error


_BEGINNINGS = (pickle.PROTO, pickle.MARK, pickle.EMPTY_DICT, pickle.EMPTY_LIST, b"")
"""Possible first instructions of a pickle: a protocol, or a container."""


class _Machine:
    """The stack, the memo and the instructions of a pickle."""

    def __init__(
        self,
        stream: io.BufferedIOBase,
        size: int,
        file: File | None,
        calls: Mapping[tuple[str, str], Callable[..., Any]],
        persistent: Callable[[Any], Any] | None,
    ):
        self.stream, self.size, self.file = stream, size, file
        self.calls = CALLS | dict(calls)
        self.persistent = persistent
        self.first = b""
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.made = Budget(size, times=2)

    def run(self) -> Any:
        most = min(MOST_INSTRUCTIONS, FREE_INSTRUCTIONS + self.size // BYTES_EACH)
        for _ in range(most):
            code = self.take(1)
            self.first = self.first or code
            if code == pickle.STOP:
                if len(self.stack) != 1 or self.marks:
                    raise ValueError("it stops in the middle of something")
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                what = _FORBIDDEN.get(code)
                if what is None:
                    raise ValueError(f"it holds the unknown instruction {code!r}")
                raise Refused(
                    f"a checkpoint may hold arrays only, and this one asks for {what}. "
                    "Nothing was run."
                )
            step(self)
        raise Refused(f"a checkpoint of this size has fewer than {most:,} instructions.")

    def take(self, count: int) -> bytes:
        """The next bytes. Only for short strings, because memory is allocated before they are
        read.
        """
        data = self.stream.read(count)
        if len(data) != count:
            raise ValueError("it is cut off")
        return data

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, count: int) -> str:
        if count > LONGEST_TEXT:
            raise ValueError(f"it holds a text of {count:,} bytes")
        return self.take(count).decode()

    def line(self) -> str:
        line = self.stream.readline(LONGEST_TEXT)
        if not line.endswith(b"\n"):
            raise ValueError("it is cut off")
        return line[:-1].decode()

    def bytes(self, count: int) -> bytes | Span:
        here = self.stream.tell()
        if count > self.size - here:
            raise ValueError("it is cut off")
        if self.file is None or count < LAZY:
            return self.take(count)
        self.stream.seek(count, io.SEEK_CUR)
        return Span(self.file, here, count)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """The items pushed since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def make_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("the name of a class is not text")
        found = Global(module, name)
        if (module, name) not in self.calls and not stubbed(module, name):
            raise Refused(
                f"a checkpoint may hold arrays only, and this one asks for {short(found)}. "
                "Nothing was run. Do not open it with other tools."
            )
        self.push(found)

    def call(self) -> None:
        """Call our own function for the named one."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise Refused("a checkpoint may hold arrays only, and this one calls something else.")
        own = self.calls.get((function.module, function.name))
        if own is None:
            self.push(Stub(function))
            return
        if len(arguments) > MOST_ARGUMENTS:
            raise Refused(f"it calls {short(function)} with {plural(len(arguments), 'argument')}.")
        out = own(*arguments)
        if isinstance(out, bytes):
            self.made.take(len(out), "texts")
        self.push(out)

    def create(self, arguments: int) -> None:
        """An object of a class. Only classes that are not needed here are allowed."""
        for _ in range(arguments):
            self.stack.pop()
        kind = self.stack.pop()
        if not isinstance(kind, Global) or not stubbed(kind.module, kind.name):
            raise Refused(
                f"a checkpoint may hold arrays only, and this one makes "
                f"{short(kind) if isinstance(kind, Global) else 'an object of no class'}. "
                "Nothing was run."
            )
        self.push(Stub(kind))

    def build(self) -> None:
        """Set the content of an object that was made before."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Array):
            target.stored = array_of(*state[-4:])
        elif isinstance(target, Type):
            check_type(state)
        elif not isinstance(target, Stub | dict):  # attributes of a dictionary are not needed here
            raise Refused("a checkpoint may hold arrays only, and this one fills something else.")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Stub):
            return
        if type(target) is not dict:
            raise ValueError("it puts names into something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a deeply nested key would overflow the stack.
            if not isinstance(key, str | int | bytes | None):
                raise ValueError("it has a name that is neither text nor a whole number")
            if isinstance(key, int) and not -LARGEST_KEY < key < LARGEST_KEY:
                raise ValueError("it has a number for a name that is too large")
            if key in target:
                raise ValueError(f"it gives {short(key)} twice")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Stub):
            return
        if type(target) is not list:
            raise ValueError("it adds items to something that is not a list")
        target.extend(items)

    def number_of(self, count: int) -> int:
        if count > LONGEST_NUMBER:
            raise ValueError(f"it holds a number of {count:,} bytes")
        return int.from_bytes(self.take(count), "little", signed=True)

    def load_persistent(self) -> None:
        if self.persistent is None:
            raise Refused(
                "a checkpoint may hold arrays only, and this one asks for a persistent "
                "id. Nothing was run."
            )
        self.push(self.persistent(self.stack.pop()))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("it takes more than there is")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def begin(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def protocol(self) -> None:
        if (version := self.take(1)[0]) > pickle.HIGHEST_PROTOCOL:
            raise ValueError(f"it is a pickle of protocol {version}")


_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    pickle.PROTO: _Machine.protocol,
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: _Machine.begin,
    pickle.POP: lambda m: m.stack.pop() if m.stack else m.marked(),
    pickle.POP_MARK: _Machine.marked,
    pickle.DUP: lambda m: m.push(m.stack[-1]),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.number("<i")),
    pickle.BININT1: lambda m: m.push(m.number("<B")),
    pickle.BININT2: lambda m: m.push(m.number("<H")),
    pickle.LONG1: lambda m: m.push(m.number_of(m.number("<B"))),
    pickle.LONG4: lambda m: m.push(m.number_of(m.number("<I"))),
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.SHORT_BINUNICODE: lambda m: m.push(m.text(m.number("<B"))),
    pickle.BINUNICODE: lambda m: m.push(m.text(m.number("<I"))),
    pickle.BINUNICODE8: lambda m: m.push(m.text(m.number("<Q"))),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.bytes(m.number("<B"))),
    pickle.BINBYTES: lambda m: m.push(m.bytes(m.number("<I"))),
    pickle.BINBYTES8: lambda m: m.push(m.bytes(m.number("<Q"))),
    pickle.BYTEARRAY8: lambda m: m.push(m.bytes(m.number("<Q"))),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.EMPTY_SET: lambda m: m.push([]),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.APPEND: lambda m: m.append([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.append(m.marked()),
    pickle.ADDITEMS: lambda m: m.append(m.marked()),
    pickle.FROZENSET: lambda m: m.push(m.marked()),
    pickle.TUPLE: lambda m: m.push(tuple(m.marked())),
    pickle.TUPLE1: lambda m: m.tuple_of(1),
    pickle.TUPLE2: lambda m: m.tuple_of(2),
    pickle.TUPLE3: lambda m: m.tuple_of(3),
    pickle.SETITEM: lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    pickle.SETITEMS: lambda m: m.set_items(m.marked()),
    pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
    pickle.BINPUT: lambda m: m.remember(m.number("<B")),
    pickle.LONG_BINPUT: lambda m: m.remember(m.number("<I")),
    pickle.BINGET: lambda m: m.push(m.memo[m.number("<B")]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.number("<I")]),
    pickle.GLOBAL: lambda m: m.make_global(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.make_global(*[m.stack.pop(), m.stack.pop()][::-1]),
    pickle.REDUCE: _Machine.call,
    pickle.NEWOBJ: lambda m: m.create(1),
    pickle.NEWOBJ_EX: lambda m: m.create(2),
    pickle.BUILD: _Machine.build,
    pickle.BINPERSID: _Machine.load_persistent,
}
_FORBIDDEN = {
    pickle.INST: "an object of a class (INST)",
    pickle.OBJ: "an object of a class (OBJ)",
    pickle.EXT1: "a class by number (EXT1)",
    pickle.EXT2: "a class by number (EXT2)",
    pickle.EXT4: "a class by number (EXT4)",
    pickle.PERSID: "a persistent id",
    pickle.NEXT_BUFFER: "a buffer outside the file",
    pickle.READONLY_BUFFER: "a buffer outside the file",
    **dict.fromkeys(
        (
            pickle.INT,
            pickle.LONG,
            pickle.FLOAT,
            pickle.STRING,
            pickle.UNICODE,
            pickle.GET,
            pickle.PUT,
            pickle.BINSTRING,
            pickle.SHORT_BINSTRING,
            pickle.LIST,
            pickle.DICT,
        ),
        "an instruction of Python 2, which no checkpoint uses",
    ),
}


def _plain(value: Any, budget: Budget) -> Any:
    """The structure with complete arrays instead of incomplete ones."""
    done: dict[int, Any] = {}
    todo: list[tuple[Any, Any]] = []
    arrays: dict[int, Stored] = {}

    def replaced(item: Any) -> Any:
        if isinstance(item, Array):
            if item.stored is None:
                raise ValueError("an array has no content")
            item = item.stored
        if isinstance(item, Stored):
            arrays[id(item)] = item
            return dataclasses.replace(item, budget=budget)
        if type(item) in (dict, list, tuple) and id(item) not in done:
            done[id(item)] = {} if isinstance(item, dict) else []
            todo.append((item, done[id(item)]))
        return done.get(id(item), item)

    out = replaced(value)
    while todo:
        before, after = todo.pop()
        if isinstance(before, dict):
            after.update((key, replaced(item)) for key, item in before.items())
        else:
            after.extend(map(replaced, before))
    _check_order(arrays.values())
    return out


def _check_order(arrays: Iterable[Stored]) -> None:
    """**Errors:** `ValueError` if one array alone is stored in the other order.

    One changed bit does this, and the array is then read as other numbers of the same size.
    """
    tables = [one for one in arrays if sum(side > 1 for side in one.shape) > 1]
    for columns in (False, True):
        alone = [one for one in tables if one.columns is columns]
        if len(alone) == 1 and len(tables) >= MANY:
            order = ("row by row", "column by column")
            raise ValueError(
                f"an array of shape {alone[0].shape} is stored {order[columns]} and the other "
                f"{len(tables) - 1} {order[not columns]}, as after one changed bit (if it was "
                "written so, write all of them in one order)"
            )
