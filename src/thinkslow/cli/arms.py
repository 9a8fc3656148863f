"""`thinkslow arms`: the names of arms and of their parts."""

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from thinkslow import registry
from thinkslow.agent.arms.presets import DEFAULT
from thinkslow.cli.common import Common
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.usage import Usage
from thinkslow.names import KINDS

OTHERS = ("arm", "importer", "architecture")
WAYS = ("arm", *(kind for kind in KINDS if kind not in OTHERS))
"""The kinds of what a way to think consists of."""
DESCRIPTION = """List the arms and their parts.

An arm is a way to think. Each part can be changed: the terms of the objective, the update that
moves the belief, the readout of a latent, the gate that decides when to think. A name may have
arguments: evidence:beta=1, best-of:8, langevin:step_size=10.

examples:
  thinkslow arms
  thinkslow arms evidence
  thinkslow arms --import my_terms.py --json"""

TITLES = {
    "arm": "Arms (--arms NAME,NAME); * is played by default",
    "term": "Terms (--terms NAME,0.5*NAME)",
    "update": "Updates (--update NAME)",
    "readout": "Readouts (--readout NAME, --latent NAME)",
    "choice": "Choices of the action (--choice NAME)",
    "gate": "Gates (--gate NAME)",
    "check": "Checks of a frame (--check NAME)",
    "members": "Plausible parameters (--members NAME:VALUE)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow arms`."""

    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[PATTERN]")] = ""
    """List only names and descriptions that contain this text, in upper or lower case."""
    imports: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="import", metavar="MODULE")
    ] = ()
    """Import this module or .py file first, and list what it registers too. Repeat the flag for
    more."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "arms", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Print the names of each kind.

    **Errors:** `Usage` if nothing contains the pattern.
    """
    part = options.pattern.lower()
    found = {
        kind: {
            name: entry.about
            for name, entry in registry.entries(kind).items()
            if part in f"{name} {entry.about}".lower()
        }
        for kind in WAYS
    }
    if not any(found.values()):
        names = [name for kind in WAYS for name in registry.entries(kind)]
        near = registry.nearest(part, names, "thinkslow arms")
        raise Usage(f"No name or description contains {options.pattern!r}{near}")
    if not options.json:
        print("\n\n".join(_text(kind, names) for kind, names in found.items() if names))
    return found


def _text(kind: str, names: dict[str, str]) -> str:
    """One line for each name; on a terminal, wrapped to its width."""
    lines = [TITLES[kind]]
    columns = min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else None
    width = max(map(len, names)) + 2
    for name, about in names.items():
        mark = "*" if kind == "arm" and name in DEFAULT else " "
        first, *more = [about]
        if columns is not None:
            first, *more = textwrap.wrap(about, max(columns - width - 3, 20)) or [""]
        lines.append(f"{mark} {name:{width}}{first}")
        lines += [" " * (width + 2) + line for line in more]
    return "\n".join(lines)
