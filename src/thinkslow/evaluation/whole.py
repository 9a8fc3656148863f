"""Whole episodes: the protocol `paired-v1`. Every arm plays one episode for each environment seed,
block after block, and each block is written when it ends.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.envs import lateness
from thinkslow.evaluation import records, subjects
from thinkslow.evaluation.blocks import Block, Sitting
from thinkslow.evaluation.calibrate import calibrated_in, needs_calibration
from thinkslow.evaluation.pairs import UNSEEDED
from thinkslow.evaluation.play import Again, Played, Watcher, lateness_of, play, played_again
from thinkslow.evaluation.records import BASE, Episode
from thinkslow.evaluation.seeds import CALIBRATION, episode_seed
from thinkslow.evaluation.shadow import Pictures
from thinkslow.evaluation.video import Film, images_of, suffix
from thinkslow.plural import plural

log = logging.getLogger("thinkslow")

LONG = 10_000
"""Warn if an episode has not ended after this number of decisions."""
TICK = 50
"""Number of decisions between two progress reports."""


def play_all(
    sitting: Sitting, named: Mapping[str, Mapping[str, AbstractAgent]], *, video: bool
) -> None:
    """Play the missing episodes, arm by arm.

    Args:
        sitting: what is played.
        named: arms by agent, fitted to the environments.
        video: whether to write the first episode of every arm as a video.
    """
    header, done, unpaired = sitting.header, 0, False
    earlier: _Arm | None = None
    for name, arms in named.items():
        for arm, agent in arms.items():
            one = _Arm(sitting, name, arm, agent, video=video)
            for first in range(0, header.episodes, header.count):
                block = Block(sitting, name, first)
                if lacking := block.lacking(sitting.played, arm):
                    if earlier is not None and earlier is not one:
                        earlier.say_if_unrepeated(done)
                    earlier = one if earlier is None else earlier
                    new = one.play(block, lacking, done)
                    unpaired = unpaired or _say_if_unpaired(sitting, new)
                    sitting.stop_if_failing(name, arm)
                done += len(block.wanted)
                sitting.show(f"{name}: {arm}", done, header.expected)


class _Arm:
    """One arm of one agent; it is calibrated and compiled before its first block."""

    def __init__(self, sitting: Sitting, name: str, arm: str, agent: AbstractAgent, *, video: bool):
        self.sitting, self.name, self.arm, self.agent = sitting, name, arm, agent
        self.video, self.what = video, f"{name}: {arm}"
        self.ready: AbstractAgent | None = None
        self.late = 0
        """The delay of its decisions, in steps of the environment."""
        self.first: Played | None = None
        """Its first episode in this process."""

    def play(self, block: Block, lacking: Sequence[int], done: int) -> list[Episode]:
        """Play a block, write the episodes that were lacking, and return them."""
        sitting, header = self.sitting, self.sitting.header
        agent = self._prepared(done)
        if sitting.renews and self.first is None:
            sitting.envs.restart()
        pictures = sitting.pictures[self.name] if block.first == 0 else None
        scorer = block.scorer(agent)
        watchers: list[Watcher] = [scorer]
        if pictures is not None and self.arm == BASE:
            watchers.append(pictures.recorder)
        film = self._film() if self.video and block.first == 0 else None
        with contextlib.ExitStack() as stack:
            if film is not None:
                stack.callback(film.drop)
                watchers.append(film)
            played = play(
                agent,
                sitting.envs,
                block.seeds,
                header.seed,
                max_decisions=header.max_decisions,
                late=self.late,
                watchers=watchers,
                tick=self._ticking(done, len(block.wanted)),
            )
            if film is not None:
                film.close()
        self.first = played[0] if self.first is None else self.first
        found = block.rows(self.arm, agent, played, scorer.scores())
        if pictures is not None:
            if self.arm != BASE and not pictures.recorder.watched:
                _record_base(sitting, pictures)
            pictures.take(self.arm, agent)
        return sitting.keep(found, lacking)

    def say_if_unrepeated(self, done: int) -> None:
        """Play the beginning of its first episode again, once. Arms that are played one after the
        other can be compared only if the environment does not change meanwhile. If it does, but
        not in a new process, every further arm begins in new ones.
        """
        first, sitting = self.first, self.sitting
        if first is None or not first.taken:
            return
        sitting.show(f"{self.what}, its beginning once more", done, sitting.header.expected)
        again, size, count = played_again(sitting.envs, first), first.rewards_size, len(first.taken)
        if again is not None and not again.same(size):
            sitting.envs.restart()
            renewed = played_again(sitting.envs, first)
            sitting.renews = renewed is not None and renewed.same(size)
            if again.begins or sitting.renews:  # else the first observations of all are compared
                self._say_unrepeated(again, count)
        first.taken.clear()

    def _say_unrepeated(self, again: Again, count: int) -> None:
        sitting = self.sitting
        played = f"one of {self.arm}, with its seed and its first {plural(count, 'action')},"
        if not again.begins:
            found = f"one of {self.arm}, with its seed, later began with another observation"
        elif again.leads or again.now != again.before:
            found = f"{played} had rewards of {again.before:.6g}, and later of {again.now:.6g}"
        else:
            found = f"{played} led to one observation, and later to another"
        why = (
            "In a new process it does, so it keeps something from one episode to the next, such as "
            "running averages. Every further arm begins in new processes, and thus alike; its "
            "later episodes depend on its earlier ones."
            if sitting.renews
            else "It keeps something from one episode to the next, such as running averages, or "
            "draws numbers that do not follow from its seed. Arms are played one after the other, "
            "so their difference may come from this."
        )
        said = f"{sitting.envs.id} does not repeat an episode: {found}. {why}"
        log.warning("%s", said)
        sitting.header.sittings[-1]["unrepeated"] = said
        records.write_header(sitting.folder, sitting.header)

    def _prepared(self, done: int) -> AbstractAgent:
        if self.ready is None:
            also = "calibrating, " if needs_calibration(self.agent) else ""
            expected = self.sitting.header.expected
            self.sitting.show(f"{self.what}, {also}compiling once", done, expected)
            self.ready = self._in_real_time(self.sitting.prepared(self.name, self.agent))
        return self.ready

    def _in_real_time(self, agent: AbstractAgent) -> AbstractAgent:
        """The agent that knows how late its decisions are. This delay is measured and recorded."""
        header = self.sitting.header
        step_ms = header.environment.get("real_time_ms")
        if step_ms is None:
            return agent
        seed = episode_seed(header.seed, 0, purpose=CALIBRATION)
        self.late = lateness_of(agent, self.sitting.envs, seed, step_ms)
        header.sittings[-1].setdefault("late", {})[self.what] = self.late
        records.write_header(self.sitting.folder, header)
        age = lateness(header.environment.get("shift", ""))
        return subjects.awaits(agent, age + self.late)

    def _film(self) -> Film | None:
        """A recorder of the first episode; None if there is no image to show."""
        envs, folder = self.sitting.envs, self.sitting.folder
        if not (images := images_of(envs.observation_space)):
            log.warning("%s shows no image, so there is no video of it.", envs.id)
            return None
        path = records.video_file(folder, self.name, self.arm, suffix())
        return Film(path, self.agent.model, images)

    def _ticking(self, done: int, wanted: int) -> Callable[[int, int], None]:
        """Report progress inside a block, and warn about episodes that do not end."""
        header, said = self.sitting.header, 0

        def tick(decision: int, over: int) -> None:
            nonlocal said
            over = min(over, wanted)
            if decision == 1 or decision % TICK == 0 or over > said:
                what = f"{self.what}, decision {decision:,}"
                self.sitting.show(what, done + over, header.expected)
                said = over
            if decision == LONG and header.max_decisions is None:
                log.warning(
                    "%s: an episode of %s has run for %s decisions without an end. Ctrl-C stops "
                    "here; `max_decisions=N` cuts episodes.",
                    self.what,
                    header.environment["id"],
                    f"{LONG:,}",
                )

        return tick


def _record_base(sitting: Sitting, pictures: Pictures) -> None:
    """Play the base agent's first episodes again, which an earlier process played."""
    header, envs = sitting.header, sitting.envs
    most = header.max_decisions
    base = calibrated_in(pictures.arms[BASE], envs, header.seed, max_decisions=most)
    seeds = [episode_seed(header.seed, number) for number in range(envs.count)]
    play(base, envs, seeds, header.seed, max_decisions=most, watchers=[pictures.recorder])
    pictures.take(BASE, base)


def _say_if_unpaired(sitting: Sitting, new: Sequence[Episode]) -> bool:
    known = {(one.agent, one.environment_seed): one for one in sitting.played if one.arm == BASE}
    for one in new:
        base = known.get((one.agent, one.environment_seed))
        if base is not None and base.first_observation != one.first_observation:
            log.warning(
                "%s: environment seed %d began otherwise under %s than under %s, so %s. "
                "Arms will be compared as independent samples, not as pairs.",
                sitting.header.environment["id"],
                one.environment_seed,
                one.arm,
                BASE,
                UNSEEDED,
            )
            return True
    return False
