"""A problem on which thinking works because the encoder is known to be wrong.

The world is a hidden Markov model with 4 states and 5 symbols, small enough that every belief is
known exactly. The agent knows the world, but its encoder is wrong: fixed noise is added to the
log-likelihoods of the symbols. Refinement by `evidence` minimises the negative ELBO of the present
symbol; the minimum is Bayes' rule. The score of an episode is the probability that the agent gives
to the true state, in percent, averaged over the steps. Every arm sees the same symbols.

The records are those of an evaluation, in a folder of their own.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent.abstract import About, AbstractAgent
from thinkslow.agent.agent import Agent
from thinkslow.evaluation import records, subjects
from thinkslow.evaluation.play import decision_keys
from thinkslow.evaluation.records import BASE, Episode, Header
from thinkslow.evaluation.report.beside import BEST
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.saved.provenance import provenance
from thinkslow.storage import atomic
from thinkslow.toy import Problem, filtered, hidden_markov, noisy, simulate
from thinkslow.trees import put

PROTOCOL = "known-v1"
STATES = 4
ARMS = (BASE, "evidence", "control-random")
STEPS = 30
"""Number of symbols of an episode."""
ERROR = 2.0
"""Standard deviation of the noise in the encoder's logits."""
AGENT = "wrong encoder"


def play(folder: Path, *, episodes: int = 40, seed: int = 0, command: str = "") -> Path:
    """Play every arm and write the records to `folder`, which must not exist yet.

    **Cost:** a few seconds, mostly compiling.
    """
    problem = hidden_markov(STATES)
    base = Agent(noisy(problem, ERROR), about=About(name=AGENT))
    agents = {name: base.thinking(name) for name in ARMS}
    seeds = [episode_seed(seed, number) for number in range(episodes)]
    truth, symbols = _world(problem, seeds)
    made = provenance()
    best = jax.vmap(lambda shown: filtered(problem, jnp.zeros(STEPS, int), shown).beliefs)(symbols)
    header = Header(
        protocol=PROTOCOL,
        environment={
            "id": f"a hidden Markov model of {STATES} states",
            BEST: float(_percent(best, truth).mean()),
        },
        agents=[subjects.facts(AGENT, agents)],
        arms=[subjects.settings(AGENT, name, agent) for name, agent in agents.items()],
        episodes=episodes,
        seed=seed,
        batch=episodes,
        max_decisions=None,
        pool=False,
        versions=made["versions"],
        images={},
        curves={},
        sittings=[{"command": command, "revision": made["revision"]}],
    )
    played = [
        one
        for name, agent in agents.items()
        for one in _episodes(name, agent, seeds, truth, symbols)
    ]
    with atomic.folder(folder) as place:
        records.write_header(place, header)
        records.append(place, played)
    return folder


def _world(problem: Problem, seeds: list[int]) -> tuple[np.ndarray, jax.Array]:
    """True states and symbols `[episodes, STEPS]`."""
    keys = jax.vmap(jr.key)(jnp.array(seeds, jnp.uint32))
    still = jnp.zeros(STEPS, int)
    states, symbols = jax.vmap(lambda key: simulate(problem, still, key=key))(keys)
    return np.asarray(states), symbols


def _percent(beliefs: Any, truth: np.ndarray) -> np.ndarray:
    """Mean belief in the true state of each episode; `beliefs` is `[episodes, STEPS, states]`."""
    true = np.take_along_axis(np.asarray(beliefs, float), truth[..., None], -1)[..., 0]
    return 100 * true.mean(-1)


def _episodes(
    name: str, agent: AbstractAgent, seeds: list[int], truth: np.ndarray, symbols: jax.Array
) -> list[Episode]:
    """All episodes of one arm, played as one batch. The model is too small for its time to measure
    the cost.
    """
    count = len(seeds)
    own = put(seeds, np.uint32)
    carry = agent.start(count)
    beliefs, moved, thinks = [], [], []
    for step in range(STEPS):
        keys, seen = decision_keys(0, own, step), {"symbol": symbols[:, step]}
        first = np.full(count, step == 0)
        carry, _, thought = agent.act(carry, seen, first, keys=keys)
        beliefs.append(thought.after.soft())
        moved.append(thought.moved)
        thinks.append(thought.thinks)
    scores = _percent(np.stack(beliefs, 1), truth)
    nats, share = np.mean(moved, 0), np.mean(thinks, 0)
    return [
        Episode(
            agent=AGENT,
            arm=name,
            episode=number,
            environment_seed=seed,
            training_seed=None,
            score=float(scores[number]),
            rewards_size=float(scores[number]),
            length=STEPS,
            crashed=False,
            error=None,
            cut=False,
            nonfinite=0,
            nonfinite_first=None,
            first_observation=str(int(symbols[number, 0])),
            thought_share=float(share[number]),
            belief_kl=float(nats[number]),
            latency_ms=None,
            latency_ms_mean=None,
            latency_ms_p10=None,
            latency_ms_p90=None,
        )
        for number, seed in enumerate(seeds)
    ]
