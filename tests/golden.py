"""Compare our outputs with those that another project's own code computed.

    uv run python tests/golden.py DIR...

A folder holds a checkpoint as its project writes it and `golden.npz`: inputs `in/` and
outputs `out/` per step, `imag/` four imagined steps, `loss/` per element, and for some
`grad/`, the gradient of the summed state information gain. Prints a line per array with the
largest difference and exits 1 if one is beyond its tolerance.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import golden_v1
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow import importers
from thinkslow.distributions import Categorical, SymlogSquared, TwoHot
from thinkslow.dreamer.config import TrainConfig
from thinkslow.dreamer.match_spaces import fit
from thinkslow.dreamer.model import Dreamer, Head
from thinkslow.dreamer.nets import with_named
from thinkslow.dreamer.training.losses import (
    Batch,
    ReturnRange,
    lambda_return,
    losses,
    observe,
    replayed_value_loss,
    total,
    world_model_losses,
)
from thinkslow.importers.foreign import Foreign
from thinkslow.importers.load import read, saved_from
from thinkslow.spaces import Space
from thinkslow.worldmodel import State, imagine

# Float noise of this size is 2e-6 on logits and 1e-6 on images (float32 against float64 of the
# same code); 1e-4 still catches a wrong norm epsilon or an unsorted key.
TOLERANCE = 2e-5
# Sums of thousands of squared pixels: the noise is relative to their size, about 1e3.
RELATIVE = 2e-6
# A near tie in a max-pooling of case a: as rounding falls, the float32 gradient is one of three
# values 2.4e-4 apart. `test_objectives.py` holds it in float64 to 1e-8.
TIED = {"grad/f32/dJ_dlogit": 1e-3}


# What a source stores nowhere: `dyn_discrete` of the torch case.
CLASSES = {"dreamerv3-torch": 8}


class Line(NamedTuple):
    name: str
    difference: float
    allowed: float

    @property
    def good(self) -> bool:
        return self.difference <= self.allowed


def compare(folder: Path) -> list[Line]:
    """A line for each array of the golden file; one that we do not compute is infinitely off."""
    golden = np.load(folder / "golden.npz")
    ours = computed(folder, golden)
    lines = []
    for name in golden.files:
        if name.startswith(("in/", "grad/f64")):
            continue
        theirs = golden[name].astype(np.float64)
        allowed = TIED.get(name, TOLERANCE + RELATIVE * float(np.max(np.abs(theirs))))
        difference = float("inf")
        if name in ours and np.shape(ours[name]) == theirs.shape:
            difference = float(np.max(np.abs(np.asarray(ours[name], np.float64) - theirs)))
        lines.append(Line(name, difference, allowed))
    return lines


def computed(folder: Path, golden: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Our value of each array, by the golden file's names."""
    found = importers.find(folder)
    foreign = read(found, classes=unwritten_classes(folder))
    if foreign.architecture == "dreamerv3-v1":
        return golden_v1.computed(foreign, golden, found.source)
    model, slow = fitted(folder, foreign, golden)
    batch = read_batch(model, golden)
    out, states = _filtered(model, slow, batch)
    start = jax.tree.map(lambda x: x[-1], states)
    actions = _actions(model, golden["in/imag_action"])
    imag = _imagined(model, slow, start, actions)
    ours: dict[str, Any] = {f"out/{name}": array for name, array in out.items()}
    ours |= {f"imag/{name}": array for name, array in imag.items()}
    if found.source == "dreamerv3":
        loss = _losses(model, slow, _returns(foreign.extras), batch, foreign.options["agent"])
        ours |= {f"loss/{name}": array for name, array in loss.items()}
    else:
        ours |= {name.replace("image", "rgb"): x for name, x in ours.items()}
        ours = {name: as_torch(name, x, model) for name, x in ours.items()}
        loss = _torch_losses(model, slow, _returns(foreign.extras), batch)
        ours |= {f"loss/{name}": x for name, x in loss.items()}
    if "grad/f32/dJ_dlogit" in golden:
        logits = jnp.asarray(golden["out/post_logit"][-1])
        gradients = _gradients(model, start.memory, logits, actions)
        ours |= {f"grad/f32/{name}": array for name, array in gradients.items()}
    return ours


