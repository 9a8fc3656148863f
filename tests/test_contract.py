"""One table of guarantees: models x terms x updates. See `thinkslow.testing`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_objectives import Fuzzy, gains, push

from thinkslow.distributions import Bernoulli, Categorical
from thinkslow.objectives import TERMS
from thinkslow.parameters import noisy
from thinkslow.testing import UPDATES, Broken, check
from thinkslow.worldmodel import State, WorldModel


class Codes(WorldModel):
    """Two categorical factors of three classes, seen as bits: the smallest model with it all."""

    core: jax.Array
    head: jax.Array
    eyes: jax.Array
    view: jax.Array

    def initial(self) -> State:
        return State(jnp.zeros(4, self.core.dtype), jnp.zeros((2, 3), self.core.dtype))

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        keep = jnp.where(is_first, 0, 1).astype(state.memory.dtype)
        inputs = [state.memory, state.latent.astype(state.memory.dtype).ravel(), action]
        memory = jnp.tanh(keep * jnp.concatenate([x.astype(state.memory.dtype) for x in inputs])
                          @ self.core)  # fmt: skip
        return memory, self._belief(memory @ self.head)

    def infer(self, memory: jax.Array, observation: Any) -> Categorical:
        bits = observation["bits"].astype(memory.dtype)
        return self._belief(memory @ self.head + bits @ self.eyes)

    def decode(self, state: State) -> dict[str, Any]:
        inputs = jnp.concatenate([state.latent.ravel().astype(state.memory.dtype), state.memory])
        logits = inputs @ self.view
        return {"bits": Bernoulli(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))}

    def _belief(self, x: jax.Array) -> Categorical:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return Categorical(x.astype(wide).reshape(2, 3), 0.01)


def codes(seed: int = 0) -> Codes:
    rng = np.random.default_rng(seed)
    shapes = {"core": (12, 4), "head": (4, 6), "eyes": (5, 6), "view": (10, 5)}
    return Codes(**{k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()})


def steer(state: State, key: jax.Array) -> jax.Array:
    return jnp.tanh(state.latent.reshape(3, 2).sum(0))


BITS = {"bits": jnp.array([1.0, 0.0, 0.0, 1.0, 1.0])}


def table(**options: Any) -> list[Any]:
    model = codes()
    members = noisy(model, lambda m: m.head, scale=0.5, count=3, key=jax.random.key(0))
    return check(model, BITS, steer, action=jnp.ones(2), members=members, **options)


def test_the_contract_holds_for_a_categorical_model_under_every_term_and_update():
    entries = table()
    assert {entry.terms for entry in entries if entry.holds} >= set(TERMS)
    assert {entry.update for entry in entries if entry.holds} >= set(UPDATES)
    waived = [entry for entry in entries if entry.holds is None]
    assert {entry.rule for entry in waived} <= {"two devices are as one"}


def test_the_contract_holds_for_a_gaussian_model():
    entries = check(
        Fuzzy(jnp.array(0.8)), {"seen": jnp.array([1.0, -1.0])}, push,
        action=jnp.array([0.3, 0.1]), members=gains(0.5, 1.0, kind=Fuzzy),
        updates={name: UPDATES[name] for name in ("mirror", "gradient-accepted", "adam")},
    )  # fmt: skip
    refused = {entry.update for entry in entries if entry.rule == "can be stepped"}
    assert refused == {"mirror"}


def test_the_contract_holds_for_a_dreamer(dreamer):
    entries = check(
        dreamer, {"image": jnp.zeros((16, 16, 3), jnp.uint8)}, dreamer.policy,
        action=jnp.array([1.0, 0.0, 0.0]), terms=["evidence", "ambiguity"],
        updates={"mirror-accepted": UPDATES["mirror-accepted"]},
    )  # fmt: skip
    (refused,) = [entry for entry in entries if entry.rule == "can be asked for"]
    assert "`ambiguity` needs a decoder whose spread depends on the state" in refused.detail


class Forgetful(Codes):
    """A model whose memory changes type: what a user's first attempt may do."""

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        memory, prior = super().predict(state, action, is_first)
        return memory.astype(jnp.float16), prior


def test_a_model_that_breaks_the_contract_is_told_which_entry():
    model = codes()
    bad = Forgetful(model.core, model.head, model.eyes, model.view)
    with pytest.raises(Broken, match="Forgetful: predict keeps the memory's shapes and types"):
        check(bad, BITS, steer, action=jnp.ones(2), terms=[], updates={})


class Sham(dict):
    """Options that say `accept` to the table and nothing to `refine`."""

    def get(self, key: str, default: Any = None) -> Any:
        return True if key == "accept" else default


def test_an_update_that_only_says_that_it_accepts_is_found_out():
    """The table can fail: random steps end worse on fresh noise."""
    with pytest.raises(Broken, match=r"Codes x anchor x sham: never worse in expectation"):
        table(terms=["anchor"], updates={"sham": (UPDATES["random"][0], Sham())})


def test_two_devices_are_as_one():
    here = Path(__file__).parent
    script = (
        "import test_contract as t\n"
        "entries = t.table(terms=['sig'], updates={'gradient': t.UPDATES['gradient']})\n"
        "found = [e.holds for e in entries if e.rule == 'two devices are as one']\n"
        "assert found == [True], found\n"
    )
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu",
                   "PYTHONPATH": str(here), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
