"""The relaxation hypothesis: is what a step of the latent gains in PSNR more than softness?

A gradient step takes a one-hot latent z off its codes, and softness alone raises PSNR. So steps of
equal length are compared on recorded frames of the base agent: down `sig` and up it (`-sig`), down
`elbo`, `evidence` and `pig` (over the agent's ensemble, and over dropout masks), a random step, and
softening, which moves z towards the probabilities, at most up to them. Three variables are stepped:
z as floats, (h, z), and the belief's logits. Lengths are Euclidean for z and (h, z), and nats
for the logits, from which a one-hot latent is drawn; there, `flatter` and `sharper` change the
temperature.

The second table has the paper's own settings: raw steps of size alpha, K of them, without a bound.
Each is compared with softening and with a random step as long as it went at the same moment.

Every number is a difference of PSNR in dB from the latent that was drawn, of the present frame, of
the same after z is snapped to the nearest code, and of the next frame (with the action taken and
the mode of the prior): mean over episodes with a 95% bootstrap interval, without a correction for
the number of comparisons. Nothing is tuned.

Reproduce: `uv run python scripts/relaxation.py collect-good collect-half --seed 602` (`--json FILE`
keeps all numbers by episode). Needs OpenGL for the bundled agents.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

import thinkslow
from thinkslow import registry
from thinkslow.agent.agent import Agent
from thinkslow.agent.inputs import Inputs, streams
from thinkslow.agent.looking import look
from thinkslow.agent.thinking import Thinking, Variable
from thinkslow.agent.variables import Stepped, objective_and_start, projected
from thinkslow.distributions import Belief, Objective, Point
from thinkslow.envs import VectorEnv, arguments
from thinkslow.evaluation.protocol import machine
from thinkslow.evaluation.scoring import visible
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.statistics import paired
from thinkslow.evaluation.walks import led, walked
from thinkslow.refinement import Gradient, Random, Update, refine
from thinkslow.refinement.joint import Joint, shifted
from thinkslow.trees import all_finite, compiled, where
from thinkslow.worldmodel import Moment, State

VARIABLES: dict[str, Variable] = {"z": "latent", "(h, z)": "state", "logits": "belief"}
LENGTHS = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
NATS = (0.01, 0.1, 0.5, 1.0, 4.0)
ALPHAS = (1e-3, 1e-2, 1e-1, 1.0)
COUNTS = (1, 5, 10, 20)
FAR = 1e6
"""A step size so large that the bound decides the length."""
COLUMNS = ("now", "snapped", "next")


class Whole(eqx.Module):
    """Memory and latent, whose length counts both."""

    joint: Joint

    def kl(self, other: "Whole") -> Float[Array, ""]:
        apart = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), self.joint, other.joint)
        return 0.5 * sum(jax.tree.leaves(apart), jnp.zeros(()))


@dataclasses.dataclass(frozen=True)
class Way:
    """A direction: a term with its sign, or a control."""

    term: str | None = None
    sign: float = 1.0
    members: str | None = None
    control: str | None = None


WAYS = {
    "sig": Way("sig"),
    "-sig": Way("sig", -1.0),
    "elbo": Way("elbo"),
    "evidence": Way("evidence"),
    "pig": Way("pig"),
    "pig, dropout": Way("pig", members="dropout"),
    "random": Way(control="random"),
    "softening": Way(control="softer"),
    "sharper": Way(control="sharper"),
}
MANY = ("sig", "elbo", "evidence")
"""Directions of raw steps."""


class Moments(NamedTuple):
    """Moments of the base agent; leading axis: the moments."""

    given: Inputs
    action: Array
    """Taken after the moment."""
    now: Array
    later: Array
    """The frame that came next."""


class Judged(NamedTuple):
    """What came of one step: PSNR in dB of each column, and how far it went."""

    psnr: Float[Array, " columns"]
    moved: Float[Array, ""]


def recorded(agent: Any, given: argparse.Namespace) -> tuple[Moments, np.ndarray, str]:
    """Moments of the base agent's own episodes, their episodes, and the image."""
    found, episodes = [], []
    with VectorEnv(**arguments(agent.about.environment), count=given.batch) as envs:
        image = visible(agent.model, envs.observation_space)[0]
        for block in range(given.episodes // given.batch):
            numbers = block * given.batch + np.arange(given.batch)
            seeds = [episode_seed(given.seed, int(number)) for number in numbers]
            walk = walked(agent, envs, seeds, given.seed, decisions=given.decisions)
            for decision, carry, _ in led(agent, walk):
                if decision % given.stride or not decision or decision + 1 >= len(walk):
                    continue
                first, frames = np.zeros(given.batch, bool), walk.observations[image]
                one = Inputs(carry, walk.seen(decision), first, walk.keys(decision))
                moments = Moments(
                    one, walk.actions[decision], frames[decision], frames[decision + 1]
                )
                going = np.flatnonzero(walk.going[decision + 1])
                found.append(jax.tree.map(lambda x, at=going: x[at], moments))
                episodes.append(numbers[going])
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *found), np.concatenate(episodes), image


