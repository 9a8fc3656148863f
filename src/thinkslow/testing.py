"""The contract of a refinement, checked on any world model with one call.

What this library promises of every model, term and update is one table; `check` runs it. A
model of one's own that passes is refined as the bundled ones are, and a null result is then the
world's answer, not a bug of the model's wiring.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from thinkslow.agent import Agent
from thinkslow.distributions import Categorical
from thinkslow.objectives import TERMS, lookahead
from thinkslow.parameters import Members
from thinkslow.refine import Direction, Gradient, Langevin, Mirror, Random, refine
from thinkslow.thinking import Thinking
from thinkslow.worldmodel import Observation, Policy, State, WorldModel

BATCH = 8
"""Beliefs refined side by side."""
DRAWS = 128
"""Fresh draws of random numbers on which a belief is judged."""
NATS = 0.5

Update = tuple[Callable[[Any], Direction], dict[str, Any]]

UPDATES: dict[str, Update] = {
    "gradient": (Gradient, {}),
    "adam": (partial(Gradient, optimiser=optax.adam(1.0)), {}),
    "mirror": (Mirror, {}),
    "langevin": (partial(Langevin, temperature=0.01), {}),
    "random": (lambda _: Random(), {}),
    "gradient-accepted": (Gradient, {"accept": True, "judges": 16}),
    "mirror-accepted": (Mirror, {"accept": True, "judges": 16, "select": "best"}),
    "gradient-adaptive": (Gradient, {"tolerance": 1e-3}),
}
"""Every update, with the options of `refine` that it is checked under."""


class Broken(AssertionError):
    """Some entries of the contract do not hold; the message names each."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the table: what was checked on what, and whether it holds."""

    model: str
    terms: str
    update: str
    rule: str
    holds: bool | None
    """None: not applicable, and `detail` says why."""
    detail: str = ""

    def __str__(self) -> str:
        where = " x ".join(part for part in (self.model, self.terms, self.update) if part)
        return f"{where}: {self.rule}: {self.detail}"


def check(
    model: WorldModel,
    observation: Observation,
    policy: Policy,
    *,
    action: Any,
    members: Members | None = None,
    terms: Sequence[str] | None = None,
    updates: Mapping[str, Update] = UPDATES,
    full: bool = False,
    beta: float = 0.5,
    free_nats: float = 0.0,
) -> list[Entry]:
    """Run the table on a model; returns its entries, or raises with those that do not hold.

    `observation` is one that the model can see and `action` one that it can take, both without a
    batch. Every term that the model can be asked for is checked by itself, and their sum under
    every update; `full` refines every term by itself under every update. A term or an update
    that refuses the model (`pig` without `members`, a mirror step of a Gaussian) is an entry that
    is not applicable, with the reason.

    **Cost:** one compilation for each update and about eight besides, of 1 to 2 s each for a
    small model; with `full`, the updates again for each term.

    **Errors:** `Broken`, naming model, term, update and rule.
    """
    name = type(model).__name__
    moment = Moment(model, members, observation, jnp.asarray(action), policy, beta, free_nats)
    entries = list(_model_entries(name, moment))
    usable: list[str] = []
    for term in TERMS if terms is None else terms:
        reason = moment.refuses((term,))
        if reason:
            entries.append(Entry(name, term, "", "can be asked for", None, reason))
        else:
            usable.append(term)
    together = [tuple(usable)] if usable else []
    for wanted in together:
        entries += _term_entries(name, moment, wanted)
    for wanted in [(term,) for term in usable] if full else together:
        fresh = moment.judge(wanted)
        for label, update in updates.items():
            entries += _update_entries(name, moment, wanted, label, update, fresh)
    broken = [entry for entry in entries if entry.holds is False]
    if broken:
        raise Broken(
            f"{len(broken)} of {len(entries)} entries of the contract do not hold:\n"
            + "\n".join(map(str, broken))
        )
    return entries


