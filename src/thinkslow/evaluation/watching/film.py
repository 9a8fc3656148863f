"""The episode as a video: the real frames, decoded without thinking, and decoded by every other
arm.
"""

from collections.abc import Sequence
from pathlib import Path

from thinkslow.evaluation.images import as_bytes
from thinkslow.evaluation.records import BASE
from thinkslow.evaluation.video import Video, framed
from thinkslow.evaluation.watching import seeing
from thinkslow.evaluation.watching.episode import Episode

WIDTH = {".mp4": 800, ".gif": 560}
"""Largest total width in pixels, as far as integer factors allow, because a GIF is large."""
WIDEST = 256


class Film:
    """Writes frames as they are decoded. The file exists after `close`.

    Args:
        path: `.mp4` or `.gif`.
        episode: the played episode.
        parts: the shown parts; one must be an image.
    """

    def __init__(self, path: Path, episode: Episode, parts: seeing.Parts):
        self._episode, self._images = episode, list(parts.images)
        self._decoded = [name for name in self._images if name in parts.decoded]
        self._width = WIDTH[path.suffix]
        self._video = Video(path)
        self.close, self.drop = self._video.close, self._video.drop
        self._score = 0.0
        self.count = 0

    def add(self, number: int, shown: seeing.Shown | None) -> None:
        """Write the frame of one decision; without a decoder, `shown` is empty."""
        pictures, labels = [], []
        several = len(self._images) > 1
        for name in self._images:
            pictures.append(self._episode.frames[number][name])
            labels.append(f"{name} that came" if several else "what came")
            for arm in self._order() if shown is not None and name in self._decoded else ():
                assert shown is not None
                pictures.append(as_bytes(shown.now[arm][name]))
                labels.append("without thinking" if arm == BASE else arm)
        line = f"decision {number + 1}, score {self._score:g}"
        side = max(48, min(WIDEST, self._width // len(pictures)))
        self._video.add(framed(pictures, line, labels, side=side))
        self._score += self._episode.rewards[number]
        self.count += 1

    def _order(self) -> Sequence[str]:
        arms = list(self._episode.thoughts)
        return sorted(arms, key=lambda arm: arm != BASE)
