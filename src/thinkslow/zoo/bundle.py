"""Put an agent of a training run into the package.

    python -m thinkslow.zoo.bundle RUN STEPS NAME

Weights become float16; the run's learning curve, the command that made it and the revision that
it ran with go into the manifest.
"""

import argparse
from pathlib import Path

from thinkslow.dreamer import checkpoint
from thinkslow.learning import read_curve
from thinkslow.zoo import FOLDER


def bundle(run: Path, steps: int, name: str) -> Path:
    """Copy `RUN/agents/STEPS` to the zoo as `name`; returns the new folder."""
    saved = checkpoint.load(run / "agents" / str(steps))
    made = {
        "command": f"thinkslow train {saved.environment['id']} --steps {steps} --budgets {steps} "
        f"--preset {saved.manifest['training']['preset']} "
        f"--seed {saved.manifest['training']['seed']}",
        "revision": saved.manifest["revision"],
        "versions": saved.manifest["versions"],
        "curve": read_curve(run / "metrics.jsonl"),
    }
    training = saved.manifest["training"] | made
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