@dataclasses.dataclass(frozen=True)
class Moment:
    """A model at one moment: what every entry is checked on."""

    model: Any
    members: Members | None
    observation: Observation
    action: Any
    policy: Policy
    beta: float
    free_nats: float

    def beliefs(self, model: Any) -> tuple[Any, Any, Any]:
        """Memory, prior and posterior after the action."""
        memory, prior = model.predict(model.initial(), self.action, jnp.zeros((), bool))
        return memory, prior, model.infer(memory, dict(self.observation))

    def objective(
        self, terms: Sequence[str], model: Any, members: Any, observation: Any, at: Any,
        policy: Policy | None = None, latent: Any = "sample",
    ) -> Any:  # fmt: skip
        memory, prior, posterior = at
        return lookahead(
            model, policy or self.policy, memory, prior, posterior, observation,
            terms=dict.fromkeys(terms, 1.0), horizon=2, rollouts=2, samples=2, latent=latent,
            members=members, beta=self.beta, free_nats=self.free_nats,
        )  # fmt: skip

    def judge(self, terms: Sequence[str]) -> Callable[[Any], Any]:
        """The objective of each of a batch of beliefs on many fresh draws: one compiled call."""

        @jax.jit
        def fresh(beliefs: Any) -> Any:
            at = self.beliefs(self.model)
            objective = self.objective(terms, self.model, self.members, self.observation, at)
            keys = jr.split(jr.key(99), DRAWS)
            return jax.vmap(lambda b: jax.vmap(lambda k: objective(b, k)[0])(keys))(beliefs)

        return fresh

    def refuses(self, terms: Sequence[str]) -> str:
        """Why the model cannot be asked for terms; nothing if it can."""
        try:
            at = jax.eval_shape(self.beliefs, self.model)
            jax.eval_shape(
                lambda m, s, x, at: self.objective(terms, m, s, x, at)(at[2], jr.key(0))[0],
                self.model, self.members, dict(self.observation), at,
            )  # fmt: skip
        except ValueError as error:
            return str(error)
        return ""


def fingerprint(tree: Any) -> str:
    """A hash of every array."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _model_entries(name: str, moment: Moment) -> Iterator[Entry]:
    initial = moment.model.initial()
    memory, prior, posterior = jax.eval_shape(moment.beliefs, moment.model)
    latent = jax.eval_shape(lambda b: b.mode(), posterior)
    pairs = {
        "predict keeps the memory's shapes and types": (_shapes(memory), _shapes(initial.memory)),
        "prior and posterior are of one kind and shape": (_shapes(prior), _shapes(posterior)),
        "a latent has the shape of the initial one": (latent.shape, initial.latent.shape),
    }
    for rule, (found, expected) in pairs.items():
        same = found == expected
        yield Entry(name, "", "", rule, same, "" if same else f"{found}, expected {expected}")
    if all(found == expected for found, expected in pairs.values()):
        yield _same_action(name, moment)


def _same_action(name: str, moment: Moment) -> Entry:
    """Thinking of 0 nats draws the latent, and the action, that no thinking draws."""
    terms = tuple((term, 1.0) for term in ("anchor", "entropy"))
    thinking = Thinking(terms=terms, steps=2, rollout=1, nats=0.0)
    agents = [
        Agent(moment.model, one, policy=lambda model, state, key: moment.policy(state, key))
        for one in (Thinking(), thinking)
    ]
    batch = {key: np.asarray(value)[None] for key, value in moment.observation.items()}
    first, keys = np.ones(1, bool), jr.split(jr.key(0), 1)
    plain, idle = (agent.act(agent.start(1), batch, first, keys=keys)[:2] for agent in agents)
    return _identical(name, "", "", "no thinking leaves state and action to the bit", plain, idle)


def _term_entries(name: str, moment: Moment, terms: tuple[str, ...]) -> Iterator[Entry]:
    """All terms in a few compiled programs, judged one by one."""
    model, members, seen = moment.model, moment.members, dict(moment.observation)
    key = jr.key(1)

    def values(model: Any, members: Any, seen: Any, key: Any) -> Any:
        at = moment.beliefs(model)
        return moment.objective(terms, model, members, seen, at)(at[2], key)[1]

    compiled = jax.jit(values)(model, members, seen, key)
    with jax.disable_jit():
        eager = values(model, members, seen, key)
    half = jax.tree.map(lambda x: _cast(x, jnp.bfloat16), (model, members))

    @jax.jit
    def slopes(model: Any, members: Any) -> Any:
        at = moment.beliefs(model)
        objective = moment.objective(terms, model, members, seen, at)
        return jax.jacrev(lambda belief: objective(belief, key)[1])(at[2])

    gradients = slopes(*half)
    analytic, numeric = _slopes(moment, terms)
    for term in terms:
        yield _close(name, term, "", "compiled is as eager", compiled[term], eager[term], 1e-4)
        leaves = jax.tree.leaves(gradients[term])
        types = sorted({str(x.dtype) for x in leaves})
        finite = all(np.all(np.isfinite(x)) for x in leaves)
        yield Entry(
            name, term, "", "float32 and finite under a bfloat16 model",
            types == ["float32"] and finite, f"types {types}, finite {finite}",
        )  # fmt: skip
        # Central differences in float64: 1e-10 of the third derivative, 1e-11 of rounding.
        good = bool(np.isclose(analytic[term], numeric[term], rtol=1e-5, atol=1e-7))
        yield Entry(
            name, term, "", "gradient is that of finite differences", good,
            f"{analytic[term]} against {numeric[term]}",
        )  # fmt: skip


def _slopes(moment: Moment, terms: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Along one direction, on the soft latent, with the actions held: in float64."""
    with jax.enable_x64(True):
        model, members, seen, action = jax.tree.map(
            lambda x: _cast(jnp.asarray(x), jnp.float64),
            (moment.model, moment.members, dict(moment.observation), moment.action),
        )
        wide = dataclasses.replace(moment, observation=seen, action=action)
        held = model.initial()

        def policy(state: State, key: Any) -> Any:
            return moment.policy(held, key).astype(jnp.float64)

        @jax.jit
        def both(model: Any, members: Any) -> tuple[Any, Any]:
            at = wide.beliefs(model)
            belief = jax.tree.map(lambda x: x + 0.3 * _wave(x, 1.0), at[2])
            way = jax.tree.map(lambda x: _wave(x, 2.0), belief)
            objective = wide.objective(terms, model, members, seen, at, policy, "soft")

            def along(length: Any) -> Any:
                there = jax.tree.map(lambda x, d: x + length * d, belief, way)
                return objective(there, jr.key(0))[1]

            step = 1e-5
            ends = jax.vmap(along)(jnp.array([step, -step]))
            numeric = jax.tree.map(lambda x: (x[0] - x[1]) / (2 * step), ends)
            return jax.jvp(along, (0.0,), (1.0,))[1], numeric

        return jax.tree.map(float, both(model, members))


