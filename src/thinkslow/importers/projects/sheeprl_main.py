"""sheeprl `dreamer_v3_5`: profile `main` in PyTorch, with mixed logits and a mixed actor."""

import re

import numpy as np

from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.importer import Importer, has, inside
from thinkslow.importers.options import Options
from thinkslow.importers.profiles.main import acted, observed, sizes
from thinkslow.importers.projects.r2dreamer import (
    features_first,
    split_action,
    square,
    tokens_first,
)
from thinkslow.importers.projects.sheeprl_v1 import places
from thinkslow.importers.renaming import Taken, stripped
from thinkslow.plural import plural
from thinkslow.storage.store import Damaged, Misfit

FIXED = {
    "algo.dense_act": "torch.nn.SiLU",
    "algo.norm_eps": 1e-4,
    "algo.actor.min_std": 0.1,
    "algo.actor.max_std": 1.0,
    "algo.world_model.encoder.symlog_inputs": True,
}
"""Options that change the meaning of the weights, each with its one supported value."""
CORE, DECODER = "world_model.rssm.recurrent_model.", "world_model.observation_model."


def read(found: Found, *, classes: int | None = None) -> Foreign:
    """Read an agent. `classes` of the latent is needed if there is no `config.yaml`; all other
    options then have their defaults.

    **Errors:** `Damaged`, `Misfit`; `FileNotFoundError` if the classes are unknown.
    """
    options = Options(found)
    options.require(FIXED)
    parts = ("world_model", "actor", "critic", "target_critic", "moments")
    arrays = {
        f"{part}.{name}": array
        for part in parts
        for name, array in found.content.get(part, {}).items()
    }
    taken = Taken(stripped(arrays, "_forward_module.", "module.", "_orig_mod."), found.file)
    keys = _keys(options)
    _encoder(taken)
    _core(taken)
    _heads(taken)
    _decoder(taken, keys["mlp"]["decoder"])
    _sort_vectors(taken, keys["mlp"]["encoder"])
    for end, name in (("lo", "low"), ("hi", "high")):
        if f"moments.{name}" in taken:
            taken.move(f"retnorm/{end}/value", f"moments.{name}", 0)
    taken.finish(r"(?!)")
    weights = {n: x for n, x in taken.out.items() if not n.startswith(("slowval/", "retnorm/"))}
    image = (keys["cnn"]["encoder"] or ["image"])[0]
    observations = observed(weights, image=image, names=keys["mlp"]["encoder"])
    model = sizes(
        weights,
        observations,
        classes=options.classes("algo.world_model.discrete_size", classes, found),
        unimix=options("algo.world_model.unimix", float, 0.01),
        free_nats=options("algo.world_model.kl_free_nats", float, 1.0),
        rep_scale=options("algo.loss_scales.representation", float, 0.1),
        actor_unimix=options("algo.actor.unimix", float, 0.01),
        mixed_logits=True,
        discount=1.0
        if options("algo.world_model.continue_discount", bool, True)
        else options("algo.gamma", float, 1 - 1 / 333),
    )
    number = re.fullmatch(r"ckpt_(\d+)_\d+\.ckpt", found.file.name)
    return Foreign(
        model=model,
        weights=weights,
        extras={name: x for name, x in taken.out.items() if name not in weights},
        observations=observations,
        actions=acted(weights),
        steps=int(number[1]) if number else None,
        seed=options.maybe("seed", int, 0) if options.file else None,
        environment={
            "task": options.maybe("env.id", str, "unknown"),
            "repeat": options.maybe("env.action_repeat", int, 1),
        },
        action="sample",
        logits="mixed",
        options=options.data,
    )


def _keys(options: Options) -> dict[str, dict[str, list[str]]]:
    """Names of the images (`cnn`) and vectors (`mlp`) of the encoder and of the decoder.

    **Errors:** `Damaged` for several images, or for one that is decoded but not encoded.
    """
    keys = {
        kind: {
            part: options.maybe(f"algo.{kind}_keys.{part}", list, [])
            for part in ("encoder", "decoder")
        }
        for kind in ("cnn", "mlp")
    }
    for kind, named in keys.items():
        if set(named["decoder"]) - set(named["encoder"]):
            raise Damaged(
                f"`algo.{kind}_keys.decoder` of {options.file} must be among those of the encoder."
            )
    if len(keys["cnn"]["encoder"]) > 1:
        raise Damaged(
            f"`algo.cnn_keys.encoder` of {options.file} must be one image, which is all "
            f"that is known here; it is {keys['cnn']['encoder']}."
        )
    return keys


