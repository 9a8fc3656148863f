"""The steps of every protocol for a block of episodes: prepare the agent, record the episodes, and
stop if most of them failed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from thinkslow.agent.agent import AbstractAgent
from thinkslow.agent.clean import Clean
from thinkslow.envs import VectorEnv
from thinkslow.evaluation import records
from thinkslow.evaluation.calibrate import calibrated_in
from thinkslow.evaluation.clean import measured_clean, wants_clean, with_clean
from thinkslow.evaluation.play import Played
from thinkslow.evaluation.records import Episode, Header


class Failing(RuntimeError):
    """Most episodes of an arm ended because the environment failed."""


def prepared(
    agent: AbstractAgent, name: str, envs: VectorEnv, header: Header, cleans: dict[str, Clean]
) -> AbstractAgent:
    """The calibrated agent. The measurements are made once for all its arms."""
    if wants_clean(agent):
        if name not in cleans:
            cleans[name] = measured_clean(
                agent, header.environment, header.seed, envs.count,
                max_decisions=header.max_decisions,
            )  # fmt: skip
        agent = with_clean(agent, cleans[name])
    return calibrated_in(agent, envs, header.seed, max_decisions=header.max_decisions)


def record(
    name: str, arm: str, number: int, training_seed: int | None, played: Played,
    images: Mapping[str, float | None], *, deadline_ms: float | None,
) -> Episode:  # fmt: skip
    low, middle, high = np.percentile(played.latency_ms, [10, 50, 90])
    late = (
        None if deadline_ms is None else float(np.mean(np.array(played.latency_ms) > deadline_ms))
    )
    return Episode(
        agent=name, arm=arm, episode=number, environment_seed=played.environment_seed,
        training_seed=training_seed, score=records.finite(played.score),
        rewards_size=records.finite(played.rewards_size), length=played.length,
        crashed=played.crashed, error=played.error, cut=played.cut, nonfinite=played.nonfinite,
        nonfinite_first=played.nonfinite_first, first_observation=played.first_observation,
        thought_share=played.thoughts / played.length,
        belief_kl=records.finite(played.moved / played.length),
        latency_ms=float(middle), latency_ms_mean=float(np.mean(played.latency_ms)),
        latency_ms_p10=float(low), latency_ms_p90=float(high), late_share=late,
        images={column: records.finite(value) for column, value in images.items()},
    )  # fmt: skip


def stop_if_failing(
    played: Sequence[Episode], name: str, arm: str, header: Header, folder: Path
) -> None:
    """**Errors:** `Failing` if more than half of an arm's episodes have failed."""
    failed = [one for one in played if (one.agent, one.arm) == (name, arm) and one.crashed]
    if 2 * len(failed) > header.episodes:
        raise Failing(
            f"{header.environment['id']} failed in {len(failed)} of {header.episodes} episodes of "
            f"{name}, {arm}: {failed[-1].error or 'its process died'}. Fix the environment, then "
            f"evaluate in another folder. The episodes so far are in {folder}."
        )
