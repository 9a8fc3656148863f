"""Compare our outputs with those that another project's own code computed.

    uv run python tests/golden.py DIR...

A folder holds a checkpoint as its project writes it and `golden.npz`: inputs `in/` and
outputs `out/` per step, `imag/` four imagined steps, `loss/` per element, and for some
`grad/`, the gradient of the summed state information gain. Prints a line per array with the
largest difference and exits 1 if one is beyond its tolerance.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import golden_inputs as inputs
import golden_v1
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from golden_heads import described, latent

from thinkslow import importers
from thinkslow.distributions import Categorical
from thinkslow.dreamer.config import ModelConfig, TrainConfig
from thinkslow.dreamer.match_spaces import match_spaces
from thinkslow.dreamer.model import Dreamer, Head
from thinkslow.dreamer.training.losses import (
    Batch,
    ReturnRange,
    lambda_return,
    losses,
    observe,
    replayed_value_loss,
    world_model_losses,
)
from thinkslow.dreamer.v1.config import V1Config
from thinkslow.heads import TwoHot
from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.loading import read, saved_from
from thinkslow.importers.options import option
from thinkslow.readouts import Mode
from thinkslow.storage.store import Misfit
from thinkslow.weights import with_named
from thinkslow.worldmodel import State, imagine

# A near tie in a max-pooling of case a: as rounding falls, the float32 gradient is one of three
# values 2.4e-4 apart. `test_gradients.py` holds it in float64 to 1e-8.
TIED = {"grad/f32/dJ_dlogit": 1e-3}
SCALES = {"rep": 0.1, "repval": 0.3}
"""Weights of losses that are not 1 by default."""


class Line(NamedTuple):
    name: str
    difference: float
    allowed: float

    @property
    def good(self) -> bool:
        return self.difference <= self.allowed


def compare(folder: Path) -> list[Line]:
    """A line for each array of the golden file; one that we do not compute is infinitely off."""
    with np.load(folder / "golden.npz") as file:
        golden = dict(file)
    foreign, ours = computed(folder, golden)
    compared = {n: x for n, x in golden.items() if not n.startswith(("in/", "grad/f64"))}
    shown = Renamed(ours, compared)
    summed = _summands(foreign)
    lines = []
    for name, array in compared.items():
        theirs = array.astype(np.float64)
        limit = TIED.get(name) or inputs.allowed(
            name, array, golden, summed=summed, wide_bins=isinstance(foreign.model, ModelConfig)
        )
        difference = float("inf")
        found = shown(name)
        if found is not None and np.shape(found) == theirs.shape:
            difference = float(np.max(np.abs(np.asarray(found, np.float64) - theirs), initial=0.0))
        lines.append(Line(name, difference, limit))
    return lines


class Renamed:
    """Our arrays under the golden file's names: an image that is alone may be called otherwise."""

    def __init__(self, ours: Mapping[str, Any], theirs: Mapping[str, Any]):
        self.ours = ours
        self.others: dict[str, str] = {}
        for stem in ("out/recon_", "imag/recon_", "loss/"):
            unknown = [n for n in theirs if n.startswith(stem) and n not in ours]
            spare = [n for n in ours if n.startswith(stem) and n not in theirs]
            if stem == "loss/":  # only what is called like an observation
                named = {n.removeprefix("out/recon_") for n in ours if n.startswith("out/recon_")}
                spare = [n for n in spare if n.removeprefix(stem) in named]
            if len(unknown) == len(spare) == 1:
                self.others[unknown[0]] = spare[0]

    def __call__(self, name: str) -> Any:
        return self.ours.get(name, self.ours.get(self.others.get(name, "")))


def _summands(foreign: Foreign) -> dict[str, int]:
    """How many numbers each loss adds up."""
    config = foreign.model
    latent = config.stoch * (config.classes or 1)
    sizes = {name: math.prod(space.shape) for name, space in foreign.observations.items()}
    pictures = sum(
        size for name, size in sizes.items() if len(foreign.observations[name].shape) == 3
    )
    every = sum(sizes.values())
    whole = ("total", "metric_opt_loss", "observation_loss", "world_model_loss")
    return {
        **dict.fromkeys(("image", "rgb"), pictures),
        **sizes,
        **dict.fromkeys(("kl", "dyn", "rep", "state_loss"), latent),
        **dict.fromkeys(whole, every + 2 * latent),
    }