def _encoder(taken: Taken) -> None:
    net = "world_model.encoder.cnn_encoder.model."
    for index in range(taken.count_by(net + "{}.weight", 4)):
        taken.conv(f"enc/cnn{index}", f"{net}{4 * index}")
        taken.move(f"enc/cnn{index}norm/scale", f"{net}{4 * index + 2}.weight")
    net = "world_model.encoder.mlp_encoder.model."
    for index in range(taken.count_by(net + "{}.weight", 3)):
        taken.dense(f"enc/mlp{index}", f"{net}{3 * index}", f"{net}{3 * index + 1}")


def _core(taken: Taken) -> None:
    for index, part in enumerate(("recurrent", "stochastic", "action")):
        taken.dense(f"dyn/dynin{index}", f"{CORE}{part}_projection.0", f"{CORE}{part}_projection.1")
    # Block kernels already have the layout of the official code.
    for index in range(taken.count_by(CORE + "hidden.{}.weight", 3)):
        taken.move(f"dyn/dynhid{index}/kernel", f"{CORE}hidden.{3 * index}.weight", 3)
        taken.move(f"dyn/dynhid{index}/bias", f"{CORE}hidden.{3 * index}.bias")
        taken.move(f"dyn/dynhid{index}norm/scale", f"{CORE}hidden.{3 * index + 1}.weight")
    taken.move("dyn/dyngru/kernel", f"{CORE}gates.weight", 3)
    taken.move("dyn/dyngru/bias", f"{CORE}gates.bias")
    net = "world_model.rssm.transition_model."
    layers = taken.count_by(net + "{}.weight", 3) - 1
    for index in range(layers):
        taken.dense(f"dyn/prior{index}", f"{net}{3 * index}", f"{net}{3 * index + 1}")
    taken.linear("dyn/priorlogit", f"{net}{3 * layers}")
    net = "world_model.rssm.representation_model."
    taken.dense("dyn/obs0", f"{net}input_layer", f"{net}model.0")
    layers = taken.count_by(net + "model.{}.weight", 3, 2) - 1
    for index in range(layers):
        taken.dense(
            f"dyn/obs{index + 1}", f"{net}model.{3 * index + 2}", f"{net}model.{3 * index + 3}"
        )
    taken.linear("dyn/obslogit", f"{net}model.{3 * layers + 2}")
    deter = len(taken.out["dyn/dynin0/kernel"])
    dense = sum(name.startswith("enc/mlp") and name.endswith("kernel") for name in taken.out)
    units = taken.out[f"enc/mlp{dense - 1}/bias"].size if dense else 0
    layers = sum(name.startswith("enc/cnn") and name.endswith("kernel") for name in taken.out)
    tokens_first(taken, "dyn/obs0/kernel", deter, units, layers)


def _heads(taken: Taken) -> None:
    features = (len(taken.out["dyn/dynin1/kernel"]), len(taken.out["dyn/dynin0/kernel"]))
    for new, net, output in (
        ("rew", "world_model.reward_model.", "logits"),
        ("con", "world_model.continue_model.", "logit"),
        ("val", "critic.", "logits"),
        ("slowval", "target_critic.", "logits"),
        ("pol", "actor.model.", None),
    ):
        layers = taken.count_by(net + "{}.weight", 3) - (output is not None)
        for index in range(layers):
            taken.dense(
                f"{new}/mlp/linear{index}",
                f"{net}{3 * index}",
                f"{net}{3 * index + 1}",
                f"{new}/mlp/norm{index}",
            )
        features_first(taken, f"{new}/mlp/linear0/kernel", *features)
        if output is not None:
            taken.linear(f"{new}/head/{output}", f"{net}{3 * layers}")
    actions = len(taken.out["dyn/dynin2/kernel"])
    heads = taken.count("actor.mlp_heads.{}.weight")
    if heads == 1:
        taken.linear("last", "actor.mlp_heads.0")
        kernel, bias = taken.out.pop("last/kernel"), taken.out.pop("last/bias")
        split_action(taken, kernel, bias, actions)
        return
    width = max(2, len(str(heads - 1)))
    for index in range(heads):  # names whose sorted order is the order of counting
        taken.linear(f"pol/head/action{index:0{width}}/logits", f"actor.mlp_heads.{index}")


