"""Put an agent of a training run into the package.

    python -m thinkslow.zoo.bundle RUN STEPS NAME

Weights become float16; the run's learning curve, the command that made it and the revision that
it ran with go into the manifest.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkslow.dreamer import checkpoint
from thinkslow.dreamer.config import train_preset
from thinkslow.learning import read_curve
from thinkslow.zoo import FOLDER


def bundle(run: Path, steps: int, name: str) -> Path:
    """Copy `RUN/agents/STEPS` to the zoo as `name`; returns the new folder."""
    saved = checkpoint.load(run / "agents" / str(steps))
    training = saved.manifest["training"]
    made = {
        "command": f"thinkslow train {saved.environment['id']} --preset {training['preset']} "
        f"--seed {training['seed']} --steps {steps}{_settings(training)}",
        "revision": saved.manifest["revision"],
        "versions": saved.manifest["versions"],
        "curve": read_curve(run / "metrics.jsonl"),
    }
    checkpoint.save(
        FOLDER / name, saved.model, name=name, environment=saved.environment,
        training=training | made, dtype="float16",
    )  # fmt: skip
    return FOLDER / name


def _settings(training: Mapping[str, Any]) -> str:
    """The flags by which the run learned otherwise than its preset."""
    preset = dataclasses.asdict(train_preset(training["preset"]))
    return "".join(
        f" --learning.{name.replace('_', '-')} {value}"
        for name, value in training["configuration"].items()
        if value != preset[name] and name != "return_percentiles"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("name")
    given = parser.parse_args()
    print(bundle(given.run, given.steps, given.name))


if __name__ == "__main__":
    main()
