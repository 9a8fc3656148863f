"""The choices of arms at the moments of a bank, and their values, without further play."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.agent import Agent
from thinkslow.agent.gates import Gated, GateScore
from thinkslow.agent.thinking import Thinking
from thinkslow.bank.stored import Bank, Moments, carried
from thinkslow.evaluation.records import BASE
from thinkslow.needs import unmet

Show = Callable[[str, int, int], None]

PURPOSE = 0x1D6E


class Choices(NamedTuple):
    """The decisions of arms at every moment of a bank."""

    episode: Int[np.ndarray, " moments"]
    returns: Float[np.ndarray, "moments actions futures"]
    """Discounted returns of the futures of each action."""
    base: Float[np.ndarray, "moments actions"]
    """How often the base agent takes each action."""
    shifts: dict[str, Float[np.ndarray, "moments actions"]]
    """By arm, how much more often it takes each action than the base agent under the same random
    numbers. For arms that return probabilities, their difference is used.
    """
    changed: dict[str, Float[np.ndarray, " moments"]]
    """By arm, the share of draws in which it takes another action."""
    doubts: dict[str, Float[np.ndarray, " moments"]]
    """By arm that has a gate, its score."""
    shares: dict[str, float]
    """By arm that has a gate, the share of decisions in which it should open."""
    scores: dict[str, Float[np.ndarray, " moments"]]
    """By score, its value at each moment without thinking."""
    imagined: dict[str, Float[np.ndarray, "moments actions"]]
    """By arm that compares actions, its imagined advantages."""
    policy: dict[str, Float[np.ndarray, "moments actions"]]
    """By arm that compares actions, the policy's probabilities."""
    value: Float[np.ndarray, " moments"]
    """The critic's value of the moment; NaN without a critic."""
    lived: Float[np.ndarray, " moments"]
    """Its target: the rewards of the policy's own actions, then the value after them."""


def refusal(agent: AbstractAgent, bank: Bank) -> str | None:
    """Why an arm cannot be judged on a bank; None if it can."""
    if agent.inner is None:
        return "it is not an `Agent`, so its carry is unknown"
    if not bank.header.enumerated:
        return (
            "its actions cannot all be tried, so the actions of an arm are not in the bank. Its "
            "imagined advantages are still judged"
        )
    settings = agent.inner.settings
    if settings.lag or settings.particles > 1 or settings.futures > 1:
        return "it carries more of the past than the base agent, whose carry the bank holds"
    return None


def lacking(agent: Agent, score: GateScore) -> str | None:
    """Why a score does not work with an agent; None if it does."""
    return unmet(agent.model, score.needs, agent.members)


def judge(
    bank: Bank,
    arms: Mapping[str, AbstractAgent],
    *,
    scores: Mapping[str, GateScore] | None = None,
    draws: int = 4,
    discount: float = 1 - 1 / 333,
    seed: int = 0,
    show: Show = lambda *_: None,
) -> Choices:
    """Let every arm decide at every moment.

    Args:
        bank: the bank of the base agent.
        arms: agents by name; `none` is the base agent itself. A gate need not be calibrated: its
            threshold follows from the scores of these moments.
        scores: scores of gates, which are compared by the moments that they choose.
        draws: decisions of each arm at each moment, with different random numbers.
        discount: the discount of later rewards.
        seed: the seed of these random numbers.
        show: called with the progress.

    **Cost:** `draws` decisions of each arm a moment; memory for some numbers a moment.

    **Errors:** `ValueError` without the arm `none`, or for an arm that cannot be judged, saying
    why; `Damaged` for files that are not what was written.
    """
    if BASE not in arms:
        raise ValueError(f"The arms must include `{BASE}`, the baseline; got {', '.join(arms)}.")
    for name, agent in arms.items():
        if agent.inner is None or (bank.header.enumerated and refusal(agent, bank)):
            raise ValueError(f"`{name}` cannot be judged on a bank: {refusal(agent, bank)}.")
    base = arms[BASE].inner
    assert base is not None
    for name, score in (scores or {}).items():
        if (reason := lacking(base, score)) is not None:
            raise ValueError(f"`{name}` does not work with this agent: {reason}.")
    judged = [
        _Judge(bank, base, arms, scores or {}, draws, discount, seed).of(part)
        for part in _shown(bank, show)
    ]
    return Choices(*(_joined(parts) for parts in zip(*judged, strict=True)))


def _shown(bank: Bank, show: Show) -> Any:
    total = len(bank.index)
    for done, part in enumerate(bank.parts()):
        show("judging" if done else "judging, compiling once", done, total)
        yield part
    show("judging", total, total)


