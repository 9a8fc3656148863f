"""danijar/dreamerv3 of January to June 2023: `LOGDIR/config.yaml` and `LOGDIR/checkpoint.ckpt`."""

import re
from collections.abc import Mapping
from typing import Any

from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.importer import Importer, files, has, inside
from thinkslow.importers.options import Options
from thinkslow.importers.profiles.v1 import EXTRAS, Told, count, sized, sorted_out
from thinkslow.importers.renaming import Taken
from thinkslow.spaces import Space
from thinkslow.storage.store import Damaged

PARTS = ("wm/", "task_behavior/ac/actor/", "task_behavior/critic/net/", *EXTRAS)
"""Names that are read; all others are optimisers and counters."""
FIXED: dict[str, Any] = {
    **{
        f"{part}.{option}": value
        for part in ("encoder", "decoder")
        for option, value in {"cnn": "resnet", "cnn_blocks": 0}.items()
    },
    **{
        f"{part}.norm": "layer"
        for part in ("encoder", "decoder", "rssm", "reward_head", "cont_head", "actor", "critic")
    },
    **{
        f"{part}.act": "silu"
        for part in ("encoder", "decoder", "rssm", "reward_head", "cont_head", "actor", "critic")
    },
    **{
        f"{part}.inputs": ["deter", "stoch"]
        for part in ("decoder", "reward_head", "cont_head", "actor", "critic")
    },
    "decoder.cnn_sigmoid": False,
    "decoder.image_dist": "mse",
    "decoder.vector_dist": "symlog_mse",
    "rssm.initial": "learned",
    "rssm.action_clip": 1.0,
    "reward_head.dist": "symlog_disc",
    "cont_head.dist": "binary",
    "critic.dist": "symlog_disc",
    "critic_type": "vfunction",
    "actor_dist_cont": "normal",
    "actor_dist_disc": "onehot",
    "actor.symlog_inputs": False,
    "critic.symlog_inputs": False,
}
"""Options that change the meaning of the weights, each with its one supported value."""
RESIZES = ("stride", "stride3")
"""How images are downsampled; `stride3` begins with a stride of 3, for images of 96 pixels."""


def read(
    found: Found, *, classes: int | None = None, vectors: tuple[str, ...] | None = None
) -> Foreign:
    """Read an agent. `classes` of the latent is needed if there is no `config.yaml`; all other
    options then have their defaults.

    `vectors` names the agent's vectors in the order of its environment's observation space, which
    no file stores. Without it, the order of a plain list of names in `encoder.mlp_keys`
    (`position|velocity`) is assumed. A pattern is not enough for more than one vector.

    **Errors:** `Damaged`, `Misfit`; `FileNotFoundError` if the classes are unknown.
    """
    options = Options(found)
    options.require(FIXED)
    agent = found.content["agent"]
    arrays = {
        name.removeprefix("agent/"): array for name, array in agent.items() if "_opt/" not in name
    }
    taken = Taken(arrays, found.file)
    for name in [name for name in taken.left if name.startswith(PARTS)]:
        taken.move(name, name, len(taken.left[name].shape))
    weights, extras = sorted_out(taken.out)
    images = _names(options, "encoder.cnn_keys") or ("image",)
    told = Told(
        classes=options.classes("rssm.classes", classes, found),
        images=images,
        vectors=vectors or _names(options, "encoder.mlp_keys"),
        decoded_images=_names(options, "decoder.cnn_keys") or images,
        strides=_strides(options, count(weights, "wm/enc/cnn/s{}res/kernel")),
        habits={
            "symlog_inputs": options.maybe("encoder.symlog_inputs", bool, True),
            "unimix": options("rssm.unimix", float, 0.01),
            "mixed_logits": True,
            "actor_unimix": options("actor.unimix", float, 0.01),
            "min_std": options("actor.minstd", float, 0.1),
            "max_std": options("actor.maxstd", float, 1.0),
            "going_on": "mode",
            "discount": 1 - 1 / options("horizon", float, 333.0),
            "free_nats": options("rep_loss.free", float, 1.0),
            "dyn_scale": options("loss_scales.dyn", float, 0.5),
            "rep_scale": options("loss_scales.rep", float, 0.1),
        },
    )
    model, observations, actions, cannot = sized(weights, told)
    step = found.content.get("step")
    return Foreign(
        model=model,
        weights=weights,
        extras=extras,
        observations=observations,
        actions=actions,
        steps=step if type(step) is int else None,
        seed=options.maybe("seed", int, 0) if options.file else None,
        environment=_environment(options),
        action="sample",
        logits="mixed",
        cannot=cannot,
        options=options.data,
        assumed=_assumed(observations, vectors),
    )


def _assumed(observations: Mapping[str, Space], told: tuple[str, ...] | None) -> tuple[str, ...]:
    """The assumption that the vectors have the order in which `encoder.mlp_keys` names them."""
    vectors = [name for name, space in observations.items() if len(space.shape) < 3]
    if told or len(vectors) < 2:
        return ()
    return (
        f"it sees its vectors in the order of `encoder.mlp_keys`: {', '.join(vectors)}. If its "
        "environment had another order, pass that: `vectors=A,B,...`",
    )


def _names(options: Options, path: str) -> tuple[str, ...] | None:
    """The names in a pattern that is only a list of names, `a|b`; None for any other pattern."""
    pattern = options.maybe(path, str, ".*")
    names = tuple(name.removeprefix("^").removesuffix("$") for name in pattern.split("|"))
    plain = all(re.fullmatch(r"[\w/-]+", name) for name in names)
    return names if plain and len(set(names)) == len(names) else None


def _strides(options: Options, convolutions: int) -> tuple[int, ...]:
    resize = options.maybe("encoder.resize", str, "stride")
    if resize not in RESIZES or options.maybe("decoder.resize", str, resize) != resize:
        raise Damaged(
            f"`encoder.resize` and `decoder.resize` of {options.file} must both be "
            f"{' or '.join(RESIZES)}; the encoder's is {resize!r}."
        )
    first = 3 if resize == "stride3" else 2
    return (first, *(2,) * (convolutions - 1)) if convolutions else ()


def _environment(options: Options) -> dict[str, Any]:
    """The environment. `task` is `suite_task`; the options of the suite contain the repeat."""
    task = options.maybe("task", str, "unknown")
    suite = options.maybe("env", dict, {}).get(task.partition("_")[0], {})
    repeat = suite.get("repeat", 1) if isinstance(suite, Mapping) else 1
    return {"task": task, "repeat": repeat}


def importer() -> Importer:
    return Importer(
        title="danijar/dreamerv3 of 2023, PyPI 1.5.0",
        places=files("checkpoint.ckpt"),
        recognises=lambda content: has(inside(content, "agent"), "agent/wm/"),
        read=read,
        config=("config.yaml",),
        orders_vectors=True,
    )
