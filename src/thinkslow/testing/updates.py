"""Entries of a refinement: every term separately, and the sum of all, with every update.

Compiling is expensive. Therefore one program serves all terms, with their weights as arguments, and
all updates with equal options, with the index of the update as an argument.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from thinkslow.distributions import Categorical
from thinkslow.plural import plural
from thinkslow.refinement import Gradient, Langevin, Mirror, Random, Update, adam, refine
from thinkslow.testing.case import Case, Given, Traced, fingerprint, weighed
from thinkslow.testing.entries import Entry, close, same
from thinkslow.trees import cast

BATCH = 8
"""Number of beliefs refined in parallel."""
STEPS = 3
DRAWS = 64
"""Number of new draws of random numbers on which a belief is judged."""
NATS = 0.5
SIZE = np.float32(0.3)

Trial = tuple[Callable[[Any], Update], dict[str, Any]]
"""Makes an update from a step size, and the options of `refine` with which it is checked."""

UPDATES: dict[str, Trial] = {
    "gradient": (Gradient, {}),
    "adam": (adam, {}),
    "mirror": (Mirror, {}),
    "langevin": (partial(Langevin, temperature=0.01), {}),
    "random": (lambda _: Random(), {}),
    "gradient-accepted": (Gradient, {"accept": True, "judges": 16}),
    "mirror-accepted": (Mirror, {"accept": True, "judges": 16}),
    "gradient-adaptive": (Gradient, {"tolerance": 1e-3, "select": "best"}),
}
"""Every update, with the options of `refine` with which it is checked."""


def trial(label: str, given: Any) -> Trial:
    """How an update is checked.

    **Errors:** `TypeError` for anything but an update, or a pair of a function and options.
    """
    if isinstance(given, Update):
        return lambda _: given, {}
    if isinstance(given, tuple) and len(given) == 2 and callable(given[0]):
        return given
    raise TypeError(
        f"`updates[{label!r}]` must be an Update, such as Gradient(0.1), or a pair of a function "
        f"from a step size to an update and options of `refine`; got {type(given).__name__}."
    )


class OneOf(Update):
    """One of several updates, with an index that may be traced."""

    which: Int[Array, ""]
    choices: tuple[Update, ...]

    def init(self, belief: Any) -> Any:
        return tuple(choice.init(belief) for choice in self.choices)

    def propose(self, belief: Any, gradient: Any, state: Any, *, key: PRNGKeyArray) -> Any:
        def by(index: int) -> tuple[Any, Any]:
            change, new = self.choices[index].propose(belief, gradient, state[index], key=key)
            return change, (*state[:index], new, *state[index + 1 :])

        return jax.lax.switch(self.which, [partial(by, i) for i in range(len(self.choices))])


@dataclasses.dataclass(frozen=True)
class Group:
    """Updates with equal options, and the programs that refine with any of them."""

    updates: dict[str, Callable[[Any], Update]]
    options: dict[str, Any]
    batched: Callable
    """`(which, weights, fixed, beliefs, keys, (size, nats))` to `Refined`; all but `which`,
    `fixed` and `size` have a batch."""
    single: Callable
    """The same program without a batch."""
    traces: list[int]
    """Number of traces of the batched program."""


class Way(NamedTuple):
    """One update of a group."""

    group: Group
    which: int
    label: str


def update_entries(
    case: Case, values: Traced, at: Any, updates: Mapping[str, Trial]
) -> Iterator[Entry]:
    judge = Judge(case, values, at)
    if judge.mesh is None:
        reason = "this machine shows one device"
        yield Entry(case.name, "", "", "two devices are as one", None, reason)
    usable = {}
    for label, (make, options) in updates.items():
        try:
            make(1.0).init(at[2])
        except TypeError as error:
            yield Entry(case.name, "", label, "can be stepped", None, str(error))
        else:
            usable[label] = (make, options)
    alone = [(term,) for term in values.terms]
    together = [values.terms] if len(values.terms) > 1 else []
    for group in _groups(values, usable):
        for which, label in enumerate(group.updates):
            for terms in [*alone, *together]:
                yield from judge.entries(Way(group, which, label), terms)


def _groups(values: Traced, updates: Mapping[str, Trial]) -> Iterator[Group]:
    """The updates, grouped by their options."""
    waiting = dict(updates)
    while waiting:
        options = next(iter(waiting.values()))[1]
        makes = {label: make for label, (make, given) in waiting.items() if given == options}
        waiting = {label: update for label, update in waiting.items() if label not in makes}
        yield _group(values, makes, options)


def _group(values: Traced, makes: dict[str, Callable], options: dict[str, Any]) -> Group:
    traces: list[int] = []

    def one(which: Any, weights: Any, fixed: Any, belief: Any, key: Any, numbers: Any) -> Any:
        size, nats = numbers
        choices = [make(size) for make in makes.values()]
        update = OneOf(which, tuple(choices)) if len(choices) > 1 else choices[0]
        return refine(
            values.objective(weights, fixed),
            belief,
            update,
            steps=STEPS,
            key=key,
            step_kl=nats,
            max_kl=nats,
            **options,
        )

    def batched(*given: Any) -> Any:
        traces.append(1)
        return jax.vmap(one, (None, 0, None, 0, 0, (None, 0)))(*given)

    return Group(makes, options, jax.jit(batched), jax.jit(one), traces)


class Judge:
    """Beliefs to refine at one moment, and the expected properties of the refined ones.

    On a machine with several devices the batch is spread over two of them. It is compared with a
    loop on one device, so one comparison covers both the batch and the devices.
    """

    def __init__(self, case: Case, values: Traced, at: Any):
        self.case, self.values = case, values
        self.fixed = case.given(at)
        arrays, members = jax.jit(partial(cast, dtype=jnp.bfloat16))((case.arrays, case.members))
        at = jax.jit(case.beliefs)(arrays)
        self.half = Given(arrays, members, self.fixed.observation, at)
        self.beliefs, self.half_beliefs = _around(self.fixed.at[2]), _around(at[2])
        self.keys = jr.split(jr.key(7), BATCH)
        self.order = np.asarray(jr.permutation(jr.key(3), BATCH))
        self.apart = jax.jit(jax.vmap(lambda a, b: a.kl(b)))
        self.mesh = None
        if len(jax.devices()) > 1:
            self.mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("batch",))
        draws = jr.split(jr.key(99), DRAWS)

        @jax.jit
        def at_once(fixed: Given, beliefs: Any, keys: Any) -> Any:
            weights = values.weights()
            return jax.vmap(lambda b, k: values.found(weights, fixed, b, k)[1])(beliefs, keys)

        @jax.jit
        def fresh(beliefs: Any) -> Any:
            """The mean of each term over the draws, computed one after another to save memory."""

            def once(key: Any) -> Any:
                return at_once(self.fixed, beliefs, jnp.broadcast_to(key, BATCH))

            return jax.tree.map(partial(jnp.mean, axis=0), jax.lax.map(once, draws))

        self.at_once, self.fresh = at_once, fresh
        self.before = fresh(self.beliefs)
        self.noise = jax.vmap(lambda key: jr.split(key, 3)[0])(self.keys)
        """The key that `refine` derives for the objective."""
        self.spoilt = {
            what: (fixed, at_once(fixed, self.beliefs, self.noise))
            for what, fixed in self._spoilt().items()
        }

    def entries(self, way: Way, terms: tuple[str, ...]) -> Iterator[Entry]:
        group = way.group
        entry = partial(Entry, self.case.name, "+".join(terms), way.label)
        weights = self.values.weights(*terms)
        many = jax.tree.map(lambda w: jnp.full(BATCH, w), weights)
        nats = jnp.full(BATCH, NATS, jnp.float32)
        go = partial(self._go, way)
        before = fingerprint(self.fixed[:2])
        out = go(many, self.fixed, self.beliefs, self.keys, nats)

        chosen = np.take_along_axis(out.loss, out.chosen[:, None], 1)[:, 0]
        found = self.at_once(self.fixed, out.belief, self.noise)
        # Another program adds in another order, which changes sums of up to hundreds of numbers by
        # some 1e-6.
        yield entry(
            "the reported loss is the returned belief's", *close(chosen, weighed(many, found), 1e-4)
        )
        yield entry("float32 and finite", *_sound(out))
        moved = self.apart(out.belief, self.beliefs)
        # The length of a step is found to a thousandth.
        yield entry("within its nats", bool(np.all(moved <= NATS * (1 + 1e-3))), f"{moved.max()}")
        yield from self._as_a_loop(entry, way, weights, out)
        yield from self._mixed(entry, way, weights, out)
        for what, (fixed, values) in self.spoilt.items():
            rule = f"{what} gives the last finite belief, flagged"
            if np.all(np.isfinite(weighed(many, values))):
                yield entry(rule, None, "the term does not look at it")
                continue
            sick = go(many, fixed, self.beliefs, self.keys, nats)
            yield entry(rule, *_safe(sick, self.beliefs))
        count = len(group.traces)
        yield entry("changed numbers do not trace again", count == 1, plural(count, "trace"))

        rule = "float32 and finite under a bfloat16 model"
        yield entry(rule, *self._half(way, weights))
        if isinstance(out.belief, Categorical):
            probs = np.asarray(out.belief.probs())
            simplex = np.all(probs >= 0) and np.allclose(probs.sum(-1), 1, atol=1e-5)
            yield entry("probabilities are on the simplex", bool(simplex))
        if group.options.get("accept"):
            yield self._never_worse(entry, terms, out)
        yield entry("parameters are untouched", fingerprint(self.fixed[:2]) == before)

    def _mixed(
        self, entry: Callable[..., Entry], way: Way, weights: Any, out: Any
    ) -> Iterator[Entry]:
        """The same beliefs in another order: two with 0 nats, two with a NaN objective."""
        order, idle, lost, rest = self.order, slice(0, 2), slice(2, 4), slice(4, None)
        given, keys = _at(order, (self.beliefs, self.keys))

        def spoilt(weight: Any) -> Any:
            return jnp.full(BATCH, weight).at[lost].set(jnp.where(weight != 0, jnp.nan, 0.0))

        mixed = self._go(
            way,
            jax.tree.map(spoilt, weights),
            self.fixed,
            given,
            keys,
            jnp.full(BATCH, NATS, jnp.float32).at[idle].set(0.0),
        )
        # The same program gave `out`; the rounding of vector lanes differs.
        yield entry(
            "each example of a batch is refined separately",
            *close(_at(rest, mixed.belief), _at(order[rest], out.belief), 1e-5),
        )
        yield entry("0 nats are the identity", *same(_at(idle, mixed.belief), _at(idle, given)))
        yield entry(
            "NaN in the objective gives the last finite belief, flagged",
            *_safe(_at(lost, mixed), _at(lost, given)),
        )

    def _never_worse(self, entry: Callable[..., Entry], terms: tuple[str, ...], out: Any) -> Entry:
        after = self.fresh(out.belief)
        change = sum(np.asarray(after[term] - self.before[term]) for term in terms)
        error = np.std(change, ddof=1) / np.sqrt(BATCH)
        # Below 1e-5 nats, float32 cannot distinguish a change from rounding.
        return entry(
            "never worse in expectation over fresh noise",
            bool(np.mean(change) <= 2 * error + 1e-5),
            f"{np.mean(change):+.3g} nats, standard error {error:.2g}",
        )

    def _go(self, way: Way, weights: Any, fixed: Given, beliefs: Any, keys: Any, nats: Any) -> Any:
        """Refine a batch. The results are on the host."""
        given = (jnp.int32(way.which), weights, fixed, beliefs, keys, (SIZE, nats))
        if self.mesh is not None:
            spread, whole = (
                jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(*axes))
                for axes in (("batch",), ())
            )
            given = jax.device_put(given, (whole, spread, whole, spread, spread, (whole, spread)))
        return jax.device_get(way.group.batched(*given))

    def _single(self, way: Way, weights: Any, fixed: Given, belief: Any, key: Any) -> Any:
        given = (jnp.int32(way.which), weights, fixed, belief, key, (SIZE, jnp.float32(NATS)))
        return jax.device_get(way.group.single(*given))

    def _half(self, way: Way, weights: Any) -> tuple[bool, str]:
        belief, key = _at(0, (self.half_beliefs, self.keys))
        types = {str(x.dtype) for x in jax.tree.leaves(belief)}
        if types != {"float32"}:
            return False, f"the model's belief is of {', '.join(sorted(types))}"
        return _sound(self._single(way, weights, self.half, belief, key))

    def _as_a_loop(
        self, entry: Callable[..., Entry], way: Way, weights: Any, out: Any
    ) -> Iterator[Entry]:
        """Some members of the batch. The first and the last are on different devices if there are
        two.

        Where the last bit of a sum decides whether a step is accepted, chosen or the last one,
        results may differ. Such beliefs are skipped; at least one other belief must remain.
        """
        found, expected = [], []
        for index in (0, BATCH // 2 - 1, BATCH - 1):
            belief, key = _at(index, (self.beliefs, self.keys))
            one = self._single(way, weights, self.fixed, belief, key)
            if same(_choices(one), _choices(_at(index, out)))[0]:
                found.append(one.belief)
                expected.append(_at(index, out.belief))
        # Another order of sums may change the search for a step's length by one position. Its
        # resolution is 34 halvings / 33**3, which is 0.07% of each step.
        good, detail = close(found, expected, 2e-3)
        verdict = (good and bool(found), detail if found else "every one took other steps")
        yield entry("a batch is as a loop", *verdict)
        if self.mesh is not None:
            yield entry("two devices are as one", *verdict)

    def _spoilt(self) -> dict[str, Given]:
        """Model and observation with a NaN."""
        seen = self.fixed.observation
        nan = jax.jit(partial(jax.tree.map, _nan))(self.fixed.arrays)
        out = {"NaN in the model": self.fixed._replace(arrays=nan)}
        kinds = {name: jnp.asarray(x).dtype for name, x in seen.items()}
        floats = [name for name, kind in kinds.items() if jnp.issubdtype(kind, jnp.floating)]
        for what, number in (("NaN", jnp.nan), ("Inf", jnp.inf)) if floats else ():
            bad = {name: jnp.full_like(seen[name], number) for name in floats}
            out[f"{what} in the observation"] = self.fixed._replace(observation={**seen, **bad})
        return out


def _nan(x: jax.Array) -> jax.Array:
    """NaN of the same shape and type; integers, such as a counter, stay."""
    return jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.inexact) else x


@jax.jit
def _around(belief: Any) -> Any:
    """A batch of beliefs near one."""
    return jax.tree.map(
        lambda x: x + 0.5 * jr.normal(jr.key(5), (BATCH, *x.shape), x.dtype), belief
    )


def _at(index: Any, tree: Any) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _choices(out: Any) -> Any:
    """The decisions of a refinement."""
    return out.accepted, out.used, out.chosen


def _safe(out: Any, beliefs: Any) -> tuple[bool, str]:
    returned = same(out.belief, beliefs)[0]
    flagged = not np.any(out.finite[:, 0])
    return returned and flagged, f"returned {returned}, flagged {flagged}"


def _sound(out: Any) -> tuple[bool, str]:
    """Whether every belief, loss and gradient of a refinement is a float32 number."""
    types = sorted({str(x.dtype) for x in jax.tree.leaves(out.belief)})
    numbers = (out.belief, out.loss, out.gradient_norm)
    finite = all(np.all(np.isfinite(x)) for x in jax.tree.leaves(numbers))
    return types == ["float32"] and finite, f"types {types}, finite {finite}"