def _update_entries(
    name: str, moment: Moment, terms: tuple[str, ...], label: str, update: Update,
    fresh: Callable[[Any], Any],
) -> Iterator[Entry]:  # fmt: skip
    make, options = update
    model, members, seen = moment.model, moment.members, dict(moment.observation)
    at = jax.jit(moment.beliefs)(model)
    title = "+".join(terms)
    entry = partial(Entry, name, title, label)
    if isinstance(make(1.0), Mirror) and not isinstance(at[2], Categorical):
        yield entry("can be stepped", None, "a mirror step needs a categorical belief")
        return
    traces = []

    @jax.jit
    def go(model: Any, members: Any, seen: Any, at: Any, beliefs: Any, keys: Any, knobs: Any):
        traces.append(1)
        objective = moment.objective(terms, model, members, seen, at)

        def one(belief: Any, key: Any) -> tuple[Any, Any]:
            size, nats = knobs
            out = refine(
                objective, belief, make(size), steps=3, key=key, trust=nats, budget=nats, **options
            )
            return out, objective(out.belief, jr.split(key, 3)[0])[0]

        return jax.vmap(one)(beliefs, keys)

    beliefs = jax.tree.map(
        lambda x: x + 0.5 * jr.normal(jr.key(5), (BATCH, *x.shape), x.dtype), at[2]
    )
    keys, knobs = jr.split(jr.key(7), BATCH), (jnp.float32(0.3), jnp.float32(NATS))
    before = fingerprint((model, members))
    out, loss = go(model, members, seen, at, beliefs, keys, knobs)
    chosen = jnp.take_along_axis(out.loss, out.chosen[:, None], 1)[:, 0]
    rule = "the reported loss is the returned belief's"
    yield _close(name, title, label, rule, chosen, loss, 1e-4)
    moved = jax.vmap(lambda a, b: a.kl(b))(out.belief, beliefs)
    yield entry("within its nats", bool(jnp.all(moved <= NATS * (1 + 1e-3))), f"{moved.max()}")
    other = jr.permutation(jr.key(3), BATCH)
    shuffled, _ = go(
        model, members, seen, at, jax.tree.map(lambda x: x[other], beliefs), keys[other], knobs
    )
    yield _close(
        name, title, label, "each of a batch is refined by itself",
        jax.tree.map(lambda x: x[other], out.belief), shuffled.belief, 1e-5,
    )  # fmt: skip
    idle, _ = go(model, members, seen, at, beliefs, keys, (knobs[0], jnp.float32(0.0)))
    yield _identical(name, title, label, "0 nats are the identity", beliefs, idle.belief)
    yield entry("changed knobs do not trace again", len(traces) == 1, f"{len(traces)} traces")
    yield entry("parameters are untouched", fingerprint((model, members)) == before)
    if isinstance(out.belief, Categorical):
        probs = np.asarray(out.belief.probs())
        simplex = np.all(probs >= 0) and np.allclose(probs.sum(-1), 1, atol=1e-5)
        yield entry("probabilities are on the simplex", bool(simplex))
    for what, bad in _spoilt(model, seen, terms, moment).items():
        if bad is None:
            continue
        sick, _ = go(bad[0], members, bad[1], at, beliefs, keys, knobs)
        returned = all(map(np.array_equal, *map(jax.tree.leaves, (sick.belief, beliefs))))
        flagged = not np.any(sick.finite[:, 0])
        yield entry(
            f"{what} gives the last finite belief, flagged", returned and flagged,
            f"returned {returned}, flagged {flagged}",
        )  # fmt: skip
    if options.get("accept"):
        change = np.asarray(fresh(out.belief) - fresh(beliefs)).mean(1)
        error = change.std(ddof=1) / np.sqrt(BATCH)
        yield entry(
            "never worse in expectation over fresh noise", bool(change.mean() <= 2 * error + 1e-5),
            f"{change.mean():+.3g} nats, standard error {error:.2g}",
        )  # fmt: skip
    if label == "gradient":
        yield _alone(name, title, label, go, (model, members, seen, at), beliefs, keys, knobs, out)
        yield _on_two_devices(
            name, title, label, go, (model, members, seen, at), beliefs, keys, knobs, out
        )


