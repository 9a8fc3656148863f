"""What the plots of these pages share: marks in the coordinates of a plot, as SVG."""

from collections.abc import Iterable, Sequence
from pathlib import Path

INK = "#777"
COLOURS = ("#2a7fb8", "#d1495b", "#3a9d5d", "#b8862a", "#8e5fb0")


class Plot:
    """A plot of `width` by `height` pixels; `x` and `y` are the ranges of its axes."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        left: int = 70,
        top: int = 30,
        width: int = 640,
        height: int = 300,
    ):
        self.width, self.height = width, height
        self.box = (left, width - 20, height - 60, top)
        self.ranges = (x, y)
        self.parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        left, right, bottom, top = self.box
        (x0, x1), (y0, y1) = self.ranges
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return left + across * (right - left), bottom + up * (top - bottom)

    def text(
        self, x: float, y: float, words: str, anchor: str = "middle", colour: str = INK
    ) -> None:
        """Words at a place in pixels."""
        self.parts.append(
            f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
        )

    def axes(
        self,
        x_ticks: Iterable[float],
        y_ticks: Iterable[float],
        x_title: str,
        y_title: str,
        form: str = "g",
    ) -> None:
        """Ticks, a thin line across at each of `y_ticks` (written as `form`), and titles."""
        left, right, bottom, top = self.box
        for tick in x_ticks:
            self.text(self.at(tick, 0)[0], bottom + 20, f"{tick:g}")
        for tick in y_ticks:
            height = self.at(0, tick)[1]
            self.text(left - 10, height + 4, f"{tick:{form}}".replace("-", "−"), "end")
            self.line([(left, height), (right, height)], width=0.4, pixels=True)
        self.text((left + right) / 2, bottom + 40, x_title)
        self.text(10, top - 14, y_title, "start")

    def line(
        self,
        points: Sequence[tuple[float, float]],
        colour: str = INK,
        *,
        width: float = 2,
        dashed: bool = False,
        pixels: bool = False,
    ) -> None:
        """Through points of the plot, or of the picture where `pixels`."""
        places = points if pixels else [self.at(*point) for point in points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dashes = ' stroke-dasharray="4 4"' if dashed else ""
        self.parts.append(
            f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="{width}"'
            f"{dashes}/>"
        )

    def dot(self, x: float, y: float, colour: str = INK) -> None:
        place = self.at(x, y)
        self.parts.append(
            f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4" fill="{colour}"/>'
        )

    def save(self, path: Path) -> None:
        body = "\n".join(self.parts)
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'font-family="sans-serif" font-size="13">\n{body}\n</svg>\n'
        )
