"""Draws docs/images/growth.svg: how the time of a decision grows, from a sweep of the benchmark.

    uv run python benchmarks/decision.py --horizon 8 --sweep --json > growth.jsonl
    uv run python docs/images/growth.py growth.jsonl

Milliseconds of a thinking decision against imagined steps, refinement steps, rollouts and batch,
each line over its own first point. The dashed line is growth in proportion.
"""

import json
import sys
from pathlib import Path

from svg import COLOURS, Plot

NAMES = {
    "horizon": "imagined steps",
    "steps": "refinement steps",
    "rollouts": "rollouts",
    "batch": "batch",
}
MOST = 16


def main() -> None:
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    base = next(row for row in rows if all(row[key] == value for key, value in usual(rows).items()))
    plot = Plot((1, MOST + 4), (1, MOST))
    plot.axes((1, 2, 4, 8, 16), (1, 2, 4, 8, 16), "number", "time over that of the least")
    plot.line([(1, 1), (MOST, MOST)], dashed=True)
    for (key, name), colour in zip(NAMES.items(), COLOURS, strict=False):
        points = {row[key]: row["latency_ms"] for row in [base, *rows] if differs(row, base, key)}
        least = min(points)
        line = [(n / least, ms / points[least]) for n, ms in sorted(points.items())]
        line = [point for point in line if point[0] <= MOST]
        plot.line(line, colour)
        for point in line:
            plot.dot(*point, colour)
        x, y = plot.at(*line[-1])
        plot.text(x + 8, y + (22 if key == "rollouts" else 4), name, "start", colour)
    plot.save(Path(__file__).with_suffix(".svg"))


def usual(rows: list[dict]) -> dict:
    """What most settings of the sweep share."""
    keys = ("preset", "objective", "choice", "arm", *NAMES)
    columns = {key: [row[key] for row in rows] for key in keys}
    return {key: max(values, key=values.count) for key, values in columns.items()}


def differs(row: dict, base: dict, key: str) -> bool:
    """Whether a setting is the usual one but for `key`."""
    others = {*NAMES, "preset", "objective", "choice", "arm"} - {key}
    return all(row[other] == base[other] for other in others)


if __name__ == "__main__":
    main()