def computed(folder: Path, golden: Mapping[str, np.ndarray]) -> tuple[Foreign, dict[str, Any]]:
    """The agent, and our value of each array by the golden file's names."""
    found = importers.find(folder)
    foreign = _read(found, folder, golden)
    if isinstance(foreign.model, V1Config):
        return foreign, golden_v1.computed(foreign, golden, found.format)
    model, slow = fitted(folder, foreign, golden)
    batch = read_batch(model, golden)
    out, states = _filtered(model, slow, batch)
    start = jax.tree.map(lambda x: x[-1], states)
    actions = _actions(model, golden, "imag_action")
    imag = _imagined(model, slow, start, actions)
    ours: dict[str, Any] = {f"out/{name}": array for name, array in out.items()}
    ours |= {f"imag/{name}": array for name, array in imag.items()}
    loss: dict[str, jax.Array] = {}
    wanted = any(name.startswith("loss/") for name in golden)
    if found.format == "dreamerv3" and wanted:
        loss = _losses(model, slow, _returns(foreign.extras), batch, foreign.options)
    elif wanted:
        loss = _torch_losses(model, slow, _returns(foreign.extras), batch, foreign.options)
    if found.format != "dreamerv3":
        ours = {n: as_torch(n, x, model, found.format) for n, x in ours.items()}
    ours |= {f"loss/{name}": x for name, x in loss.items()}
    if "grad/f32/dJ_dlogit" in golden:
        logits = jnp.asarray(golden["out/post_logit"][-1])
        gradients = _gradients(model, start.memory, logits, actions)
        ours |= {f"grad/f32/{name}": array for name, array in gradients.items()}
    return foreign, ours


def _read(found: Found, folder: Path, golden: Mapping[str, np.ndarray]) -> Foreign:
    """The agent, given what its source writes nowhere: the classes, the order of its vectors."""
    classes = inputs.unwritten_classes(folder)
    try:
        return read(found, classes=classes)
    except Misfit:
        if found.format != "dreamerv3-v1":
            raise
        names = inputs.observations(golden, {})
        vectors = tuple(name for name in names if golden[f"in/{name}"].ndim < 5)
        return read(found, classes=classes, vectors=vectors)


def fitted(
    folder: Path, foreign: Foreign, golden: Mapping[str, np.ndarray]
) -> tuple[Dreamer, Head]:
    """The agent and its slow critic, under the names and shapes of the golden inputs."""
    spaces = {
        name: inputs.space(golden[f"in/{name}"], foreign.observations.get(name))
        for name in inputs.observations(golden, foreign.actions)
    }
    saved = saved_from(folder, importers.find(folder), foreign)
    model, _ = match_spaces(
        saved.model, None, spaces, foreign.actions, name=saved.name, id="the golden inputs"
    )
    assert isinstance(model, Dreamer)
    slow = with_named(
        model.critic,
        {
            name.removeprefix("slowval/"): array
            for name, array in foreign.extras.items()
            if name.startswith("slowval/")
        },
    )
    return model, slow


