"""NM512/dreamerv3-torch: `LOGDIR/latest.pt`, which has no configuration beside it."""

import numpy as np

from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.importer import Importer, files, has, inside
from thinkslow.importers.profiles.v1 import Told, Torch, sized, sorted_out
from thinkslow.importers.renaming import stripped
from thinkslow.plural import plural
from thinkslow.storage.store import Misfit

USUAL = 1024
"""Size of the latent in every preset of that code: 32 factors of 32 classes."""
IGNORED = r"_expl_behavior\..*|_task_behavior\._world_model\..*"
"""Second copies of the same modules, and the exploration policy."""
ASSUMED = ("its latent has 32 classes", "the uniform mix is 0.01 and one nat is free")
"""Assumptions that no shape confirms."""
MEMORY, LATENT = "wm/rssm/initial", "wm/rssm/img_stats/bias"


def read(found: Found, *, classes: int | None = None) -> Foreign:
    """Read an agent. No shape tells the `classes` of the latent; a latent of the usual size has 32.

    The uniform mix and the weights of the losses are assumed to be the defaults of that code.

    **Errors:** `Damaged`; `Misfit` for missing, contradictory or extra weights, or if the classes
    are unknown.
    """
    taken = Torch(stripped(found.content["agent_state_dict"], "_orig_mod."), found.file)
    _world(taken)
    _behavior(taken)
    taken.finish(IGNORED)
    weights, extras = sorted_out(taken.out)
    latent = weights[LATENT].size
    if classes is None and latent != USUAL:
        raise Misfit(
            f"{found.file} has a latent of {plural(latent, 'number')} and does not say of how "
            "many classes: "
            "pass `dyn_discrete` of its training: `classes=N`."
        )
    start, end = "wm/dec/mlp/dist_", "/out/bias"
    vectors = sorted(
        name.removeprefix(start).removesuffix(end)
        for name in weights
        if name.startswith(start) and name.endswith(end)
    )
    told = Told(
        classes=classes or 32,
        images=("image",),
        vectors=tuple(vectors) or None,
        decoded_images=("image",),
        habits={"mixed_logits": False, "going_on": "mean", "discount": 0.997},
    )
    model, observations, actions, cannot = sized(weights, told)
    return Foreign(
        model=model,
        weights=weights,
        extras=extras,
        observations=observations,
        actions=actions,
        environment={},
        action="mode",
        logits="raw",
        cannot=cannot,
        assumed=ASSUMED if classes is None else ASSUMED[1:],
    )


def _world(taken: Torch) -> None:
    taken.down("_wm.encoder._cnn.layers", ".norm")
    _dense(taken, "wm/enc/mlp", "_wm.encoder._mlp", "Encoder")
    dynamics = "_wm.dynamics"
    for new, name in (("img_in", "_img_in"), ("img_out", "_img_out"), ("obs_out", "_obs_out")):
        layers = f"{dynamics}.{name}_layers"
        taken.normed(f"wm/rssm/{new}", f"{layers}.0", f"{layers}.1")
    cell = f"{dynamics}._cell.layers"
    taken.normed("wm/rssm/gru", f"{cell}.GRU_linear", f"{cell}.GRU_norm")
    taken.linear("wm/rssm/img_stats", f"{dynamics}._imgs_stat_layer")
    taken.linear("wm/rssm/obs_stats", f"{dynamics}._obs_stat_layer")
    taken.out[MEMORY] = taken.take(f"{dynamics}.W", 2).ravel()
    deter, latent = taken.out[MEMORY].size, taken.out[LATENT].size
    inputs = taken.out["wm/rssm/img_in/kernel"].shape[1]
    taken.rows("wm/rssm/gru/kernel", [(inputs, (deter,)), (0, (inputs,))])
    taken.tokens("wm/rssm/obs_out/kernel", deter)
    decoder = "_wm.heads.decoder"
    if f"{decoder}._cnn._linear_layer.weight" in taken:
        taken.linear("wm/dec/cnn/in", f"{decoder}._cnn._linear_layer")
        taken.swap("wm/dec/cnn/in/kernel", deter, latent)
        taken.up(f"{decoder}._cnn.layers", ".norm")
    _dense(taken, "wm/dec/mlp", f"{decoder}._mlp", "Decoder", swap=(deter, latent))
    outputs = f"{decoder}._mlp.mean_layer."
    for name in [n for n in taken.left if n.startswith(outputs) and n.endswith(".bias")]:
        key = name.removeprefix(outputs).removesuffix(".bias")
        taken.linear(f"wm/dec/mlp/dist_{key}/out", f"{outputs}{key}")
    _head(taken, "wm/rew", "_wm.heads.reward", "Reward")
    _head(taken, "wm/cont", "_wm.heads.cont", "Cont")


def _behavior(taken: Torch) -> None:
    actor = "_task_behavior.actor"
    _head(taken, "task_behavior/ac/actor", actor, "Actor")
    if f"{actor}.std_layer.weight" in taken:
        taken.linear("task_behavior/ac/actor/dist_out/std", f"{actor}.std_layer")
    _head(taken, "task_behavior/critic/net", "_task_behavior.value", "Value")
    if "_task_behavior._slow_value.mean_layer.weight" in taken:
        _head(taken, "task_behavior/critic/slow", "_task_behavior._slow_value", "Value")
    if "_task_behavior.ema_vals" in taken:
        low_high = taken.take("_task_behavior.ema_vals", 1)
        for name, value in zip(("low", "high"), low_high, strict=True):
            taken.out[f"task_behavior/ac/retnorm_extr/{name}/value"] = np.asarray(value)


def _head(taken: Torch, new: str, name: str, label: str) -> None:
    sizes = taken.out[MEMORY].size, taken.out[LATENT].size
    layers = _dense(taken, new, name, label, swap=sizes)
    taken.linear(f"{new}/dist_out/out", f"{name}.mean_layer")
    if not layers:
        taken.swap(f"{new}/dist_out/out/kernel", *sizes)


def _dense(
    taken: Torch, new: str, name: str, label: str, *, swap: tuple[int, int] | None = None
) -> int:
    """Move dense layers, with the rows of the first swapped. Returns their number."""
    layers = taken.count(f"{name}.layers.{label}_linear{{}}.weight")
    for index in range(layers):
        part = f"{name}.layers.{label}"
        taken.normed(f"{new}/h{index}", f"{part}_linear{index}", f"{part}_norm{index}")
    if layers and swap:
        taken.swap(f"{new}/h0/kernel", *swap)
    return layers


def importer() -> Importer:
    return Importer(
        title="NM512/dreamerv3-torch",
        places=files("latest.pt"),
        recognises=lambda content: has(inside(content, "agent_state_dict"), "_wm."),
        read=read,
    )
