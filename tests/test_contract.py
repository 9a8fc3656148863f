"""One table of guarantees: models x terms x updates. See `thinkslow.testing`."""

import os
import re
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import (
    BITS,
    Codes,
    Fuzzy,
    Guided,
    NearPlace,
    Toll,
    codes,
    gains,
    nightly,
    push,
    slow,
    steer,
    tiny_dreamer,
    tiny_v1,
)

from thinkslow import toy
from thinkslow.agent.agent import Agent
from thinkslow.agent.checks import RandomRejection
from thinkslow.agent.gates import Surprise, ValueOfComputation
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Categorical
from thinkslow.objectives import PIG, SIG, Ambiguity, Anchor, Entropy, Evidence, lookahead
from thinkslow.objectives.members import Noise, checkpoints
from thinkslow.readouts import Soft
from thinkslow.refinement import Gradient, refine
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space
from thinkslow.testing import TERMS, UPDATES, WAYS, Broken, Way, case, check, models, updates
from thinkslow.worldmodel import State

EVIDENCE = Evidence(0.5, 0.0, samples=2)
CHOICE = "values"
"""Choosing by value, which only a model with a critic can."""
KINDS = (SIG(), PIG(), EVIDENCE, Anchor())
"""Terms of the future, of members, of the present with draws, and of the beliefs alone."""
HELD = {"anchor", "prior", "l2"}
"""Terms that look at the beliefs alone, not at the model."""


def table(**options: Any) -> list[Any]:
    model = codes()
    members = Noise(0.5, 3, lambda m: m.head)(model, key=jr.key(0))
    given: dict[str, Any] = {"ways": {}} | options
    return check(model, BITS, steer, action=jnp.ones(2), members=members, **given)


def fuzzy(**options: Any) -> list[Any]:
    return check(
        Fuzzy(jnp.array(0.8)),
        {"seen": jnp.array([1.0, -1.0])},
        push,
        action=jnp.array([0.3, 0.1]),
        members=gains(0.5, 1.0, kind=Fuzzy),
        **options,
    )


def walk(**options: Any) -> list[Any]:
    """The encoder errs; its observation is given as probabilities, which can be no number."""
    problem = toy.ring(4)
    model = toy.noisy(problem, 0.5)
    members = checkpoints([toy.exact(one) for one in toy.family(problem, 3, spread=0.3)])
    return check(
        model,
        {"symbol": jnp.array([1.0, 0.0, 0.0])},
        model.policy,
        action=jnp.array([0.0, 1.0]),
        members=members,
        **options,
    )


def small(classes: int | None = 8, **options: Any) -> list[Any]:
    """A DreamerV3 that sees an image, in numbers so that they can be none, and a gear, whose
    head has a spread, so that no term is refused."""
    parts = {"image": Space((16, 16, 3), "uint8"), "gear": Space((), "int32", 4)}
    model = tiny_dreamer(observations=parts, classes=classes)
    members = Noise(0.5, 2)(model, key=jr.key(0))
    seen = {"image": jnp.full((16, 16, 3), 0.4), "gear": jnp.array(2)}
    return check(
        model, seen, model.policy, action=jnp.array([1.0, 0.0, 0.0]), members=members, **options
    )


def of_2023(**options: Any) -> list[Any]:
    """Profile `v1`; of an image alone, so that two terms are refused."""
    model = tiny_v1()
    members = Noise(0.5, 2)(model, key=jr.key(1))
    seen = {"image": jnp.full((16, 16, 3), 0.4)}
    return check(
        model, seen, model.policy, action=jnp.array([1.0, 0.0, 0.0]), members=members, **options
    )


MODELS: dict[str, Any] = {
    "codes": table,
    "gaussian": fuzzy,
    "toy": walk,
    "dreamer": small,
    "gaussian dreamer": partial(small, classes=None),
    "dreamer of 2023": of_2023,
}


