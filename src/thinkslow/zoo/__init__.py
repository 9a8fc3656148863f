"""Small trained agents that come with the package.

They have the preset `tiny` and were trained on `thinkslow/CollectGoodObjects-v0`, one training seed
at several budgets; docs/zoo.md says how. Weights are float16; evaluation computes in float32. Each
has its critic and an ensemble.
"""

from pathlib import Path

FOLDER = Path(__file__).parent

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