def start(agent: Agent, given: Inputs) -> tuple[Moment, Objective, Any, Any, Any]:
    """The moment, the objective and the first value of the variable, and two keys."""
    looked = look(agent, given)
    latent_key, _, refine_key, _ = streams(given.key)
    objective, first = objective_and_start(agent, looked.observation, looked.moment, latent_key)
    if not isinstance(first, Joint):
        return looked.moment, objective, first, latent_key, refine_key

    def of_whole(whole: Whole, key: Any) -> Any:
        return objective(whole.joint, key)

    return looked.moment, of_whole, Whole(first), latent_key, refine_key


def state_of(moment: Moment, found: Any, landing: str, key: Any) -> State:
    """The state that acts."""
    belief: Belief = found.joint.belief if isinstance(found, Whole) else found
    memory = moment.memory
    if isinstance(found, Whole):
        memory = shifted(memory, found.joint.shift, jnp.inf)
    if isinstance(belief, Point):
        return State(memory, projected(belief.value, landing))
    return State(memory, belief.sample(key=key))


def judged(
    agent: Agent, image: str, moment: Moment, at: Moments, first: Any, found: Any, key: Any
) -> Judged:
    """How well the states of a stepped variable predict."""
    model = agent.model

    def db(state: State, frame: Array) -> Array:
        shown = jnp.clip(model.decode(state)[image].mode(), 0, 1)
        return -10 * jnp.log10(jnp.mean(jnp.square(shown - frame / 255)))

    state = state_of(moment, found, "as-is", key)
    memory, prior = model.predict(state, at.action, jnp.zeros((), bool))
    later = State(memory, prior.mode().astype(state.latent.dtype))
    snapped = state_of(moment, found, "code", key)
    values = [db(state, at.now), db(snapped, at.now), db(later, at.later)]
    nats = found.kl(first)
    # Half the square of a length; of logits the nats themselves.
    length = nats if agent.settings.variable == "belief" else jnp.sqrt(2 * nats)
    return Judged(jnp.stack(values), length)


def softness(found: Stepped | Whole, moment: Moment) -> Array:
    """Half the squared distance to the probabilities; of logits, to the uniform."""
    belief: Any = found.joint.belief if isinstance(found, Whole) else found
    if isinstance(belief, Point):
        return 0.5 * jnp.sum(jnp.square(belief.value - moment.posterior.soft()))
    centred = belief.logits - jnp.mean(belief.logits, -1, keepdims=True)
    return 0.5 * jnp.sum(jnp.square(centred))


def stepped(
    control: str | None, image: str, agent: Agent, moments: Moments, length: Array
) -> Judged:
    """One step of a length, for every moment."""

    def one(at: Moments, length: Array) -> Judged:
        moment, objective, first, latent_key, key = start(agent, at.given)
        update: Update = Gradient(FAR)
        if control == "random":
            update = Random()
        elif control is not None:
            sign = 1.0 if control == "softer" else -1.0
            update = Gradient(1.0 if control == "softer" else FAR)

            def temperature(found: Any, key: Any) -> Any:
                return sign * softness(found, moment), {}

            objective = temperature

        nats = length if agent.settings.variable == "belief" else 0.5 * length**2
        refined = refine(objective, first, update, steps=1, key=key, max_kl=nats, record=False)
        return judged(agent, image, moment, at, first, refined.belief, latent_key)

    return jax.vmap(one)(moments, length)