# All models under every update take nine minutes: .ci/nightly. In the slow tier the smallest is
# held to a term of each kind under one update. The nightly tier holds it to the whole cross, and
# the others to an update each, since what the others add does not look at the model.
@pytest.mark.parametrize(
    ("name", "terms", "updates", "refused", "blind"),
    [
        slow("codes", KINDS, ("gradient",), set(), {"anchor"}),
        *(
            nightly(*entry)
            for entry in (
                ("codes", TERMS, tuple(UPDATES), set(), HELD),
                # Its one parameter is in the prior's mean alone.
                (
                    "gaussian",
                    TERMS,
                    ("langevin", "mirror"),
                    {"mirror"},
                    HELD | {"entropy", "evidence"},
                ),
                ("toy", (SIG(), PIG(), Ambiguity(), EVIDENCE), ("mirror",), set(), set()),
                ("dreamer", (SIG(), PIG(), Entropy(), EVIDENCE), ("gradient",), set(), set()),
                ("dreamer of 2023", (SIG(), Ambiguity()), ("mirror",), {"ambiguity"}, set()),
            )
        ),
    ],
)
def test_the_contract_holds_for_every_term_and_update(name, terms, updates, refused, blind):
    named = {update: UPDATES[update] for update in updates}
    entries = MODELS[name](terms=terms, updates=named, ways={})
    held = {(entry.terms, entry.update) for entry in entries if entry.holds}
    names = [term.name for term in terms if term.name not in refused]
    pairs = set(product({*names, "+".join(names)}, set(updates) - refused))
    assert held >= pairs
    waived = {(entry.rule, entry.terms or entry.update) for entry in entries if entry.holds is None}
    assert {term for rule, term in waived if rule.startswith("NaN in the model")} == blind
    asked = {what for rule, what in waived if rule in ("applies to the model", "can be stepped")}
    assert asked - {CHOICE} == refused
    sighted = {term for rule, term in waived if rule.startswith("NaN in the observation")}
    assert sighted == set(names) - {"evidence"}


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        slow(
            "codes",
            {
                "steps of the state",
                "steps of the memory",
                "joint smoothing",
                "check Covered",
            },
        ),
        pytest.param(
            "gaussian",
            {"joint smoothing", "check Covered"},
            marks=pytest.mark.nightly,
        ),
        nightly("dreamer", set()),
        nightly("gaussian dreamer", set()),
        nightly("dreamer of 2023", set()),
    ],
)
def test_the_contract_holds_for_every_way_to_think(name, refused):
    entries = MODELS[name](terms=[], updates={}, ways=WAYS)
    held = {entry.terms for entry in entries if entry.holds}
    waived = {entry.terms: entry.detail for entry in entries if entry.holds is None}
    assert waived.keys() - {CHOICE} == refused
    assert all(waived.values())
    assert held >= WAYS.keys() - refused


@pytest.mark.slow
def test_a_way_whose_strength_counts_for_nothing_or_always_is_found_out():
    found = broken(
        terms=[],
        updates={},
        ways={
            "always": Way(Thinking(readout=Soft())),
            "never": Way(Thinking(check=RandomRejection()), Thinking(check=RandomRejection())),
            "anew": Way(Thinking(missing="predict", carry=False), Thinking(missing="predict")),
            "shut": Way(Thinking({Anchor(): 1.0}, steps=1, max_kl=0.0), gate=Surprise()),
        },
    )
    assert "Codes x always: no strength does not change state and action" in found
    assert "Codes x always: full strength changes state or belief" in found
    assert "Codes x anew: changed numbers do not compile again: 1 programs" in found
    assert "Codes x shut: full strength changes state or belief" in found
    assert "never" not in found


@pytest.mark.slow
def test_a_gate_that_lacks_what_it_needs_is_refused_with_the_reason():
    way = Way(Thinking({Anchor(): 1.0}, steps=1), gate=ValueOfComputation())
    entries = MODELS["codes"](terms=[], updates={}, ways={"voc": way})
    (entry,) = [each for each in entries if each.terms == "voc"]
    assert entry.holds is None
    assert "actor" in entry.detail


@pytest.mark.slow
def test_the_contract_is_that_of_terms_of_ones_own_too():
    """One of the present, one of the future, and one that needs what the model lacks."""
    model = codes()
    entries = check(
        model,
        BITS,
        steer,
        action=jnp.ones(2),
        terms=[NearPlace(0.3), Toll(), Guided()],
        updates={"mirror": UPDATES["mirror"]},
        ways={},
    )
    held = {entry.terms for entry in entries if entry.holds and entry.update}
    assert held == {"near-place", "toll", "near-place+toll"}
    (refused,) = [
        entry for entry in entries if entry.rule == "applies to the model" and entry.terms != CHOICE
    ]
    assert refused.terms == "guided"
    assert refused.holds is None
    assert "it has no map" in refused.detail