def as_torch(name: str, x: Any, model: Dreamer, source: str) -> Any:
    """An array as PyTorch projects lay it out: image tokens first, and channels first."""
    kind = name.partition("/")[2]
    pictures = {name: space for name, space in model.enc.spaces if len(space.shape) == 3}
    if kind == "tokens" and pictures:
        vectors = len(pictures) < len(model.enc.spaces)
        units = model.config.encoder.units if vectors else 0
        height, breadth, _ = next(iter(pictures.values())).shape
        rows, columns = (side // 2 ** len(model.config.mults) for side in (height, breadth))
        vector, image = x[..., :units], x[..., units:]
        image = jnp.moveaxis(image.reshape(*x.shape[:2], rows, columns, -1), -1, 2)
        return jnp.concatenate([image.reshape(*x.shape[:2], -1), vector], -1)
    channels_first = source.startswith("sheeprl") and kind.removeprefix("recon_") in pictures
    return jnp.moveaxis(x, -1, 2) if channels_first else x


def read_batch(model: Dreamer, golden: Mapping[str, np.ndarray]) -> Batch:
    """The inputs, batch-major."""

    def rows(name: str) -> jax.Array:
        return jnp.swapaxes(jnp.asarray(golden[f"in/{name}"]), 0, 1)

    count = golden["in/is_first"].shape[1]
    return Batch(
        {name: rows(name) for name, _ in model.enc.spaces},
        jnp.swapaxes(_actions(model, golden, "prev_action"), 0, 1),
        rows("reward"),
        rows("is_first"),
        rows("is_last"),
        rows("is_terminal"),
        jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), model.initial()),
    )


def _actions(model: Dreamer, golden: Mapping[str, np.ndarray], stem: str) -> jax.Array:
    return model.encode_action(inputs.action(golden, stem, dict(model.action_spaces)))


@jax.jit
def _filtered(model: Dreamer, slow: Head, batch: Batch) -> tuple[dict[str, jax.Array], State]:
    """Filter with the contract's own `predict` and `infer`, latents at their mode."""

    def step(state: State, inputs: tuple) -> tuple[State, tuple]:
        observation, action, first = inputs
        memory, prior = model.predict(state, action, first)
        posterior = model.infer(memory, observation)
        state = State(memory, posterior.mode())
        told = described(model, state, prior, _slow_value(model, slow, state))
        extra = {
            "tokens": model.enc(observation),
            "kl": posterior.kl(prior),
            "kl_raw": raw(posterior).kl(raw(prior)),
            **latent("post", posterior),
        }
        return state, (told | extra, state)

    sequences = (batch.observation, batch.previous_action, batch.is_first)
    return jax.vmap(lambda s, x: jax.lax.scan(step, s, x)[1], out_axes=1)(batch.start, sequences)