def untouched(image: str, agent: Agent, moments: Moments) -> tuple[Judged, Array]:
    """The latent that was drawn, and how far it is from the probabilities."""

    def one(at: Moments) -> tuple[Judged, Array]:
        moment, _, first, latent_key, _ = start(agent, at.given)
        found = judged(agent, image, moment, at, first, first, latent_key)
        return found, jnp.sqrt(2 * softness(first, moment))

    return jax.vmap(one)(moments)


def raw(image: str, agent: Agent, moments: Moments, alpha: Array) -> Judged:
    """Plain steps of size `alpha`; second axis: after each of `COUNTS`."""

    def one(at: Moments) -> Judged:
        moment, objective, first, latent_key, key = start(agent, at.given)
        noise = jr.split(key, 3)[0]  # as `refine` draws it

        def step(now: Any, _: None) -> tuple[Any, Any]:
            gradient = jax.grad(lambda found: objective(found, noise)[0])(now)
            new = jax.tree.map(lambda x, g: x - alpha * g, now, gradient)
            new = where(all_finite(new), new, now)
            return new, new

        every = jax.lax.scan(step, first, None, max(COUNTS))[1]
        some = jax.tree.map(lambda x: x[jnp.array(COUNTS) - 1], every)
        return jax.vmap(lambda found: judged(agent, image, moment, at, first, found, latent_key))(
            some
        )

    return jax.vmap(one)(moments)


@cache
def program(function: Callable[..., Any], *about: str | None) -> Callable[..., Any]:
    """A function of texts, an agent and arrays, compiled once."""
    return compiled(partial(function, *about))


