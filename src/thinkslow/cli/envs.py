"""`thinkslow envs`: the environments that can be played here, and how to install the others."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from thinkslow.cli.common import Common
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.usage import Usage

DESCRIPTION = """List the environments that can be played here, and how to install the others.

The list has all ids of installed families, and one example of every other family. Any other
Gymnasium environment can be played too: by its id, as module:id, or as module:function.

examples:
  thinkslow envs
  thinkslow envs pong
  thinkslow envs minigrid --json"""

SHOWN = 12
"""Ids of a family in a list that was not narrowed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow envs`."""

    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[PATTERN]")] = ""
    """List only ids and families that contain this text, in upper or lower case."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "envs", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Print the families and their ids.

    **Errors:** `Usage` if nothing is found.
    """
    found = find(options.pattern)
    if not (found["families"] or found["others"]):
        absent = [one["family"] for one in find()["families"] if "install" in one]
        others = (
            f" The ids of families that are not installed are unknown: {', '.join(absent)}. "
            "`thinkslow envs` says how to install them."
            if absent
            else ""
        )
        raise Usage(
            f"No environment contains {options.pattern!r}.{others} Your own environment is played "
            "as module:id or module:function."
        )
    if not options.json:
        _show(found, all_=bool(options.pattern))
    return found


def find(pattern: str = "") -> dict[str, Any]:
    """Families and registered ids that match a part of a name.

    Simulators are imported to list their ids. If an import fails, `fault` says why.
    """
    import gymnasium

    from thinkslow.envs.families import FAMILIES
    from thinkslow.envs.requirements import (
        Unavailable,
        how_to_install,
        require_libraries,
        said,
    )

    part = pattern.lower()
    families = []
    for family in FAMILIES:
        row: dict[str, Any] = {"family": family.name, "installed": family.installed}
        ids = [family.example]
        if family.installed:
            try:
                require_libraries(family.example, family)
                family.register()
            except Unavailable as error:  # a missing system library
                row["fault"] = str(error)
            except Exception as error:  # a simulator may raise anything on import
                row["fault"] = said(error, "import")
            ids = family.ids() or ids
        else:
            row["install"] = how_to_install(family)
        if part not in family.name.lower():
            ids = [id for id in ids if part in id.lower()]
            if not ids:
                continue
        families.append(row | {"ids": ids or [family.example]})
    known = {id for family in FAMILIES for id in family.ids()}
    others = [id for id in sorted(gymnasium.registry) if id not in known and part in id.lower()]
    return {"families": families, "others": others}


def _show(found: dict[str, Any], *, all_: bool) -> None:
    for row in found["families"]:
        state = "" if row["installed"] else " (not installed)"
        print(f"{row['family']}{state}")
        for key in ("install", "fault"):
            if key in row:
                print(f"  {key}: {row[key]}")
        _list(row["ids"], all_=all_)
    if found["others"]:
        print("Registered with Gymnasium")
        _list(found["others"], all_=all_)


def _list(ids: Sequence[str], *, all_: bool) -> None:
    shown = ids if all_ else ids[:SHOWN]
    for id in shown:
        print(f"  {id}")
    if len(shown) < len(ids):
        print(f"  … and {len(ids) - len(shown)} more: thinkslow envs PATTERN")
