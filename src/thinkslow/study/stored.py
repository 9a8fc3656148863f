"""`study.json`: what a study was begun with, so that it continues with the same or refuses."""

import dataclasses
from pathlib import Path

from thinkslow.storage import atomic, jsontext
from thinkslow.storage.faults import Damaged
from thinkslow.storage.reading import is_file, read_json
from thinkslow.storage.typed import built
from thinkslow.study.plan import Plan

STORED = "study.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """What a study was begun with."""

    plan: Plan
    agents: dict[str, dict[str, str]]
    """The agents of each group: paths, or bundled names, by name."""
    code: str
    """Hash of the code of this package."""
    revision: str | None
    versions: dict[str, str]
    command: str
    began: str
    """Date and time."""


def write(folder: Path, stored: Stored) -> None:
    text = jsontext.dumps(dataclasses.asdict(stored), indent=1)
    atomic.write_text(folder / STORED, text + "\n")


def read(folder: Path) -> Stored:
    """What the study in a folder was begun with.

    **Errors:** `Damaged` for a file that is no study; `FileNotFoundError` if there is none.
    """
    again = "Copy it again, or play the study in another folder."
    path = folder / STORED
    if not is_file(path):
        raise FileNotFoundError(f"{path} is missing, so {folder} holds no study.")
    found = read_json(path, "a study", again=again)
    try:
        return built(Stored, found)
    except (TypeError, ValueError) as error:
        raise Damaged(f"{path} is no study: {str(error).rstrip('.')}. {again}") from error
