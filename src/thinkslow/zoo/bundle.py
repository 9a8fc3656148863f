"""Put an agent of a training run into the package.

    python -m thinkslow.zoo.bundle RUN STEPS NAME

Weights become float16; the run's learning curve goes into the manifest.
"""

import argparse
from pathlib import Path

from thinkslow.dreamer import checkpoint
from thinkslow.learning import read_curve
from thinkslow.zoo import FOLDER


def bundle(run: Path, steps: int, name: str) -> Path:
    """Copy `RUN/agents/STEPS` to the zoo as `name`; returns the new folder."""
    saved = checkpoint.load(run / "agents" / str(steps))
    training = saved.manifest["training"] | {"curve": read_curve(run / "metrics.jsonl")}
    checkpoint.save(
        FOLDER / name, saved.model, name=name, environment=saved.environment, training=training,
        dtype="float16",
    )  # fmt: skip
    return FOLDER / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("name")
    given = parser.parse_args()
    print(bundle(given.run, given.steps, given.name))


if __name__ == "__main__":
    main()