def _alone(
    name: str, title: str, label: str, go: Any, fixed: tuple, beliefs: Any, keys: Any, knobs: Any,
    out: Any,
) -> Entry:  # fmt: skip
    """A loop over the batch, one at a time."""
    first = jax.tree.map(lambda x: x[:1], (beliefs, keys))
    one, _ = go(*fixed, *first, knobs)
    batch = jax.tree.map(lambda x: x[:1], out.belief)
    return _close(name, title, label, "a batch is as a loop", one.belief, batch, 1e-4)


def _on_two_devices(
    name: str, title: str, label: str, go: Any, fixed: tuple, beliefs: Any, keys: Any, knobs: Any,
    out: Any,
) -> Entry:  # fmt: skip
    rule = "two devices are as one"
    if len(jax.devices()) < 2:
        return Entry(name, title, label, rule, None, "this machine shows one device")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("batch",))
    spread, whole = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("batch",), ())
    )
    far, _ = go(
        *jax.device_put(fixed, whole), *jax.device_put((beliefs, keys), spread),
        jax.device_put(knobs, whole),
    )  # fmt: skip
    return _close(name, title, label, rule, far.belief, out.belief, 1e-4)


def _spoilt(model: Any, seen: Any, terms: Sequence[str], moment: Moment) -> dict[str, Any]:
    """Model and observation with a number that is none, for terms that look at it."""
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), model)
    out: dict[str, Any] = {"NaN in the model": (nan, seen) if set(terms) != {"anchor"} else None}
    floats = [key for key, x in seen.items() if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)]
    if "evidence" in terms and floats:
        for what, number in (("NaN", jnp.nan), ("Inf", jnp.inf)):
            bad = {key: jnp.full_like(x, number) for key, x in seen.items() if key in floats}
            out[f"{what} in the observation"] = (model, {**seen, **bad})
    return out


def _identical(name: str, terms: str, update: str, rule: str, first: Any, second: Any) -> Entry:
    same = all(map(np.array_equal, *map(jax.tree.leaves, (first, second))))
    return Entry(name, terms, update, rule, same, "" if same else "they differ")


def _close(
    name: str, terms: str, update: str, rule: str, first: Any, second: Any, tolerance: float
) -> Entry:
    gaps = [
        float(np.max(np.abs(a - b) / (1 + np.abs(b)), initial=0.0))
        for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)
    ]
    gap = max(gaps, default=0.0)
    return Entry(name, terms, update, rule, gap <= tolerance, f"differ by {gap:.2g}")


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), eqx.filter(tree, _is_array))


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype")


def _cast(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _wave(x: Any, phase: float) -> Any:
    """A direction without symmetry."""
    return jnp.sin(phase + jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
