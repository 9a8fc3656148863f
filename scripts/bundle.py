"""Put an agent of a training run into the package.

    ./uvw run python scripts/bundle.py RUN STEPS NAME

Weights become float16; the run's learning curve, the command that made it and the revision that it
ran with go into the manifest. Then the agent gets its ensemble, as by `thinkslow ensemble`: it
plays 4,000 decisions.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkslow.cli import ensemble
from thinkslow.dreamer.config import train_preset
from thinkslow.evaluation.curves import read_curve
from thinkslow.saved import folder as checkpoint
from thinkslow.zoo import FOLDER


def bundle(run: Path, steps: int, name: str) -> Path:
    """Make `RUN/agents/STEPS` the bundled agent `name`; returns its folder.

    **Errors:** those of `checkpoint.load`, `checkpoint.save` and of `thinkslow ensemble`.
    """
    saved = checkpoint.load(run / "agents" / str(steps), ensemble=False)
    training = saved.manifest["training"]
    made = {
        "command": f"thinkslow train {saved.environment['id']} --preset {training['preset']} "
        f"--seed {training['seed']} --steps {steps}{_settings(training)}",
        "revision": saved.manifest["revision"],
        "versions": saved.manifest["versions"],
        "curve": read_curve(run / "metrics.jsonl"),
    }
    checkpoint.save(
        FOLDER / name,
        saved.model,
        name=name,
        environment=saved.environment,
        training=training | made,
        dtype="float16",
    )
    ensemble.run(ensemble.parse([str(FOLDER / name), "--env", saved.environment["id"]]))
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