class Comparison:
    """All steps of one agent."""

    def __init__(self, name: str, given: argparse.Namespace):
        self.base: Any = thinkslow.load(name)
        self.given, self.name = given, name
        self.moments, self.episodes, self.image = recorded(self.base, given)
        self.log(f"{len(self.episodes)} moments")
        first = self.agent("z", WAYS["sig"])
        parts = [program(untouched, self.image)(*first.parts, some) for some, _ in self.chunks()]
        self.none, _ = self.gathered(one for one, _ in parts)
        far = np.concatenate([np.asarray(far) for _, far in parts])
        self.softest = far[: len(self.episodes)]
        self.rows: list[dict[str, Any]] = []

    def log(self, what: str) -> None:
        print(f"{time.monotonic():.0f} {self.name}: {what}", file=sys.stderr, flush=True)

    def agent(self, variable: str, way: Way) -> Agent:
        term = registry.make("term", way.term or "evidence")
        base = self.base
        if way.members is not None:
            base = base.having_members(registry.make("members", way.members))
        return base.having(Thinking({term: way.sign}, steps=1, variable=VARIABLES[variable]))

    def chunks(self, values: np.ndarray | None = None) -> Iterable[tuple[Moments, Array]]:
        """Moments, and one number of each, in chunks of one size."""
        count, size = len(self.episodes), self.given.chunk
        values = np.zeros(count) if values is None else values
        for begin in range(0, count, size):
            rows = np.minimum(np.arange(begin, begin + size), count - 1)
            yield (
                jax.tree.map(lambda x, at=rows: x[at], self.moments),
                jnp.asarray(values[rows], jnp.float32),
            )

    def gathered(self, parts: Iterable[Judged]) -> tuple[np.ndarray, np.ndarray]:
        """PSNR and lengths of every moment."""
        found = [jax.tree.map(np.asarray, one) for one in parts]
        count = len(self.episodes)
        psnr = np.concatenate([one.psnr for one in found])[:count]
        return psnr, np.concatenate([one.moved for one in found])[:count]

    def step(
        self, variable: str, name: str, length: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Differences `[moments, columns]` and how far each step went."""
        way, count = WAYS[name], len(self.episodes)
        agent = self.agent(variable, way)
        run = program(stepped, way.control, self.image)
        parts = (
            run(*agent.parts, some, far)
            for some, far in self.chunks(np.broadcast_to(length, count))
        )
        psnr, went = self.gathered(parts)
        return psnr - self.none, went

    def add(self, differences: np.ndarray, went: np.ndarray, **about: Any) -> None:
        """Keep a row: means by episode."""
        groups = [self.episodes == episode for episode in np.unique(self.episodes)]
        means = np.array([differences[group].mean(0) for group in groups])
        row = {**about, "went": float(went.mean()), "episodes": means.T.tolist()}
        self.rows.append(row)
        self.log(" ".join(map(str, about.values())))

    def equal_lengths(self, variable: str) -> None:
        left = {"z": {"sharper"}, "(h, z)": {"sharper", "pig, dropout"}}
        names = [name for name in WAYS if name not in left.get(variable, {"pig, dropout"})]
        for length in NATS if variable == "logits" else LENGTHS:
            found = {name: self.step(variable, name, length) for name in names}
            for name, (psnr, went) in found.items():
                about = {"variable": variable, "way": name, "length": length}
                self.add(psnr, went, **about)
                for control in ("softening", "random"):
                    if name not in ("softening", "random", "sharper"):
                        apart = psnr - found[control][0]
                        self.add(apart, went, **about, minus=control)

    def raw_steps(self, variable: str) -> None:
        run = program(raw, self.image)
        for name in MANY:
            agent = self.agent(variable, WAYS[name])
            for alpha in ALPHAS:
                size = jnp.asarray(alpha, jnp.float32)
                parts = (run(*agent.parts, some, size) for some, _ in self.chunks())
                psnr, went = self.gathered(parts)
                psnr = psnr - self.none[:, None]
                for at, count in enumerate(COUNTS):
                    about = {"variable": variable, "way": name, "alpha": alpha, "K": count}
                    self.add(psnr[:, at], went[:, at], **about)
                    if variable == "logits":
                        continue
                    for control in ("softening", "random"):
                        as_far = self.step(variable, control, went[:, at])[0]
                        self.add(psnr[:, at] - as_far, went[:, at], **about, minus=control)


def cell(values: list[float]) -> str:
    found = paired(values, seed=0)
    low, high = found.interval
    mark = "*" if low > 0 or high < 0 else ""
    return f"{found.mean:+.2f} [{low:.2f}, {high:.2f}]{mark}".replace("-", "−")


def printed(rows: Sequence[Mapping[str, Any]]) -> None:
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "episodes"))
    print("| " + " | ".join([*keys, *COLUMNS]) + " |\n|" + "---|" * (len(keys) + len(COLUMNS)))
    for row in rows:
        about = [
            f"{row[key]:.3g}" if isinstance(row.get(key), float) else str(row.get(key, ""))
            for key in keys
        ]
        print("| " + " | ".join([*about, *map(cell, row["episodes"])]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agents", nargs="+")
    parser.add_argument("--episodes", type=int, default=40, help="a multiple of the batch")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--decisions", type=int, default=41, help="of an episode")
    parser.add_argument("--stride", type=int, default=20, help="decisions between moments")
    parser.add_argument("--chunk", type=int, default=40, help="moments at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="*", choices=["equal", "raw"], default=["equal", "raw"])
    parser.add_argument("--variables", nargs="*", choices=[*VARIABLES], default=[*VARIABLES])
    parser.add_argument("--json", type=Path, help="file for all numbers")
    given = parser.parse_args()
    if given.episodes < given.batch or given.episodes % given.batch:
        parser.error(f"--episodes must be a multiple of --batch; got {given.episodes}")
    report: dict[str, Any] = {"machine": machine(), "arguments": dict(vars(given), json=None)}
    for name in given.agents:
        one = Comparison(name, given)
        means = {
            column: round(float(x), 2) for column, x in zip(COLUMNS, one.none.mean(0), strict=True)
        }
        print(f"\n{name}: {len(one.episodes)} moments; drawn latent, dB: {means}; its distance")
        print(f"from the probabilities: {one.softest.mean():.2f}\n")
        report[name] = {"none": means, "softest": float(one.softest.mean()), "rows": one.rows}
        parts = {"equal": one.equal_lengths, "raw": one.raw_steps}
        for part in given.parts:
            for variable in given.variables:
                before = len(one.rows)
                parts[part](variable)
                printed(one.rows[before:])
                print(flush=True)
                if given.json:
                    given.json.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