def _decoder(taken: Taken, vectors: list[str]) -> None:
    net = f"{DECODER}cnn_decoder."
    if f"{net}recurrent_projection.weight" in taken:
        taken.move("dec/sp0/kernel", f"{net}recurrent_projection.weight", 3)
        taken.move("dec/sp0/bias", f"{net}recurrent_projection.bias")
        taken.dense("dec/sp1", f"{net}stochastic_projection.0", f"{net}stochastic_projection.1")
        taken.linear("dec/sp2", f"{net}stochastic_projection.3")
        taken.move("dec/spnorm/scale", f"{net}projection_norm.0.weight")
        layers = taken.count_by(net + "model.{}.weight", 4, 1)
        for index in range(layers):
            new = f"conv{layers - 2 - index}" if index < layers - 1 else "imgout"
            taken.conv(f"dec/{new}", f"{net}model.{4 * index + 1}")
            if new != "imgout":
                taken.move(f"dec/{new}norm/scale", f"{net}model.{4 * index + 2}.weight")
        _channels_last(taken)
    net = f"{DECODER}mlp_decoder."
    layers = taken.count_by(net + "model.{}.weight", 3)
    for index in range(layers):
        taken.dense(
            f"dec/mlp/linear{index}",
            f"{net}model.{3 * index}",
            f"{net}model.{3 * index + 1}",
            f"dec/mlp/norm{index}",
        )
    for index, name in enumerate(vectors):
        taken.linear(f"dec/vec/{name}/pred", f"{net}heads.{index}")


def _channels_last(taken: Taken) -> None:
    """Reorder the outputs (g c h w) of `sp0` and (c h w) of `sp2` to (g h w c) and (h w c)."""
    channels = taken.out["dec/spnorm/scale"].size
    kernel, bias = taken.out["dec/sp0/kernel"], taken.out["dec/sp0/bias"]
    blocks = len(kernel)
    if bias.size != blocks * kernel.shape[2] or channels % blocks:
        raise Misfit(
            f"{taken.file}: the layer that becomes dec/sp0 has "
            f"{plural(bias.size, 'output')}, "
            f"which {plural(blocks, 'block')} of {plural(channels, 'channel')} do not "
            "share."
        )
    share = channels // blocks
    rows, columns = square(kernel.shape[2], share, "dec/sp0/kernel")
    order = _last(share, rows, columns)
    taken.out["dec/sp0/kernel"] = kernel[:, :, order]
    taken.out["dec/sp0/bias"] = bias.reshape(blocks, -1)[:, order].ravel()
    kernel, bias = taken.out["dec/sp2/kernel"], taken.out["dec/sp2/bias"]
    order = _last(channels, *square(bias.size, channels, "dec/sp2/kernel"))
    taken.out["dec/sp2/kernel"], taken.out["dec/sp2/bias"] = kernel[:, order], bias[order]


def _last(channels: int, rows: int, columns: int) -> np.ndarray:
    """For each number of an image with channels last, its index with channels first."""
    grid = np.arange(channels * rows * columns).reshape(channels, rows, columns)
    return grid.transpose(1, 2, 0).ravel()


def _sort_vectors(taken: Taken, names: list[str]) -> None:
    """Reorder the inputs of the encoder's first dense layer from the configured order to the sorted
    one.

    The weights do not show the size of a vector that is not decoded. One such vector gets the
    remaining numbers. Several cannot be told apart, so they stay joined.

    **Errors:** `Misfit` if this does not determine the order.
    """
    if "enc/mlp0/kernel" not in taken.out:
        return
    rows = len(taken.out["enc/mlp0/kernel"])
    known = {
        name: taken.out[f"dec/vec/{name}/pred/bias"].size
        for name in names
        if f"dec/vec/{name}/pred/bias" in taken.out
    }
    unknown = [name for name in names if name not in known]
    if not known:
        return
    if len(unknown) > 1:
        raise Misfit(
            f"{taken.file}: of the vectors {', '.join(names)} only {', '.join(known)} are decoded, "
            "so that nothing tells the sizes of the others."
        )
    if unknown:
        known[unknown[0]] = rows - sum(known.values())
    starts = dict(zip(names, np.cumsum([0, *(known[name] for name in names)]), strict=False))
    taken.rows("enc/mlp0/kernel", [(int(starts[n]), (known[n],)) for n in sorted(names)])


def importer() -> Importer:
    return Importer(
        title="sheeprl dreamer_v3_5",
        places=places,
        recognises=lambda content: (
            "actor" in inside(content)
            and has(inside(content, "world_model"), "recurrent_model.recurrent_projection.")
        ),
        read=read,
        config=("../config.yaml", "config.yaml"),
    )