def _joined(parts: tuple) -> Any:
    first = parts[0]
    if isinstance(first, dict):
        return {
            key: first[key]
            if isinstance(first[key], float)
            else np.concatenate([part[key] for part in parts])
            for key in first
        }
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class _Judge:
    """One file of moments after the other, padded to one shape so that nothing compiles again."""

    bank: Bank
    base: Agent
    arms: Mapping[str, AbstractAgent]
    scores: Mapping[str, GateScore]
    draws: int
    discount: float
    seed: int

    def of(self, part: Moments) -> Choices:
        kept = slice(0, len(part))
        rows = np.minimum(np.arange(self.bank.header.batch), len(part) - 1)
        given = self._given(part, rows)
        actions = part.actions[rows]
        listed = np.arange(actions.shape[1])
        own = _which(actions, self._acted(self.base, given)[0])
        base = (own[:, :, None] == listed).mean(1)
        shifts, changed, doubts, imagined, policy = {}, {}, {}, {}, {}
        shares: dict[str, float] = {}
        for name, agent in self.arms.items():
            if name == BASE:
                continue
            acting = agent.agent if isinstance(agent, Gated) else agent
            found, thought = self._acted(acting, given)
            taken = _which(actions, found)
            changed[name] = (taken != own).mean(1)[kept]
            shift = (taken[:, :, None] == listed).mean(1) - base
            if isinstance(agent, Gated):
                shares[name] = float(agent.share or 1.0)
                doubts[name] = self._doubt(agent, agent.score, given)[kept]
            chosen = getattr(thought, "chosen", None)
            if chosen is not None:
                imagined[name] = self._mean(chosen.advantages)[kept]
                policy[name] = self._mean(jnp.exp(chosen.log_probs))[kept]
                if not self.base.greedy:
                    shift = self._mean(jnp.exp(chosen.improved) - jnp.exp(chosen.log_probs))
            shifts[name] = shift[kept]
        scores = {
            name: self._doubt(None, score, given)[kept] for name, score in self.scores.items()
        }
        returns = part.returns(self.discount)
        return Choices(
            part.episode,
            returns,
            base[kept],
            shifts,
            changed,
            doubts,
            shares,
            scores,
            imagined,
            policy,
            part.value,
            self._lived(part, base[kept]),
        )

    def _given(self, part: Moments, rows: np.ndarray) -> tuple:
        """Carry, observation, first-step flag and keys, for each draw of each moment."""
        many = np.repeat(rows, self.draws)
        carry = carried(self.base.start(1), [array[many] for array in part.carry])
        seen = {name: array[many] for name, array in part.observation.items()}
        keys = _keys(
            self.seed,
            jnp.array(part.environment_seed[rows], jnp.uint32),
            jnp.array(part.decision[rows]),
            self.draws,
        )
        return carry, seen, part.is_first[many], keys

    def _acted(self, agent: AbstractAgent, given: tuple) -> tuple[np.ndarray, Any]:
        carry, seen, first, keys = given
        _, action, thought = agent.act(carry, seen, first, keys=keys)
        return self._apart(action), thought

    def _apart(self, array: Any) -> np.ndarray:
        """Moments and draws on axes of their own."""
        plain = np.asarray(array)
        return plain.reshape(-1, self.draws, *plain.shape[1:])

    def _mean(self, array: Any) -> np.ndarray:
        return self._apart(array).mean(1)

    def _doubt(self, gate: Gated | None, score: GateScore, given: tuple) -> np.ndarray:
        """The score of each moment, as a mean over draws."""
        thinking = gate.agent if gate is not None else _thinking(self.base)
        carry, seen, first, keys = given
        closed = Gated(thinking, score, float("inf"))
        doubt = closed.act(carry, seen, first, keys=keys)[2].doubt
        return self._mean(doubt)

    def _lived(self, part: Moments, base: np.ndarray) -> np.ndarray:
        """Rewards of the base agent's own actions, then the critic's value of the final state."""
        horizon = part.rewards.shape[-1]
        whole = part.returns(self.discount) + self.discount**horizon * part.value_end
        known = np.isfinite(whole)
        mean = np.where(known, whole, 0.0).sum(-1) / np.maximum(known.sum(-1), 1)
        # Unknown if an action that is taken was cut in every future.
        gone = (base > 0) & ~known.any(-1)
        return np.where(gone.any(1), np.nan, (base * mean).sum(1))


def _thinking(base: Agent) -> Agent:
    """A thinking agent, for a gate that never opens."""
    from thinkslow.objectives import Entropy

    return base.having(Thinking({Entropy(): 1.0}, steps=1, horizon=1))


def _which(
    actions: Float[np.ndarray, "moments actions action"],
    taken: Float[np.ndarray, "moments draws action"],
) -> Int[np.ndarray, "moments draws"]:
    """The index of each action."""
    apart = np.abs(taken[:, :, None] - actions[:, None]).sum(-1)
    return apart.argmin(-1)


def _keys(seed: int, seeds: Array, decisions: Array, draws: int) -> Array:
    """Keys of each draw of each moment, `[moments * draws]`; the same for every arm."""
    key = jr.fold_in(jr.key(seed), PURPOSE)

    def one(seed: Array, decision: Array) -> Array:
        return jr.split(jr.fold_in(jr.fold_in(key, seed), decision), draws)

    return jax.vmap(one)(seeds, decisions).reshape(-1)


def opened(doubts: Float[np.ndarray, " moments"], share: float) -> Bool[np.ndarray, " moments"]:
    """Where a gate that opens for a share of these moments is open; NaN opens none."""
    ranked = np.where(np.isnan(doubts), -np.inf, doubts)
    count = round(share * len(ranked))
    out = np.zeros(len(ranked), bool)
    out[np.argsort(-ranked, kind="stable")[:count]] = True
    return out & ~np.isnan(doubts)