@pytest.mark.nightly
def test_the_contract_holds_for_a_trained_gaussian_agent():
    """`tiny-gaussian` after 117,728 decisions, on a frame with structure."""
    saved = checkpoint.load(Path(__file__).parent / "agents" / "collect-gaussian")
    rows = jnp.linspace(0.0, 1.0, 64)
    image = jnp.stack(jnp.broadcast_arrays(rows[:, None], rows, 0.5), -1)
    entries = check(
        saved.model,
        {"image": image},
        saved.model.policy,
        action=jnp.array([1.0, 0.0, 0.0]),
        terms=[SIG(), Evidence()],
        updates={name: UPDATES[name] for name in ("gradient", "mirror")},
        ways={},
    )
    held = {(entry.terms, entry.update) for entry in entries if entry.holds}
    assert held >= set(product(["sig", "evidence", "sig+evidence"], ["gradient"]))
    assert {entry.update for entry in entries if entry.rule == "can be stepped"} == {"mirror"}


class Forgetful(Codes):
    """A model whose memory changes type: what a user's first attempt may do."""

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        memory, prior = super().predict(state, action, is_first)
        return memory.astype(jnp.float16), prior


def test_a_model_that_breaks_the_contract_is_told_which_entry():
    """The several futures of a wrong type ended the contract with an error of JAX."""
    model = codes()
    bad = Forgetful(model.core, model.head, model.eyes, model.view)
    with pytest.raises(Broken, match="Forgetful: predict keeps the memory's shapes and types"):
        check(bad, BITS, steer, action=jnp.ones(2))


class Sham(dict):
    """Options that say `accept` to the table and nothing to `refine`."""

    def get(self, key: str, default: Any = None) -> Any:
        return True if key == "accept" else default


@pytest.mark.slow
def test_an_update_that_only_says_that_it_accepts_is_found_out():
    """The table can fail: random steps end worse on fresh noise."""
    with pytest.raises(Broken, match=r"Codes x anchor x sham: never worse in expectation"):
        table(terms=[Anchor()], updates={"sham": (UPDATES["random"][0], Sham())})


def _in_a_batch(size: int, batched: Any, x: jax.Array) -> tuple[jax.Array, bool]:
    return x + 0.01 * x.mean(0), True


leaky: Any = jax.custom_batching.custom_vmap(lambda x: x)
"""Itself, but in a batch, where each takes on something of the others."""
leaky.def_vmap(_in_a_batch)


def shams() -> dict[str, Any]:
    """What is wrong with a `refine` to the rules that say so."""

    def leaks(*given: Any, **options: Any) -> Any:
        out = refine(*given, **options)
        return out._replace(belief=jax.tree.map(leaky, out.belief))

    def hides(objective: Any, *given: Any, **options: Any) -> Any:
        return refine(lambda b, k: jax.tree.map(jnp.nan_to_num, objective(b, k)), *given, **options)

    def unbound(*given: Any, step_kl: Any, max_kl: Any, **options: Any) -> Any:
        return refine(*given, step_kl=jnp.inf, **options)

    def misreports(*given: Any, **options: Any) -> Any:
        out = refine(*given, **options)
        return out._replace(loss=out.loss + 0.1, gradient_norm=out.gradient_norm / 0)

    return {
        "leaks": (leaks, ["each example of a batch is refined separately", "a batch is as a loop"]),
        "hides": (hides, ["NaN in the objective gives the last finite belief, flagged"]),
        "unbound": (unbound, ["within its nats", "0 nats are the identity"]),
        "misreports": (
            misreports,
            ["the reported loss is the returned belief's", "float32 and finite"],
        ),
    }


def broken(**options: Any) -> str:
    with pytest.raises(Broken) as found:
        table(**options)
    return str(found.value)


