"""Draws docs/images/curves-*.svg: scores against lost and late frames, from the study `missing`.

    uv run thinkslow study missing
    uv run python docs/images/curves.py out/study/missing/result.json

Mean score of 40 episodes with its 95% interval, against the share of frames that are lost one by
one, the share lost in bursts of five, and the delay in decisions.
"""

import json
import sys
from pathlib import Path

from svg import COLOURS, Plot

ARMS = ("none", "control-hold", "predict-through", "predict-through-16")
LATE = ("none", "control-stale", "predict-through")
SHARES, DELAYS = (0, 0.25, 0.5, 0.75), (0, 1, 2, 3, 4, 5)
KINDS = {
    "lost": (SHARES, "share of frames lost, one by one", ARMS),
    "bursts": (SHARES, "share of frames lost, in bursts of five", ARMS),
    "late": (DELAYS, "delay of every frame, decisions", LATE),
}


def main() -> None:
    cells = json.loads(Path(sys.argv[1]).read_text())["cells"]
    scores = {(cell["setting"], arm["arm"]): arm["score"] for cell in cells for arm in cell["arms"]}
    top = max(score["interval"][1] for score in scores.values())
    for kind, (doses, title, arms) in KINDS.items():
        plot = Plot((0, doses[-1] * 1.05), (0, top))
        plot.axes(doses, range(0, int(top) + 1, 5), title, "score")
        settings = ["clean", *(f"{kind}-{f'{dose:g}'.removeprefix('0')}" for dose in doses[1:])]
        for index, (arm, colour) in enumerate(zip(arms, COLOURS, strict=False)):
            # Side by side, so that intervals do not hide each other.
            places = [dose + (index - 1) * doses[-1] * 0.008 for dose in doses]
            found = [scores[setting, arm] for setting in settings]
            plot.line([(x, one["mean"]) for x, one in zip(places, found, strict=True)], colour)
            for x, one in zip(places, found, strict=True):
                plot.line([(x, end) for end in one["interval"]], colour, width=1)
                plot.dot(x, one["mean"], colour)
            plot.text(plot.width - 20, 44 + 18 * index, arm, "end", colour)
        plot.save(Path(__file__).with_name(f"curves-{kind}.svg"))


if __name__ == "__main__":
    main()