@jax.jit
def _imagined(model: Dreamer, slow: Head, start: State, actions: jax.Array) -> dict[str, jax.Array]:
    def step(state: State, action: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        memory, prior = model.predict(state, action, jnp.zeros((), bool))
        state = State(memory, prior.mode())
        return state, described(model, state, prior, _slow_value(model, slow, state))

    return jax.vmap(lambda s, a: jax.lax.scan(step, s, a)[1], (0, 1), 1)(start, actions)


def _slow_value(model: Dreamer, slow: Head, state: State) -> jax.Array:
    return TwoHot(slow(model.features(state))).mean()


def raw(belief: Any) -> Categorical:
    """The same logits without the uniform mix."""
    return Categorical(belief.logits)


def official(name: str) -> str:
    """A loss as the source calls it: a reconstruction by the name of its observation alone."""
    return name.removeprefix("reconstruction/")


def _returns(weights: Mapping[str, np.ndarray]) -> ReturnRange:
    return ReturnRange(
        *(jnp.asarray(weights.get(f"retnorm/{end}/value", 0.0)) for end in ("lo", "hi"))
    )


def _losses(
    model: Dreamer, slow: Head, returns: ReturnRange, batch: Batch, options: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Every loss as the source configured it, time-major; its returns are not updated here."""
    config = _training(
        options,
        {
            "imagination": "agent.imag_length",
            "imagination_starts": "agent.imag_last",
            "horizon": "agent.horizon",
            "actor_entropy": "agent.imag_loss.actent",
            "trace": "agent.imag_loss.lam",
        },
    )
    compiled = jax.jit(losses, static_argnames=("config", "readout", "update_returns"))
    parts, *_ = compiled(
        model,
        slow,
        returns,
        batch,
        config=config,
        key=jr.key(0),
        readout=Mode(),
        update_returns=False,
    )
    parts = {official(name): part for name, part in parts.items()}
    seen = {name for name, _ in model.enc.spaces}
    scales = {
        name: option(
            options,
            f"agent.loss_scales.{'rec' if name in seen else name}",
            float,
            SCALES.get(name, 1.0),
        )
        for name in parts
    }
    every = sum((scales[name] * jnp.mean(part) for name, part in parts.items()), jnp.zeros(()))
    return {name: part.T for name, part in parts.items()} | {"total": every}


def _training(options: Mapping[str, Any], paths: Mapping[str, str]) -> TrainConfig:
    """Our defaults, which are the official ones, with what the source's configuration says."""
    usual = TrainConfig()
    return dataclasses.replace(
        usual,
        **{
            name: option(options, path, type(getattr(usual, name)), getattr(usual, name))
            for name, path in paths.items()
        },
    )


def _torch_losses(
    model: Dreamer, slow: Head, returns: ReturnRange, batch: Batch, options: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The losses of r2dreamer as it was configured, means, and their weighted sum."""
    config = _training(
        options,
        {
            "imagination": "model.imag_horizon",
            "horizon": "model.horizon",
            "trace": "model.lamb",
            "actor_entropy": "model.act_entropy",
        },
    )
    parts = _torch_parts(model, slow, returns, batch, config)
    seen = {name for name, _ in model.enc.spaces}
    scales = {
        name: option(
            options,
            f"model.loss_scales.{'recon' if name in seen else name}",
            float,
            SCALES.get(name, 1.0),
        )
        for name in parts
        if not name.startswith("metric_")
    }
    parts["metric_opt_loss"] = sum((scales[n] * parts[n] for n in scales), jnp.zeros(()))
    return parts


@partial(jax.jit, static_argnames="config")
def _torch_parts(
    model: Dreamer, slow: Head, returns: ReturnRange, batch: Batch, config: TrainConfig
) -> dict[str, jax.Array]:
    """The losses of r2dreamer, means.

    It differs from the official code in what a KL is of (raw logits), in where the discount is
    (outside of the continue head) and in the weights of imagined steps that follow from it.
    """
    states, posterior, prior = observe(model, batch, key=jr.key(0), readout=Mode())
    # A horizon without end: its continue head learns 1 where an episode goes on.
    endless = dataclasses.replace(config, horizon=10**12)
    out = world_model_losses(model, batch, states, posterior, prior, endless)
    each = jax.vmap(jax.vmap(lambda a, b: raw(a).kl(raw(b))))(posterior, prior)
    out["dyn"] = out["rep"] = jnp.maximum(each, model.config.free_nats)
    rows, count = batch.is_first.shape
    start = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)

    def rollout(state: State) -> tuple[State, jax.Array]:
        steps = imagine(
            model, model.greedy, state, horizon=config.imagination, key=jr.key(0), readout=Mode()
        )
        states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state, steps.state)
        last = model.greedy(jax.tree.map(lambda x: x[-1], states), jr.key(0))
        return states, jnp.concatenate([steps.action, last[None]])

    future, actions = jax.vmap(rollout)(start)

    def judge(state: State, action: jax.Array) -> tuple[jax.Array, ...]:
        ((name, actor),) = model.actor(state).items()
        taken = model.parts(action)[name]
        return (
            model.reward(state).mean(),
            model.discount(state),
            model.value(state).mean(),
            TwoHot(slow(model.features(state))).mean(),
            actor.log_prob(taken),
            actor.entropy(),
        )

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
        model, slow, states, batch, gain[:, 0].reshape(rows, count), config
    )
    parts = {official(name): jnp.mean(part) for name, part in out.items()}
    entropies = {
        f"metric_{name}_entropy": jnp.mean(jax.vmap(jax.vmap(lambda b: b.entropy()))(belief))
        for name, belief in (("dyn", prior), ("rep", posterior))
    }
    return (
        parts
        | entropies
        | {
            "metric_ret": jnp.mean((gain - returns.low) / returns.scale),
            "metric_ret_005": returns.low,
            "metric_ret_095": returns.high,
            "metric_adv": jnp.mean(advantage),
            "metric_action_entropy": jnp.mean(entropy),
        }
    )


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