@pytest.mark.slow
@pytest.mark.parametrize("sham", ["leaks", "hides", "unbound", "misreports"])
def test_a_refinement_that_breaks_a_rule_is_found_out(sham, monkeypatch):
    wrong, rules = shams()[sham]
    monkeypatch.setattr(updates, "refine", wrong)
    big = (lambda _: Gradient(1e3), {})
    found = broken(terms=[Anchor()], updates={"sham": big})
    for rule in rules:
        assert f"Codes x anchor x sham: {rule}" in found


@pytest.mark.slow
def test_thinking_that_draws_the_numbers_of_others_is_found_out(monkeypatch):
    """Thinking that takes a key before the latent and the action do; and a die of NumPy's."""

    class Greedy(Agent):
        def act(
            self, carry: Any, observation: Any, is_first: Any, *, keys: Any, **told: Any
        ) -> Any:
            if self.settings.terms:
                np.random.normal()
                keys = jax.vmap(lambda key: jr.split(key)[0])(keys)
            return super().act(carry, observation, is_first, keys=keys, **told)

    monkeypatch.setattr(models, "Agent", Greedy)
    found = broken(terms=[])
    for nothing in ("no steps", "0 nats"):
        assert re.search(rf"Codes: thinking of {nothing} [^:]*: they differ", found)
    assert "Codes: thinking leaves the random numbers of latent and action: equal False" in found
    assert "Codes: NumPy's global random numbers are untouched" in found


class Narrow(Codes):
    """A model whose beliefs are as narrow as its parameters."""

    def _belief(self, x: jax.Array) -> Categorical:
        return Categorical(x.reshape(2, 3), 0.01)


@pytest.mark.slow
def test_a_belief_that_narrows_with_its_model_is_found_out():
    model = codes()
    narrow = Narrow(model.core, model.head, model.eyes, model.view)
    with pytest.raises(Broken, match=r"anchor x gradient: float32 and finite under a bfloat16"):
        check(
            narrow,
            BITS,
            steer,
            action=jnp.ones(2),
            terms=[Anchor()],
            updates={"gradient": UPDATES["gradient"]},
            ways={},
        )


@pytest.mark.slow
def test_a_sum_that_is_not_weighted_is_found_out(monkeypatch):
    def doubled(*given: Any, **options: Any) -> Any:
        objective = lookahead(*given, **options)

        def twice(belief: Any, key: Any) -> Any:
            total, terms = objective(belief, key)
            return 2 * total, terms

        return twice

    monkeypatch.setattr(case, "lookahead", doubled)
    found = broken(terms=[Anchor(), Entropy()], updates={})
    assert "Codes x anchor+entropy: the objective is the weighted sum of its terms" in found


EAGER = ("gradient", "langevin", "mirror-accepted", "gradient-adaptive")
"""Updates of every kind and option; the nightly tier has all."""


@pytest.mark.parametrize("name", [slow(n) if n in EAGER else nightly(n) for n in UPDATES])
def test_every_update_compiled_is_as_eager(name):
    make, options = UPDATES[name]
    belief = Categorical(jnp.array([[0.3, -0.2, 0.5], [0.1, 0.0, -0.4]]), 0.01)

    def bowl(belief: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        latent = belief.sample(key=key)
        return jnp.sum(belief.probs() * jnp.arange(6.0).reshape(2, 3)) + 0.1 * latent[0, 0], {}

    def go() -> Any:
        return refine(bowl, belief, make(0.5), steps=2, key=jr.key(0), step_kl=0.1, **options)

    compiled = jax.jit(go)()
    with jax.disable_jit():
        eager = go()
    # The length of a step is found to a thousandth.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-5), compiled, eager)


@pytest.mark.slow
@pytest.mark.nightly
def test_two_devices_are_as_one():
    here = Path(__file__).parent
    script = (
        "import test_contract as t\n"
        "updates = {name: t.UPDATES[name] for name in ('gradient', 'mirror', 'langevin')}\n"
        "entries = t.table(terms=[t.SIG()], updates=updates)\n"
        "found = [e.holds for e in entries if e.rule == 'two devices are as one']\n"
        "assert found == [True] * len(updates), found\n"
    )
    flags = "--xla_force_host_platform_device_count=2"
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(here),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


if __name__ == "__main__":
    for kind, run in MODELS.items():
        print(f"{kind}: {sum(entry.holds is True for entry in run())} entries hold", flush=True)
