"""What a command costs before it works, beside `import numpy` and `import jax`.

    uv run python benchmarks/start.py
    uv run python benchmarks/start.py --first-decision

**Claim.** Help, wrong arguments, `inspect`, `report` and `doctor --help` cost at most twice the
processor time of `python -c "import numpy"`. `evaluate` reaches its first decision, the second
time, in at most three times `python -c "import jax"`.

**Method.** Each in a process of its own, in turn, `--repeats` times after one; processor seconds
of the process and its children, median, and the ratio to `import numpy`. `report` builds the page
of an evaluation folder (`--report DIR`), if one is given. The first decision is when its action
reaches the environment: seconds by the clock from the start of the process, and processor seconds
of the process, alone and with its environments. `import jax` is timed in the same way, in turn.
docs/performance.md has the tables.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import psutil

import thinkslow
from thinkslow.cli import COMMANDS

AGENT = str(Path(thinkslow.__file__).parent / "zoo" / "collect-half")
PROGRAM = str(Path(sys.executable).parent / "thinkslow")
ARMS = ["none", "none,evidence"]
PYTHON = {"import numpy": ["-c", "import numpy"], "import jax": ["-c", "import jax"]}
WRONG = [
    ["dream"],
    ["evaluate"],
    ["demo", "--episodes", "1"],
    ["train", "some/Env-v0", "--steps", "0"],
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--report", type=Path, help="an evaluation folder")
    parser.add_argument("--first-decision", action="store_true", help="time `evaluate` alone")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, no start is a second one
    if given.first_decision:
        return first_decisions(given.repeats)
    calls = {name: [sys.executable, *words] for name, words in PYTHON.items()}
    lines = [["--help"], *([name, "--help"] for name in COMMANDS), *WRONG, ["inspect", AGENT]]
    if given.report:
        lines.append(["report", str(given.report)])
    calls |= {" ".join(words[:2]).replace(AGENT, "AGENT"): [PROGRAM, *words] for words in lines}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + given.repeats):
        for name, call in calls.items():
            times[name].append(processor_s(call))
    middle = {name: float(np.median(found[1:])) for name, found in times.items()}
    print("| command | processor s | of `import numpy` |\n|---|---|---|")
    for name, seconds in middle.items():
        print(f"| `{name}` | {seconds:.2f} | {seconds / middle['import numpy']:.1f} |")


class Timed(gym.Wrapper):
    """Writes when the first action came into the file that FIRST_DECISION names: the time, and the
    processor seconds of the parent, and of the parent and its children, until then.
    """

    def step(self, action):
        file = Path(os.environ["FIRST_DECISION"])
        if not file.exists():
            parent = psutil.Process(os.getppid())
            own, *others = map(spent_s, [parent, *parent.children()])
            file.write_text(f"{time.time()} {own} {own + sum(others)}")
        return self.env.step(action)


def spent_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def first_decisions(repeats: int) -> None:
    found: dict[str, list[list[float]]] = {name: [] for name in ("import jax", *ARMS)}
    for _ in range(1 + repeats):
        before = time.time()
        spent = processor_s([sys.executable, *PYTHON["import jax"]])
        found["import jax"].append([time.time() - before, spent, spent])
        for arms in ARMS:
            found[arms].append(first_decision_s(arms))
    middle = {name: np.median(times[1:], axis=0) for name, times in found.items()}
    print("| | s | processor s, alone | with environments | of `import jax` |\n" + "|---" * 5 + "|")
    for name, seconds in middle.items():
        ratios = ", ".join(f"{ratio:.1f}" for ratio in seconds / middle["import jax"])
        print(f"| `{name}` | {' | '.join(f'{one:.2f}' for one in seconds)} | {ratios} |")


def first_decision_s(arms: str) -> list[float]:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "time"
        words = ["collect-half", "--arms", arms, "--episodes", "2", "--max-decisions", "1"]
        words += ["--wrapper", "start:Timed", "--out", f"{place}/out"]
        before = time.time()
        subprocess.run(
            [PROGRAM, "evaluate", *words],
            cwd=Path(__file__).parent,
            env={**os.environ, "FIRST_DECISION": str(file)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        at, *spent = map(float, file.read_text().split())
        return [at - before, *spent]


def processor_s(call: list[str]) -> float:
    before = os.times()
    subprocess.run(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user + after.children_system - before[2] - before[3]


if __name__ == "__main__":
    main()
