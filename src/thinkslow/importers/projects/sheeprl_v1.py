"""sheeprl's `dreamer_v3`: `version_k/config.yaml` and `version_k/checkpoint/ckpt_<step>_0.ckpt`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.importer import Importer, Order, has, inside
from thinkslow.importers.options import Options
from thinkslow.importers.profiles.v1 import Told, Torch, sized, sorted_out
from thinkslow.importers.renaming import stripped
from thinkslow.storage.store import Misfit

WRAPPERS = ("_forward_module.", "module.", "_orig_mod.")
"""Possible prefixes of a module's name."""
MODULES = ("world_model", "actor", "critic", "target_critic", "moments")
MEMORY, LATENT = "wm/rssm/initial", "wm/rssm/img_stats/bias"
PARTS = (
    *(
        f"algo.world_model.{part}"
        for part in (
            "encoder",
            "recurrent_model",
            "transition_model",
            "representation_model",
            "observation_model",
            "reward_model",
            "discount_model",
        )
    ),
    "algo.actor",
    "algo.critic",
)
NORMS = ("layer_norm", "cnn_layer_norm", "mlp_layer_norm")
FIXED: dict[str, Any] = {
    "algo.world_model.decoupled_rssm": False,
    "algo.actor.init_std": 2.0,
    "algo.actor.action_clip": 1.0,
    "algo.actor.cls": "sheeprl.algos.dreamer_v3.agent.Actor",
    **{f"{part}.{act}": "torch.nn.SiLU" for part in PARTS for act in ("dense_act", "cnn_act")},
}
"""Options that change the meaning of the weights, each with its one supported value."""
ACTS = ("auto", "discrete", "scaled_normal")
"""Supported distributions of actions."""


def read(found: Found, *, classes: int | None = None) -> Foreign:
    """Read an agent. `classes` of the latent is needed if there is no `config.yaml`; all other
    options then have their defaults.

    The replay buffer is not read.

    **Errors:** `Damaged`, `Misfit`; `FileNotFoundError` if the classes are unknown.
    """
    options = Options(found)
    _check(options)
    arrays = {
        f"{module}.{name}": array
        for module in MODULES
        for name, array in found.content.get(module, {}).items()
    }
    taken = Torch(stripped(arrays, *WRAPPERS), found.file)
    keys = {
        f"{kind}.{part}": tuple(options.maybe(f"algo.{kind}_keys.{part}", list, []))
        for kind in ("cnn", "mlp")
        for part in ("encoder", "decoder")
    }
    _world(taken, keys["mlp.decoder"])
    discrete = _behavior(taken)
    taken.finish(r"(?!)")
    weights, extras = sorted_out(taken.out)
    unnamed = ("image",) if options.file is None else ()
    told = Told(
        classes=options.classes("algo.world_model.discrete_size", classes, found),
        images=keys["cnn.encoder"] or unnamed,
        vectors=keys["mlp.encoder"] or None,
        decoded_images=keys["cnn.decoder"] or unnamed,
        actions=discrete,
        habits={
            "unimix": options("algo.unimix", float, 0.01),
            "mixed_logits": True,
            "actor_unimix": options("algo.actor.unimix", float, 0.01),
            "min_std": options("algo.actor.min_std", float, 0.1),
            "max_std": options("algo.actor.max_std", float, 1.0),
            "going_on": "mode",
            "discount": options("algo.gamma", float, 1 - 1 / 333),
            "free_nats": options("algo.world_model.kl_free_nats", float, 1.0),
            "dyn_scale": options("algo.world_model.kl_dynamic", float, 0.5),
            "rep_scale": options("algo.world_model.kl_representation", float, 0.1),
        },
    )
    model, observations, actions, cannot = sized(weights, told)
    step = re.fullmatch(r"ckpt_(\d+)_\d+\.ckpt", found.file.name)
    return Foreign(
        model=model,
        weights=weights,
        extras=extras,
        observations=observations,
        actions=actions,
        steps=int(step[1]) if step else None,
        seed=options.maybe("seed", int, 0) if options.file else None,
        environment={
            "task": options.maybe("env.id", str, "unknown"),
            "repeat": options.maybe("env.action_repeat", int, 1),
        },
        action="sample",
        logits="mixed",
        cannot=cannot,
        options=options.data,
    )


def _check(options: Options) -> None:
    """Check that the model has the default structure. **Errors:** `Damaged`, `Misfit`."""
    options.require(FIXED)
    norms = [f"{part}.{norm}" for part in PARTS for norm in NORMS]
    for path in [norm for norm in norms if options.maybe(norm, dict, {})]:
        # A norm without a configured epsilon has PyTorch's default, which is different.
        if (epsilon := options(f"{path}.kw.eps", float, 1e-3)) != 1e-3:
            raise Misfit(
                f"`{path}.kw.eps` of {options.file} must be 0.001, which is all that is known "
                f"here; it is {epsilon}."
            )
    kind = options.maybe("distribution.type", str, "auto").lower()
    if kind not in ACTS:
        raise Misfit(
            f"`distribution.type` of {options.file} must be {', '.join(ACTS)}, which are all that "
            f"is known here; it is {kind!r}."
        )