def unwritten_classes(folder: Path) -> int | None:
    """What a user passes as `--classes` for the one source that writes no configuration."""
    overrides = json.loads((folder / "golden.json").read_text()).get("overrides")
    return overrides.get("dyn_discrete") if isinstance(overrides, dict) else None


def fitted(
    folder: Path, foreign: Foreign, golden: Mapping[str, np.ndarray]
) -> tuple[Dreamer, Head]:
    """The agent and its slow critic, under the names and shapes of the golden inputs."""
    spaces = {
        name.removeprefix("in/"): Space(x.shape[2:], "uint8" if x.ndim == 5 else "float32")
        for name, x in golden.items()
        if name.removeprefix("in/").split("_")[0] in ("image", "orientations", "height", "velocity")
        and name.startswith("in/")
    }
    (action,) = foreign.actions.values()
    saved = saved_from(folder, importers.find(folder), foreign)
    model = fit(saved, spaces, action, id="the golden inputs").model
    assert isinstance(model, Dreamer)
    slow = with_named(model.critic, {
        name.removeprefix("slowval/"): array
        for name, array in foreign.extras.items() if name.startswith("slowval/")
    })  # fmt: skip
    return model, slow


def as_torch(name: str, x: Any, model: Dreamer) -> Any:
    """An array as PyTorch projects lay it out: image tokens first, channels first."""
    kind = name.partition("/")[2]
    if kind == "tokens":
        units = model.config.encoder.units if model.config.encoder.layers else 0
        side = dict(model.enc.spaces)["image"].shape[0] // 2 ** len(model.config.mults)
        vectors, image = x[..., :units], x[..., units:]
        image = jnp.moveaxis(image.reshape(*x.shape[:2], side, side, -1), -1, 2)
        return jnp.concatenate([image.reshape(*x.shape[:2], -1), vectors], -1)
    return jnp.moveaxis(x, -1, 2) if kind == "recon_rgb" else x


def read_batch(model: Dreamer, golden: Mapping[str, np.ndarray]) -> Batch:
    """The inputs, batch-major."""

    def rows(name: str) -> jax.Array:
        return jnp.swapaxes(jnp.asarray(golden[f"in/{name}"]), 0, 1)

    count = golden["in/is_first"].shape[1]
    return Batch(
        {name: rows(name) for name, _ in model.enc.spaces},
        jnp.swapaxes(_actions(model, golden["in/prev_action"]), 0, 1),
        rows("reward"), rows("is_first"), rows("is_last"), rows("is_terminal"),
        jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), model.initial()),
    )  # fmt: skip


def _actions(model: Dreamer, action: np.ndarray) -> jax.Array:
    ((name, _),) = model.pol.spaces
    return model.encode_action({name: action})


@jax.jit
def _filtered(model: Dreamer, slow: Head, batch: Batch) -> tuple[dict[str, jax.Array], State]:
    """Filter with the contract's own `predict` and `infer`, latents at their mode."""

    def step(state: State, inputs: tuple) -> tuple[State, tuple]:
        observation, action, first = inputs
        memory, prior = model.predict(state, action, first)
        posterior = model.infer(memory, observation)
        state = State(memory, posterior.mode())
        extra = {
            "tokens": model.enc(observation),
            "kl": posterior.kl(prior),
            "kl_raw": raw(posterior).kl(raw(prior)),
            **_latent("post", posterior),
        }
        return state, (describe(model, slow, state, prior) | extra, state)

    sequences = (batch.observation, batch.previous_action, batch.is_first)
    return jax.vmap(lambda s, x: jax.lax.scan(step, s, x)[1], out_axes=1)(batch.start, sequences)


