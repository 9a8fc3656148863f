"""Train with `thinkslow train` and log the resident memory: does it grow once the replay is full?

Claim: after a warm-up of ten minutes, in which the replay fills, resident memory grows by less
than 1% in two hours, though the run goes on saving, logging and beginning episodes.

Method: one call of `thinkslow train` with the arguments after `--`, in a new folder. Every 30 s:
resident memory of the training process and of the processes of its environments (VmRSS), and
the number of decisions. Growth is from the median of the first quarter of an hour after the
warm-up to that of the last. Pass a `--learning.replay-capacity` that the warm-up fills: until it
is full, the replay takes memory for each decision, as it should.

Reproduce: `uv run python scripts/training_memory.py --minutes 125 --out memory.csv -- ENV
--learning.replay-capacity N ...`. The exit code is 1 if memory grew by 1% or more.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EVERY_S = 30.0
WARM_S, SPAN_S = 600.0, 900.0
LIMIT = 0.01


def resident_mib(process: int) -> float:
    """0 for a process that is gone."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return int(text.split("VmRSS:")[1].split()[0]) / 1024 if "VmRSS:" in text else 0.0


def children(process: int) -> list[int]:
    paths = Path(f"/proc/{process}/task").glob("*/children")
    return [int(one) for path in paths for one in path.read_text().split()]


def decisions(run: Path) -> int:
    """Of the last line that says them."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        lines = file.read().splitlines()[1:-1]
    return max((json.loads(line).get("step", 0) for line in lines), default=0)


def growth(rows: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Medians of the first and the last span after the warm-up, and the growth between them.

    **Errors:** `ValueError` if they would overlap.
    """
    last = rows[-1][0]
    if last < WARM_S + 2 * SPAN_S:
        raise ValueError(
            f"Growth needs {(WARM_S + 2 * SPAN_S) / 60:.0f} minutes or more; got {last / 60:.0f}."
        )
    first = statistics.median(mib for at, mib in rows if WARM_S <= at <= WARM_S + SPAN_S)
    end = statistics.median(mib for at, mib in rows if at >= last - SPAN_S)
    return first, end, end / first - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=125)
    parser.add_argument("--out", type=Path, default=Path("memory.csv"))
    parser.add_argument("arguments", nargs="+", help="of `thinkslow train`, after --")
    given = parser.parse_args()
    run = Path(tempfile.mkdtemp(prefix="memory-")) / "run"
    command = [
        str(Path(sys.executable).parent / "thinkslow"),
        "train",
        *given.arguments,
        "--minutes",
        str(given.minutes),
        "--run",
        str(run),
    ]
    trainer = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ))
    rows: list[tuple[float, float, float]] = []
    begun, done = 0.0, 0
    with given.out.open("w") as file:
        print(*command, file=sys.stderr)
        print("seconds,training,environments,decisions", file=file, flush=True)
        while trainer.poll() is None:
            time.sleep(EVERY_S if begun else 0.1)
            done = decisions(run)
            if not begun and not done:
                continue  # compiling
            begun = begun or time.monotonic()
            own, others = resident_mib(trainer.pid), map(resident_mib, children(trainer.pid))
            row = (time.monotonic() - begun, own, sum(others))
            print(f"{row[0]:.0f},{own:.1f},{row[2]:.1f},{done}", file=file, flush=True)
            if own and row[2]:
                rows.append(row)
    if trainer.returncode:
        sys.exit(f"Training failed ({trainer.returncode}).")
    worst = 0.0
    for name, column in (("training process", 1), ("environments", 2)):
        first, end, grown = growth([(row[0], row[column]) for row in rows])
        worst = max(worst, grown)
        print(f"{name}: {first:.1f} MiB, then {end:.1f} MiB ({100 * grown:+.2f}%)")
    print(f"{done:,} decisions in {rows[-1][0] / 60:.0f} minutes")
    return worst >= LIMIT


if __name__ == "__main__":
    sys.exit(main())
