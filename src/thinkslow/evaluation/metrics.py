"""The metrics of an evaluation: one table for records, statistics, page and terminal.

A metric is a column of the records of episodes. Images have the same columns whatever their names:
`psnr` is the PSNR of the image, or the mean over all images if there are several. With several
images, each also has its own columns, such as `left/psnr`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

from thinkslow.plural import plural

Direction = Literal["higher is better", "lower is better", ""]
Format = Literal["estimate", "percent"]

AHEAD = (1, 3, 8)
"""Steps ahead of the open-loop predictions that are scored."""
IMAGE = ("psnr", "ssim", "mse")
"""Measures of an image against the real one, as `images.compared` names them."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """One column of the records, and how it is read, compared and shown."""

    name: str
    """Name of the column."""
    label: str
    what: str
    """A description in one sentence."""
    unit: str = ""
    direction: Direction = ""
    format: Format = "estimate"
    effect: str | None = None
    """The column by which arms are compared; None: arms are not compared."""
    of_states: bool = False
    """Whether it describes the state that acted, not the episode."""

    @property
    def higher(self) -> bool:
        """Whether a larger value is an improvement."""
        return self.direction != "lower is better"


def ahead(measure: str, steps: int) -> str:
    """The column of a measure of the prediction this many steps ahead.

    >>> ahead("psnr", 3), gain("psnr"), gain("psnr", 3)
    ('psnr_ahead_3', 'psnr_gain', 'psnr_gain_ahead_3')
    """
    return f"{measure}_ahead_{steps}"


def gain(measure: str, steps: int = 0) -> str:
    """The column of the difference to the state without thinking, on the same frames."""
    return ahead(f"{measure}_gain", steps) if steps else f"{measure}_gain"


_IMAGE: dict[str, tuple[str, str, Direction]] = {
    "psnr": ("PSNR", "dB", "higher is better"),
    "ssim": ("SSIM", "", "higher is better"),
    "mse": ("MSE", "", "lower is better"),
}


def _of_images() -> Iterable[Metric]:
    for measure, (label, unit, direction) in _IMAGE.items():
        yield Metric(
            measure,
            label,
            "the present frame, decoded from the state that acted",
            unit,
            direction,
            effect=gain(measure),
            of_states=True,
        )
    for measure, (label, unit, direction) in _IMAGE.items():
        for steps in AHEAD:
            yield Metric(
                ahead(measure, steps),
                f"{label} {plural(steps, 'step')} ahead",
                "the open-loop prediction under the actions really taken",
                unit,
                direction,
                effect=gain(measure, steps) if measure == "psnr" else None,
                of_states=True,
            )


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "score",
            "Score",
            "sum of the rewards of an episode",
            "",
            "higher is better",
            effect="score",
        ),
        Metric(
            "length",
            "Episode length",
            "decisions until an episode ended",
            "decisions",
            effect="length",
        ),
        *_of_images(),
        Metric("latency_ms", "Milliseconds per decision", "of one call for the batch", "ms"),
        Metric(
            "thought_share", "Thought", "share of the decisions with thinking", format="percent"
        ),
        Metric("belief_kl", "Belief moved", "KL of the belief after and before thinking", "nats"),
    )
}
"""Every metric by the name of its column, in the order of the page."""


def metric(name: str) -> Metric:
    """The metric of a column. A metric that is not in the table keeps its own name.

    >>> metric("left/psnr").label, metric("left/psnr").effect, metric("reward_nll").label
    ('PSNR of left', 'left/psnr_gain', 'reward nll')
    """
    if name in METRICS:
        return METRICS[name]
    image, _, column = name.rpartition("/")
    if image and column in METRICS:
        known = METRICS[column]
        effect = None if known.effect is None else f"{image}/{known.effect}"
        return dataclasses.replace(
            known, name=name, label=f"{known.label} of {image}", effect=effect
        )
    return Metric(name, name.replace("_", " "), "")


def image_columns() -> tuple[str, ...]:
    """The columns that one scored image fills."""
    return tuple(
        column
        for steps in (0, *AHEAD)
        for measure in IMAGE
        for column in (ahead(measure, steps) if steps else measure, gain(measure, steps))
    )


def scored(several: Iterable[str]) -> list[Metric]:
    """The metrics of an evaluation of these images: those of the table, and of several images
    each on its own too."""
    names = list(several)
    own = [
        metric(f"{image}/{name}")
        for image in (names if len(names) > 1 else ())
        for name, known in METRICS.items()
        if known.of_states
    ]
    return [*METRICS.values(), *own]
