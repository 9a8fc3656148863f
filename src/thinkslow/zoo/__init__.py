"""Small trained agents that come with the package.

They have the preset `tiny` and were trained on `thinkslow/CollectGoodObjects-v0`, one training seed
at several budgets; docs/zoo.md says how. Weights are float16; evaluation computes in float32. Each
has its critic and an ensemble.
"""

import re
from pathlib import Path

from thinkslow.registry import nearest
from thinkslow.storage.faults import Missing
from thinkslow.storage.paths import expanded

FOLDER = Path(__file__).parent

ADDRESS = re.compile(r"(?P<kind>[a-zA-Z][a-zA-Z0-9+.-]+:)/|[\w.-]+@[\w.-]+:")
"""The beginning of an address, such as `https:/` (a path keeps one of its slashes) or `git@host:`.
"""

DEMO = ("collect-half", "collect-good")
"""The two agents of the demo."""


def names() -> list[str]:
    """The names of all bundled agents."""
    return sorted(path.name for path in FOLDER.iterdir() if (path / "manifest.json").exists())


def path(name: str) -> Path:
    """The folder of a bundled agent.

    **Errors:** `ValueError` for an unknown name, listing the known ones.
    """
    if name not in names():
        raise ValueError(f"A bundled agent must be one of {', '.join(names())}; got {name!r}.")
    return FOLDER / name


def located(source: str | Path) -> Path:
    """The path of an agent. A text that is not a path is the name of a bundled agent; `~` is the
    home folder.

    **Errors:** `FileNotFoundError` if neither exists.
    """
    address = ADDRESS.match(str(source))
    if address and not Path(source).exists():
        file = (address["kind"] or "").lower() == "file:"
        remedy = "Give the path alone" if file else "Download it, and give the path of that"
        raise Missing(
            f"An agent is a folder, a file or a bundled name on this machine; {str(source)!r} is "
            f"an address. {remedy}."
        )
    found = expanded(source)
    if found.exists():
        return found
    known = names()
    if str(source) in known:
        return FOLDER / str(source)
    raise Missing(
        f"There is no file, folder or bundled agent {str(source)!r}{nearest(str(source), known)}"
    )
