"""An agent that may think before it acts: model, policy, and how to refine the belief.

One decision is one compiled call for the whole batch. The random numbers of a decision come in
three independent streams (latent, action, thinking) of one key per environment, so that two
agents given the same keys differ by their thinking alone, and an agent of zero steps is the
base agent bit for bit.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from thinkslow.beliefs import (
    Cloud,
    Mixture,
    Moment,
    Window,
    perceive,
    reinferred,
    resampled,
    weighted,
)
from thinkslow.distributions import Belief
from thinkslow.joint import joint, moved
from thinkslow.objectives import Objective, check_terms, lookahead
from thinkslow.objectives.lookahead import Imagery, check_reinforce
from thinkslow.objectives.terms import NEED_MEMBERS
from thinkslow.parameters import Members
from thinkslow.refine import Direction, Gradient, Langevin, Mirror, Random, Refined, refine
from thinkslow.worldmodel import (
    Draw,
    Memory,
    Observation,
    Readout,
    State,
    WorldModel,
    read,
    surprise,
)

UpdateName: TypeAlias = Literal["gradient", "adam", "mirror", "langevin", "random"]
Knob: TypeAlias = Float[Array, ""] | float


@dataclasses.dataclass(frozen=True)
class Thinking:
    """How an agent comes to its belief, refines it, and reads a state from it.

    `lag` and `particles` use more of the real past, `steps` refine. The default does neither.
    """

    terms: tuple[tuple[str, float], ...] = ()
    """Names of `objectives.TERMS` with their weights."""
    steps: int = 0
    """Refinement steps per decision."""
    rollout: int = 3
    """Imagined steps, for terms of the future."""
    rollouts: int = 1
    """Futures to average over."""
    samples: int = 1
    """Latents to average the evidence over."""
    latent: Draw = "sample"
    """How the objective takes a latent from a belief, and so what its gradient is:
    straight-through `sample` or `mode`, the `soft` latent, relaxed `gumbel`, or `reinforce`."""
    imagery: Imagery = "mode"
    """An imagined observation: the decoder's `mode`, or a `sample` where it has a spread."""
    update: UpdateName = "gradient"
    """Plain `gradient`, `adam`, `mirror` (natural gradient), `langevin` (gradient with noise), or
    the `random` control."""
    step_size: float = 1.0
    """Factor of the update's output."""
    nats: float = 4.0
    """KL that all steps together may move the belief. Each step may move `nats / steps**2`,
    which adds up to it along a straight line, where KL grows with the square of the way."""
    temperature: float = 1.0
    """Of `langevin`'s noise."""
    accept: bool = False
    """Take a step only if the objective falls on fresh random numbers."""
    judges: int = 1
    """Draws of fresh random numbers that judge a step: of several, the mean must fall by two
    standard errors."""
    tolerance: float | None = None
    """Stop after a step that lowers the objective by less than this share of it, and once the
    nats are spent; None: make every step."""
    memory: float = 0.0
    """Let refinement move the memory too, by at most this share of its length."""
    select: Literal["last", "best"] = "last"
    """Which iterate to return."""
    readout: Readout = "sample"
    """How the state that acts is read from the belief."""
    candidates: int = 1
    """Read so many samples and keep the one that reconstructs the observation best."""
    carry: bool = True
    """Whether the refined state is carried on; otherwise it only chooses the action."""
    beta: float | None = None
    """Weight of the KL in `evidence`; None: as the model was trained."""
    free_nats: float | None = None
    """Free nats of `evidence`; None: as the model was trained."""
    lag: int = 0
    """Frames before the present that are encoded again, with soft latents between them."""
    particles: int = 1
    """Samples of the state that are carried, weighted by the evidence. Each refines its own
    belief; the action is of one drawn by weight: a mixture of their policies."""

    def __post_init__(self) -> None:
        check_terms(dict(self.terms))
        for name in ("steps", "lag"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more; got {getattr(self, name)}.")
        if self.steps and not self.terms:
            raise ValueError("`steps` needs at least one term to descend; got none.")
        for name in ("rollout", "rollouts", "samples", "candidates", "judges", "particles"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be 1 or more; got {getattr(self, name)}.")
        for name in ("step_size", "nats", "temperature", "memory", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"`{name}` must be 0 or more; got {value}.")
        choices = {
            "update": ("gradient", "adam", "mirror", "langevin", "random"),
            "select": ("last", "best"),
            "latent": ("sample", "mode", "soft", "gumbel", "reinforce"),
            "readout": ("sample", "mode", "soft"), "imagery": ("mode", "sample"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(allowed)}; got {getattr(self, name)!r}."
                )
        if self.latent == "reinforce":
            check_reinforce(dict(self.terms), self.rollouts, self.samples)
        if self.candidates > 1 and self.readout != "sample":
            raise ValueError(
                f"`candidates` are samples, so `readout` must be 'sample'; got {self.readout!r}."
            )
        if self.particles > 1:
            plain = {
                "readout": "sample", "candidates": 1, "carry": True, "lag": 0, "memory": 0.0,
            }  # fmt: skip
            for name, value in plain.items():
                if getattr(self, name) != value:
                    raise ValueError(
                        f"`particles` are weighted samples that are carried, so `{name}` must be "
                        f"{value!r}; got {getattr(self, name)!r}."
                    )


class Knobs(eqx.Module):
    """What may change between decisions without compiling again."""

    weights: dict[str, Knob]
    step_size: Knob
    nats: Knob
    temperature: Knob
    tolerance: Knob
    memory: Knob
    beta: Knob
    free_nats: Knob


class Carry(eqx.Module):
    """What an agent takes from one decision to the next; leading axis: the batch."""

    state: State
    action: Float[Array, "*batch action"]
    past: Window | Cloud | None = None
    """With `lag` the last decisions (None: there was none yet); with `particles` the cloud."""


class Thought(eqx.Module):
    """What went on in one decision; leading axis: the batch."""

    prior: Belief
    before: Belief
    """The encoder's belief."""
    after: Belief
    """The belief after thinking; of particles, the one whose state acts."""
    base: State
    """The state without thinking, on the same random numbers."""
    state: State
    """The state that chose the action."""
    moved: Float[Array, "*batch"]
    """KL(after || before), nats."""
    refined: Refined | None
    """Every iterate; None without steps."""
    mixture: Mixture | None = None
    """The belief of all particles."""


class Agent:
    """A world model with a policy that thinks as it is told.

    `policy(model, state, key)` gives an action vector; by default the model's own. `members` are
    plausible parameters, for terms that compare them. Everything is frozen. Compiled once per
    structure of `thinking`; its weights, sizes and budgets are arguments, so that `with_thinking`
    does not compile again when only those change.
    """

    def __init__(
        self,
        model: WorldModel,
        thinking: Thinking | None = None,
        *,
        policy: Callable[[Any, State, PRNGKeyArray], Array] | None = None,
        members: Members | None = None,
    ):
        self.model = model
        self.thinking = thinking or Thinking()
        self.policy = policy or _own_policy
        self.members = members
        blind = [name for name, _ in self.thinking.terms if name in NEED_MEMBERS]
        if self.thinking.steps and blind and members is None:
            raise ValueError(
                f"`{blind[0]}` compares plausible parameters and this agent has none. Fit them: "
                f"thinkslow ensemble AGENT."
            )
        self.knobs = _knobs(self.thinking, model)

    def with_thinking(self, thinking: Thinking) -> "Agent":
        """The same agent, thinking otherwise."""
        return Agent(self.model, thinking, policy=self.policy, members=self.members)

    def start(self, batch: int) -> Carry:
        """The carry before the first observation of `batch` environments."""
        state = self.model.initial()
        action = jax.eval_shape(self.policy, self.model, state, jr.key(0))
        past, count = None, self.thinking.particles
        if count > 1:
            many = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), state)
            past = Cloud(many, jnp.full(count, -jnp.log(count)))
        carry = Carry(state, jnp.zeros(action.shape, action.dtype), past)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), carry)

    def act(
        self,
        carry: Carry,
        observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> tuple[Carry, Float[Array, "batch action"], Thought]:
        """One decision for a batch: the new carry, the action vectors, and what was thought.

        `is_first` marks environments that begin an episode; their past is forgotten. One key per
        environment. One compiled call.
        """
        seen, is_first = dict(observation), jnp.asarray(is_first)
        if self.thinking.lag and carry.past is None:
            carry = _with_window(carry, seen, is_first, self.thinking.lag)
        return _act(
            self.model, self.members, self.knobs, carry, seen, is_first, keys,
            _structure(self.thinking), self.policy,
        )  # fmt: skip


def decide(
    model: WorldModel,
    policy: Callable[[Any, State, PRNGKeyArray], Array],
    thinking: Thinking,
    knobs: Knobs,
    carry: Carry,
    observation: Observation,
    is_first: Bool[Array, ""],
    key: PRNGKeyArray,
    *,
    members: Members | None = None,
) -> tuple[Carry, Float[Array, " action"], Thought]:
    """One decision of one agent: predict, infer, refine, read, act."""
    think = partial(_think, model, policy, thinking, knobs, members, observation)
    if isinstance(carry.past, Cloud):
        return _decide_together(model, policy, think, carry, carry.past, observation, is_first, key)
    latent_key, action_key, think_key = jr.split(key, 3)
    plain = moment = perceive(model, carry.state, carry.action, is_first, observation)
    past = carry.past
    if isinstance(past, Window):
        moment = perceive(model, reinferred(model, past), carry.action, is_first, observation)
        past = past.pushed(carry.state, carry.action, observation, is_first)
    after, refined, state = think(moment, latent_key, think_key)
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    action = policy(model, state, action_key)
    thought_over = thinking.steps or thinking.lag
    nats = after.kl(plain.posterior) if thought_over else jnp.zeros(())
    thought = Thought(plain.prior, plain.posterior, after, base, state, nats, refined)
    return Carry(state if thinking.carry else base, action, past), action, thought


def _decide_together(
    model: WorldModel, policy: Callable, think: Callable, carry: Carry, cloud: Cloud,
    observation: Observation, is_first: Bool[Array, ""], key: PRNGKeyArray,
) -> tuple[Carry, Float[Array, " action"], Thought]:  # fmt: skip
    """One decision of many particles; the one that acts is drawn by weight."""
    latent_key, action_key, think_key = jr.split(key, 3)
    pick_key, resample_key, own_key = jr.split(think_key, 3)
    count = cloud.log_weights.shape[-1]
    known = jnp.where(is_first, -jnp.log(count), cloud.log_weights)
    moments = jax.vmap(
        lambda state: perceive(model, state, carry.action, is_first, observation)
    )(cloud.states)  # fmt: skip
    afters, refined, states = jax.vmap(think)(moments, *jr.split(own_key, (2, count)))
    weights = weighted(model, known, moments, afters, states, observation)

    def pick(weights: Array, tree: Any) -> Any:
        index = jr.categorical(pick_key, weights)
        return jax.tree.map(lambda x: x[index], tree)

    plain = pick(known, moments)
    base = State(plain.memory, plain.posterior.sample(key=latent_key))
    after, refined, state = pick(weights, (afters, refined, states))
    action = policy(model, state, action_key)
    thought = Thought(
        plain.prior, plain.posterior, after, base, state, after.kl(plain.posterior), refined,
        Mixture(afters, weights),
    )  # fmt: skip
    past = resampled(Cloud(states, weights), key=resample_key)
    return Carry(state, action, past), action, thought


def _think(
    model: WorldModel, policy: Callable, thinking: Thinking, knobs: Knobs,
    members: Members | None, observation: Observation, moment: Moment,
    latent_key: PRNGKeyArray, think_key: PRNGKeyArray,
) -> tuple[Belief, Refined | None, State]:  # fmt: skip
    """Refine the belief of a moment and read a state from it."""
    refine_key, pick_key = jr.split(think_key)
    memory, prior, before = moment
    after, refined, start = before, None, memory
    if thinking.steps:

        def objective_at(memory: Memory) -> Objective:
            return lookahead(
                model, lambda s, k: policy(model, s, k), memory, prior, before, observation,
                terms=knobs.weights, horizon=thinking.rollout, rollouts=thinking.rollouts,
                samples=thinking.samples, latent=thinking.latent, imagery=thinking.imagery,
                members=members, beta=knobs.beta, free_nats=knobs.free_nats,
            )  # fmt: skip

        refined = _refine(thinking, knobs, objective_at, before, memory, refine_key)
        after = refined.belief
        if thinking.memory:
            after, start = after.belief, moved(memory, after.shift, knobs.memory)
    state = State(start, read(after, thinking.readout, key=latent_key))
    if thinking.candidates > 1:
        state = _best(model, start, after, observation, thinking.candidates, state, pick_key)
    return after, refined, state


@partial(jax.jit, static_argnums=(7, 8))
def _act(
    model: WorldModel, members: Members | None, knobs: Knobs, carry: Carry,
    observation: Observation, is_first: Bool[Array, " batch"], keys: Key[Array, " batch"],
    thinking: Thinking, policy: Callable,
) -> tuple[Carry, Array, Thought]:  # fmt: skip
    return jax.vmap(partial(decide, model, policy, thinking, knobs, members=members))(
        carry, observation, is_first, keys
    )


def _refine(
    thinking: Thinking, knobs: Knobs, objective_at: Callable[[Memory], Objective], before: Belief,
    memory: Memory, key: PRNGKeyArray,
) -> Refined:  # fmt: skip
    """Refine the belief, and the memory with it where thinking may move it."""
    descend = partial(
        refine, update=_direction(thinking, knobs), steps=thinking.steps, key=key,
        # Random steps lie on one line and look at nothing: the budget alone bounds them.
        trust=jnp.inf if thinking.update == "random" else knobs.nats / thinking.steps**2,
        budget=knobs.nats, accept=thinking.accept, judges=thinking.judges,
        tolerance=None if thinking.tolerance is None else knobs.tolerance, select=thinking.select,
    )  # fmt: skip
    if not thinking.memory:
        return descend(objective_at(memory), before)

    def objective(both: Any, key: PRNGKeyArray) -> Any:
        return objective_at(moved(memory, both.shift, knobs.memory))(both.belief, key)

    return descend(objective, joint(before, memory))


def _with_window(
    carry: Carry, observation: dict[str, Any], is_first: Bool[Array, " batch"], lag: int
) -> Carry:
    """With a window of the right shapes, whose frames an episode's first observation forgets."""
    window = Window(carry.state, carry.action, observation, jnp.ones_like(is_first))
    many = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[:, None], lag, 1), window)
    return Carry(carry.state, carry.action, many)


