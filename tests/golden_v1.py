"""Our values of the golden arrays of profile `v1`, by each source's own names and layouts."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import golden_inputs as inputs
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from golden_heads import described, latent

from thinkslow.dreamer.v1.config import V1Config
from thinkslow.dreamer.v1.model import V1Dreamer, V1Head
from thinkslow.heads import SymlogTwoHot
from thinkslow.importers.foreign import Foreign
from thinkslow.storage.checks import match
from thinkslow.weights import named, with_named
from thinkslow.worldmodel import State, target

SLOW = "task_behavior/critic/slow/"


class Sequences(NamedTuple):
    """Inputs, time-major."""

    observation: dict[str, jax.Array]
    action: jax.Array
    is_first: jax.Array
    reward: jax.Array
    is_terminal: jax.Array


def computed(foreign: Foreign, golden: Mapping[str, np.ndarray], source: str) -> dict:
    """Our value of each array, by the golden file's names."""
    config = foreign.model
    assert isinstance(config, V1Config)
    model = jax.eval_shape(
        lambda: V1Dreamer(foreign.observations, foreign.actions, config, key=jr.key(0))
    )
    match(foreign.weights, {n: x.shape for n, x in named(model).items()}, what="Does not fit")
    model = with_named(model, foreign.weights)
    slow = with_named(
        model.task_behavior["critic"]["net"],
        {n.removeprefix(SLOW): x for n, x in foreign.extras.items() if n.startswith(SLOW)},
    )
    seen, acts = dict(model.observation_spaces), dict(model.action_spaces)
    called = inputs.aliases(seen, inputs.observations(golden, acts), golden)
    sequences = Sequences(
        {name: jnp.asarray(golden[f"in/{called.get(name, name)}"]) for name in seen},
        model.encode_action(inputs.action(golden, "prev_action", acts)),
        *(jnp.asarray(golden[f"in/{name}"]) for name in ("is_first", "reward", "is_terminal")),
    )
    out, states, losses = _filtered(model, slow, sequences)
    last = jax.tree.map(lambda x: x[-1], states)
    actions = model.encode_action(inputs.action(golden, "imag_action", acts))
    imag = _imagined(model, slow, last, actions)
    rows = golden["in/is_first"].shape[1]
    start = model.initial()
    ours = {f"out/{name}": array for name, array in out.items()}
    ours |= {f"imag/{name}": array for name, array in imag.items()}
    ours |= {
        "init/deter": jnp.stack([start.memory] * rows),
        "init/stoch": jnp.stack([start.latent] * rows),
        "init/logit": jnp.zeros((rows, *start.latent.shape)),
    }  # theirs, and never read
    losses = _losses(losses, model, source)
    ours |= {f"loss/{name}": array for name, array in losses.items()}
    return {name: _theirs(name, array, model, source) for name, array in ours.items()}


@jax.jit
def _filtered(model: V1Dreamer, slow: V1Head, sequences: Sequences) -> tuple:
    """Filter with the contract's own `predict` and `infer`, latents at their mode."""

    def step(state: State, inputs: Sequences) -> tuple[State, tuple]:
        memory, prior = model.predict(state, inputs.action, inputs.is_first)
        posterior = model.infer(memory, inputs.observation)
        state = State(memory, posterior.mode())
        decoded = model.decode(state)
        kl = posterior.kl(prior)
        losses = {
            "kl": kl,
            "dyn": jnp.maximum(kl, model.config.free_nats),
            "rep": jnp.maximum(kl, model.config.free_nats),
            "reward": -model.reward(state).log_prob(inputs.reward),
            "cont": -model.continuation(state).log_prob(1.0 - inputs.is_terminal),
            "post_entropy": posterior.entropy(),
            "prior_entropy": prior.entropy(),
            **{
                name: -head.log_prob(target(head, inputs.observation[name]))
                for name, head in decoded.items()
            },
        }
        told = described(model, state, prior, _slow_value(model, slow, state))
        extra = {
            "tokens": model.wm.enc(inputs.observation),
            "kl": kl,
            "prior_stoch": prior.mode(),
            **latent("post", posterior),
        }
        return state, (told | extra, state, losses)

    def one(inputs: Sequences) -> tuple:
        return jax.lax.scan(step, model.initial(), inputs)[1]

    return jax.vmap(one, in_axes=1, out_axes=1)(sequences)


@jax.jit
def _imagined(
    model: V1Dreamer, slow: V1Head, start: State, actions: jax.Array
) -> dict[str, jax.Array]:
    def step(state: State, action: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        memory, prior = model.predict(state, action, jnp.zeros((), bool))
        state = State(memory, prior.mode())
        return state, described(model, state, prior, _slow_value(model, slow, state))

    return jax.vmap(lambda s, a: jax.lax.scan(step, s, a)[1], (0, 1), 1)(start, actions)


def _slow_value(model: V1Dreamer, slow: V1Head, state: State) -> jax.Array:
    return SymlogTwoHot(slow(model.features(state))["out"]).mean()


def _losses(each: Mapping[str, jax.Array], model: V1Dreamer, source: str) -> dict[str, jax.Array]:
    """Per element, or as sheeprl: means. Scales as the source was configured."""
    state = model.config.dyn_scale * each["dyn"] + model.config.rep_scale * each["rep"]
    seen = sum((each[name] for name, _ in model.wm.dec.spaces), jnp.zeros(()))
    total = jnp.mean(seen + each["reward"] + each["cont"] + state)
    if source != "sheeprl":
        return {**each, "total": total}
    means = {
        "observation_loss": seen,
        "reward_loss": each["reward"],
        "continue_loss": each["cont"],
        "state_loss": state,
        **{n: each[n] for n in ("kl", "post_entropy", "prior_entropy")},
    }
    return {
        **{name: jnp.mean(array) for name, array in means.items()},
        "world_model_loss": total,
        "total": total,
    }


def _theirs(name: str, array: jax.Array, model: V1Dreamer, source: str) -> jax.Array:
    """In the layout of the source: torch holds channels first, sheeprl centres images."""
    part: Callable[[str], bool] = name.rsplit("/", maxsplit=1)[-1].__eq__
    if part("tokens") and source != "dreamerv3-v1":
        convs = model.config.encoder_convs
        flat = convs[-1].channels if convs else 0
        cells = model.wm.enc.tokens - (model.config.encoder[-1] if model.config.encoder else 0)
        image = array[..., :cells].reshape(*array.shape[:2], cells // flat, flat)
        image = jnp.swapaxes(image, -1, -2).reshape(*array.shape[:2], cells)
        return jnp.concatenate([image, array[..., cells:]], -1)
    pictures = [name for name, space in model.observation_spaces if len(space.shape) == 3]
    if source == "sheeprl" and any(part(f"recon_{picture}") for picture in pictures):
        return jnp.moveaxis(array, -1, -3) - 0.5
    return array