@jax.jit
def _imagined(model: Dreamer, slow: Head, start: State, actions: jax.Array) -> dict[str, jax.Array]:
    def step(state: State, action: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        memory, prior = model.predict(state, action, jnp.zeros((), bool))
        state = State(memory, prior.mode())
        return state, describe(model, slow, state, prior)

    return jax.vmap(lambda s, a: jax.lax.scan(step, s, a)[1], (0, 1), 1)(start, actions)


def describe(model: Dreamer, slow: Head, state: State, prior: Any) -> dict[str, jax.Array]:
    """What every head says of one state, by the golden file's names."""
    reward, value = model.reward(state), model.value(state)
    going_on = model.continuation(state)
    (actor,) = model.actor(state).values()
    if isinstance(actor, Categorical):
        logits = actor.log_probs() if actor.mix else actor.logits
        policy = {
            "policy_logits": logits, "policy_logits_raw": actor.logits,
            "policy_prob": actor.probs(),
        }  # fmt: skip
    else:
        policy = {"policy_mean": actor.mean, "policy_std": actor.scale}
    reconstruction = {
        f"recon_{name}": head.symlog_mean if isinstance(head, SymlogSquared) else head.mode()
        for name, head in model.decode(state).items()
    } | {
        f"recon_symexp_{name}": head.mode()
        for name, head in model.decode(state).items() if isinstance(head, SymlogSquared)
    }  # fmt: skip
    return {
        "deter": state.memory, "stoch": state.latent, "reward": reward.mean(),
        "reward_logits": reward.logits, "value": value.mean(), "value_logits": value.logits,
        "slow_value": TwoHot(slow(model.features(state))).mean(), "cont_logit": going_on.logit,
        "cont_prob": going_on.prob(), "policy_entropy": actor.entropy(),
        "feat": jnp.concatenate([state.latent.ravel(), state.memory]),  # as PyTorch projects join
        **policy, **reconstruction, **_latent("prior", prior),
    }  # fmt: skip


def raw(belief: Any) -> Categorical:
    """The same logits without the uniform mix."""
    return Categorical(belief.logits)


def _latent(name: str, belief: Any) -> dict[str, jax.Array]:
    return {
        f"{name}_logit": belief.logits,
        f"{name}_prob": belief.probs(),
        f"{name}_entropy": belief.entropy(),
    }


def official(name: str) -> str:
    """A loss as the source calls it: a reconstruction by the name of its observation alone."""
    return name.removeprefix("reconstruction/")


def _returns(weights: Mapping[str, np.ndarray]) -> ReturnRange:
    return ReturnRange(*(jnp.asarray(weights[f"retnorm/{end}/value"]) for end in ("lo", "hi")))


def _losses(
    model: Dreamer, slow: Head, returns: ReturnRange, batch: Batch, agent: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Every loss as the source configured it, time-major; its returns are not updated here."""
    config = TrainConfig(
        imagination=agent["imag_length"],
        imagination_starts=agent["imag_last"],
        horizon=agent["horizon"],
        actor_entropy=agent["imag_loss"]["actent"],
        trace=agent["imag_loss"]["lam"],
        replay_value_scale=agent["loss_scales"]["repval"],
    )
    compiled = jax.jit(losses, static_argnames=("config", "readout", "update_returns"))
    parts, *_ = compiled(
        model, slow, returns, batch, config=config, key=jr.key(0), readout="mode",
        update_returns=False,
    )  # fmt: skip
    named = {official(name): part.T for name, part in parts.items()}
    return named | {"total": total(parts, model, config)}


@jax.jit
def _torch_losses(
    model: Dreamer, slow: Head, returns: ReturnRange, batch: Batch
) -> dict[str, jax.Array]:
    """The losses of r2dreamer, means, with its defaults.

    It differs from the official code in what a KL is of (raw logits), in where the discount is
    (outside of the continue head) and in the weights of imagined steps that follow from it.
    """
    states, posterior, prior = observe(model, batch, key=jr.key(0), readout="mode")
    # A horizon without end: its continue head learns 1 where an episode goes on.
    endless, config = TrainConfig(horizon=10**12), TrainConfig()
    out = world_model_losses(model, batch, states, posterior, prior, endless)
    each = jax.vmap(jax.vmap(lambda a, b: raw(a).kl(raw(b))))(posterior, prior)
    out["dyn"] = out["rep"] = jnp.maximum(each, model.config.free_nats)
    rows, count = batch.is_first.shape
    start = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)

    def rollout(state: State) -> tuple[State, jax.Array]:
        steps = imagine(model, model.greedy, state, horizon=config.imagination, key=jr.key(0),
                        readout="mode")  # fmt: skip
        states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state, steps.state)
        last = model.greedy(jax.tree.map(lambda x: x[-1], states), jr.key(0))
        return states, jnp.concatenate([steps.action, last[None]])

    future, actions = jax.vmap(rollout)(start)

    def judge(state: State, action: jax.Array) -> tuple[jax.Array, ...]:
        ((name, actor),) = model.actor(state).items()
        taken = model.parts(action)[name]
        return (
            model.reward(state).mean(), model.discount(state), model.value(state).mean(),
            TwoHot(slow(model.features(state))).mean(), actor.log_prob(taken), actor.entropy(),
        )  # fmt: skip

    reward, going_on, value, calm, log_prob, entropy = jax.vmap(jax.vmap(judge))(future, actions)
    gain = lambda_return(
        jnp.zeros_like(value), 1 - going_on, reward, value, discount=1.0, trace=config.trace
    )
    weight = jnp.cumprod(going_on, 1)[:, :-1]
    returns = returns.updated(gain, config)
    advantage = (gain - value[:, :-1]) / returns.scale
    entropy = entropy[:, :-1]
    out["policy"] = -weight * (log_prob[:, :-1] * advantage + config.actor_entropy * entropy)
    score = jax.vmap(jax.vmap(lambda s, a, b: -sum(map(model.value(s).log_prob, (a, b)))))
    early = jax.tree.map(lambda x: x[:, :-1], future)
    out["value"] = weight * score(early, gain, calm[:, :-1])
    out["repval"] = replayed_value_loss(
        model, slow, states, batch.reward, batch.is_last, batch.is_terminal,
        gain[:, 0].reshape(rows, count), config,
    )  # fmt: skip
    parts = {official(name): jnp.mean(part) for name, part in out.items()}
    entropies = {
        f"metric_{name}_entropy": jnp.mean(jax.vmap(jax.vmap(lambda b: b.entropy()))(belief))
        for name, belief in (("dyn", prior), ("rep", posterior))
    }
    return parts | entropies | {
        "metric_ret": jnp.mean((gain - returns.low) / returns.scale),
        "metric_ret_005": returns.low, "metric_ret_095": returns.high,
        "metric_adv": jnp.mean(advantage), "metric_action_entropy": jnp.mean(entropy),
        "metric_opt_loss": total(out, model, config),
    }  # fmt: skip


def information_gradient(
    model: Dreamer, memory: jax.Array, logits: jax.Array, actions: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """State information gain of imagined steps under given actions, and its gradient.

    The same objective as `objectives.state_information_gain` on `imagine`, with latents at
    their mode and the actions given instead of the policy's.
    """

    def gain(logits: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        state = State(memory, Categorical(logits, model.config.unimix).mode())

        def step(state: State, action: jax.Array) -> tuple[State, dict[str, jax.Array]]:
            memory, prior = model.predict(state, action, jnp.zeros((), bool))
            state = State(memory, prior.mode())
            observation = {name: head.mode() for name, head in model.decode(state).items()}
            posterior: Any = model.infer(memory, observation)
            return state, {
                "kl": posterior.kl(prior),
                "reencoded_tokens": model.enc(observation),
                "reencoded_post_logit": posterior.logits,
            }

        steps = jax.lax.scan(step, state, actions)[1]
        return jnp.sum(steps["kl"]), steps

    (value, steps), gradient = jax.value_and_grad(gain, has_aux=True)(logits)
    return {"J_per_batch": value, "dJ_dlogit": gradient}, steps


@jax.jit
def _gradients(
    model: Dreamer, memory: jax.Array, logits: jax.Array, actions: jax.Array
) -> dict[str, jax.Array]:
    batched = jax.vmap(information_gradient, (None, 0, 0, 1), (0, 1))
    found, steps = batched(model, memory, logits, actions)
    return found | steps


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    bad = count = 0
    for folder in parser.parse_args().folders:
        print(folder)
        if not (folder / "golden.npz").is_file():
            print("  holds no golden.npz: nothing to compare with")
            continue
        for line in compare(folder):
            count, bad = count + 1, bad + (not line.good)
            mark = "ok " if line.good else "OFF"
            print(f"  {mark} {line.name:32} {line.difference:.2e}  (allowed {line.allowed:.1e})")
    if not count:
        parser.error("no folder holds a golden.npz to compare with.")
    print(f"{count - bad} of {count} arrays agree." if bad else f"All {count} arrays agree.")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