def _own_policy(model: Any, state: State, key: PRNGKeyArray) -> Array:
    return model.policy(state, key)


def _knobs(thinking: Thinking, model: WorldModel) -> Knobs:
    """Arrays, so that changing a value does not compile again.

    **Errors:** `ValueError` if the model does not say how it was trained and thinking needs it.
    """
    trained = {"beta": model.trained_beta, "free_nats": model.trained_free_nats}
    for name, value in trained.items():
        if getattr(thinking, name) is not None:
            trained[name] = getattr(thinking, name)
        elif value is None and "evidence" in dict(thinking.terms):
            raise ValueError(
                f"`evidence` needs `{name}`: this model does not say how it was trained."
            )
    values = {
        "weights": dict(thinking.terms),
        "step_size": thinking.step_size,
        "nats": thinking.nats,
        "temperature": thinking.temperature,
        "tolerance": thinking.tolerance or 0.0,
        "memory": thinking.memory,
        **{name: value or 0.0 for name, value in trained.items()},
    }
    return Knobs(**jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values))


def _structure(thinking: Thinking) -> Thinking:
    """What of `thinking` decides the compiled program: values of knobs are blanked."""
    return dataclasses.replace(
        thinking, terms=tuple((name, 0.0) for name, _ in thinking.terms), step_size=0.0, nats=0.0,
        temperature=0.0, tolerance=None if thinking.tolerance is None else 0.0,
        memory=float(thinking.memory > 0), beta=None, free_nats=None,
    )  # fmt: skip


def _direction(thinking: Thinking, knobs: Knobs) -> Direction:
    match thinking.update:
        case "gradient":
            return Gradient(knobs.step_size)
        case "adam":
            return Gradient(knobs.step_size, _ADAM)
        case "mirror":
            return Mirror(knobs.step_size)
        case "langevin":
            return Langevin(knobs.step_size, knobs.temperature)
        case "random":
            return Random()


_ADAM = optax.adam(1.0)


def _best(
    model: WorldModel, memory: Memory, belief: Belief, observation: Observation, count: int,
    first: State, key: PRNGKeyArray,
) -> State:  # fmt: skip
    """Of `first` and `count - 1` more samples, the state that reconstructs best."""
    others = jax.vmap(lambda k: belief.sample(key=k))(jr.split(key, count - 1))
    latents = jnp.concatenate([first.latent[None], others])

    def error(latent: Array) -> Float[Array, ""]:
        return surprise(model, State(memory, latent), observation)

    return State(memory, latents[jnp.argmin(jax.vmap(error)(latents))])