def _world(taken: Torch, vectors: tuple[str, ...]) -> None:
    encoder, rssm, decoder = (
        f"world_model.{part}" for part in ("encoder", "rssm", "observation_model")
    )
    taken.down(f"{encoder}.cnn_encoder.model.0._model")
    _dense(taken, "wm/enc/mlp", f"{encoder}.mlp_encoder.model._model")
    for new, name in (
        ("img_in", "recurrent_model.mlp"),
        ("img_out", "transition_model"),
        ("obs_out", "representation_model"),
    ):
        layers = f"{rssm}.{name}._model"
        taken.normed(f"wm/rssm/{new}", f"{layers}.0", f"{layers}.1")
    cell = f"{rssm}.recurrent_model.rnn"
    taken.normed("wm/rssm/gru", f"{cell}.linear", f"{cell}.layer_norm")
    taken.linear("wm/rssm/img_stats", f"{rssm}.transition_model._model.3")
    taken.linear("wm/rssm/obs_stats", f"{rssm}.representation_model._model.3")
    taken.move(MEMORY, f"{rssm}.initial_recurrent_state")
    deter, latent = taken.out[MEMORY].size, taken.out[LATENT].size
    taken.tokens("wm/rssm/obs_out/kernel", deter)
    if f"{decoder}.cnn_decoder.model.0.weight" in taken:
        taken.linear("wm/dec/cnn/in", f"{decoder}.cnn_decoder.model.0")
        taken.swap("wm/dec/cnn/in/kernel", deter, latent)
        taken.up(f"{decoder}.cnn_decoder.model.2._model")
        taken.units("wm/dec/cnn/in", "wm/dec/cnn/s0res")
    _dense(taken, "wm/dec/mlp", f"{decoder}.mlp_decoder.model._model", swap=(deter, latent))
    for index, key in enumerate(vectors):
        taken.linear(f"wm/dec/mlp/dist_{key}/out", f"{decoder}.mlp_decoder.heads.{index}")
    _head(taken, "wm/rew", "world_model.reward_model._model")
    _head(taken, "wm/cont", "world_model.continue_model._model")


def _behavior(taken: Torch) -> dict[str, int] | None:
    """Move actor and critics. Returns the choices of each discrete action, None for continuous
    ones.
    """
    sizes = taken.out[MEMORY].size, taken.out[LATENT].size
    new = "task_behavior/ac/actor"
    layers = _dense(taken, new, "actor.model._model", swap=sizes)
    width = taken.out["wm/rssm/img_in/kernel"].shape[0] - sizes[1]
    heads = taken.count("actor.mlp_heads.{}.weight")
    choices = [taken.shape(f"actor.mlp_heads.{index}.bias", 1)[0] for index in range(heads)]
    for index in range(heads):
        taken.linear(f"{new}/dist_out/out{index}", f"actor.mlp_heads.{index}")
    taken.join(f"{new}/dist_out/out", heads)
    if heads and not layers:
        taken.swap(f"{new}/dist_out/out/kernel", *sizes)
    for name, source in (("net", "critic"), ("slow", "target_critic")):
        if f"{source}._model.0.weight" in taken:
            _head(taken, f"task_behavior/critic/{name}", f"{source}._model")
    for name in [name for name in ("low", "high") if f"moments.{name}" in taken]:
        taken.move(f"task_behavior/ac/retnorm_extr/{name}/value", f"moments.{name}", 0)
    if sum(choices) == width:
        names = [f"action{index}" for index in range(heads)] if heads > 1 else ["action"]
        return dict(zip(names, choices, strict=True))
    if choices != [2 * width]:
        raise Misfit(
            f"{taken.file}: the actor puts out {choices or 'nothing'} for actions of {width} "
            "numbers."
        )
    taken.halve(f"{new}/dist_out/out", f"{new}/dist_out/std")
    return None


def _head(taken: Torch, new: str, name: str) -> None:
    sizes = taken.out[MEMORY].size, taken.out[LATENT].size
    layers = _dense(taken, new, name, swap=sizes)
    taken.linear(f"{new}/dist_out/out", f"{name}.{3 * layers}")
    if not layers:
        taken.swap(f"{new}/dist_out/out/kernel", *sizes)


def _dense(taken: Torch, new: str, name: str, *, swap: tuple[int, int] | None = None) -> int:
    """Move dense layers and the norms after them, with the rows of the first swapped. Returns their
    number.
    """
    layers = 0
    while f"{name}.{3 * layers + 1}.weight" in taken:
        taken.normed(f"{new}/h{layers}", f"{name}.{3 * layers}", f"{name}.{3 * layers + 1}")
        layers += 1
    if layers and swap:
        taken.swap(f"{new}/h0/kernel", *swap)
    return layers


def places(folder: Path) -> Iterator[tuple[Order, Path]]:
    """`ckpt_<step>_<rank>.ckpt` in a folder `checkpoint` of the last `version_k`."""
    for under in (folder, folder / "checkpoint", *folder.glob("version_*/checkpoint")):
        version = re.fullmatch(r"version_(\d+)", under.parent.name)
        for file in under.glob("ckpt_*_*.ckpt"):
            match = re.fullmatch(r"ckpt_(\d{1,18})_(\d{1,18})\.ckpt", file.name)
            if match and file.is_file():
                yield (0, int(version[1]) if version else 0, int(match[1]), -int(match[2])), file


def importer() -> Importer:
    return Importer(
        title="sheeprl dreamer_v3",
        places=places,
        recognises=lambda content: (
            "actor" in inside(content)
            and has(inside(content, "world_model"), "recurrent_model.rnn.")
        ),
        read=read,
        config=("../config.yaml", "config.yaml"),
    )
