"""What a command costs before it works: processor time beside `import numpy` and `import jax`.

    uv run python benchmarks/start.py

**Claim.** Help, wrong arguments, `inspect`, `report` and `doctor --help` cost at most twice the
processor time of `python -c "import numpy"`.

**Method.** Each in a process of its own, in turn, `--repeats` times after one; processor seconds
of the process and its children, median, and the ratio to `import numpy`. `report` builds the page
of an evaluation folder (`--report DIR`), if one is given. docs/performance.md has the table.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import thinkslow
from thinkslow.cli import COMMANDS

AGENT = str(Path(thinkslow.__file__).parent / "zoo" / "collect-half")
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
    given = parser.parse_args()
    calls = {name: [sys.executable, *words] for name, words in PYTHON.items()}
    lines = [["--help"], *([name, "--help"] for name in COMMANDS), *WRONG, ["inspect", AGENT]]
    if given.report:
        lines.append(["report", str(given.report)])
    program = str(Path(sys.executable).parent / "thinkslow")
    calls |= {" ".join(words[:2]).replace(AGENT, "AGENT"): [program, *words] for words in lines}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + given.repeats):
        for name, call in calls.items():
            times[name].append(processor_s(call))
    middle = {name: float(np.median(found[1:])) for name, found in times.items()}
    print("| command | processor s | of `import numpy` |\n|---|---|---|")
    for name, seconds in middle.items():
        print(f"| `{name}` | {seconds:.2f} | {seconds / middle['import numpy']:.1f} |")


def processor_s(call: list[str]) -> float:
    before = os.times()
    subprocess.run(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user + after.children_system - before[2] - before[3]


if __name__ == "__main__":
    main()
