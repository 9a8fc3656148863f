"""NM512/r2dreamer: profile `main` in PyTorch, with or without a decoder."""

from typing import Any

from thinkslow.dreamer.match_spaces import JOINED
from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.importer import Importer, files, has, inside
from thinkslow.importers.options import Options
from thinkslow.importers.profiles.main import acted, observed, sizes
from thinkslow.importers.renaming import Taken, stripped
from thinkslow.plural import plural
from thinkslow.storage.store import Misfit

PARTS = ("encoder", "rssm", "reward", "cont", "actor", "value", "_slow_value", "decoder")
"""Modules that an agent consists of; all others belong to the training loss."""
FIXED = {
    "model.act": "SiLU",
    "model.norm": True,
    "model.encoder.mlp.symlog_inputs": True,
    "model.rssm.initial": "learned",
    "model.actor.dist.cont.min_std": 0.1,
    "model.actor.dist.cont.max_std": 1.0,
    "model.reward.dist.name": "symexp_twohot",
    "model.critic.dist.name": "symexp_twohot",
}
"""Options that change the meaning of the weights, each with its one supported value."""


def read(found: Found, *, classes: int | None = None) -> Foreign:
    """Read an agent. `classes` of the latent is needed if there is no `.hydra/config.yaml`; all
    other options then have their defaults.

    **Errors:** `Damaged`, `Misfit`; `FileNotFoundError` if the classes are unknown.
    """
    options = Options(found)
    options.require(FIXED)
    arrays = stripped(found.content["agent_state_dict"], "_orig_mod.", "module.")
    arrays = {name: x for name, x in arrays.items() if not name.startswith("_frozen_")}
    rep_loss = options.maybe("model.rep_loss", str, "unknown")
    taken = Taken(arrays, found.file)
    _core(taken)
    _heads(taken)
    decodes = any(name.startswith("decoder.") for name in taken.left)
    if decodes:
        _decoder(taken, _names(options, "decoder"))
    if "return_ema.ema_vals" in taken:
        low, high = taken.take("return_ema.ema_vals", 1)
        taken.out |= {"retnorm/lo/value": low, "retnorm/hi/value": high}
    # Losses other than reconstruction train extra heads, which no decision uses.
    others = "|".join(PARTS)
    taken.finish(r"(?!)" if decodes else rf"(?!({others})\.).*")
    weights = {n: x for n, x in taken.out.items() if not n.startswith(("slowval/", "retnorm/"))}
    observations = observed(
        weights, names=_names(options, "encoder"), size=options.maybe("env.size", list, [])
    )
    model = sizes(
        weights,
        observations,
        classes=options.classes("model.rssm.discrete", classes, found),
        unimix=options("model.rssm.unimix_ratio", float, 0.01),
        free_nats=options("model.kl_free", float, 1.0),
        rep_scale=options("model.loss_scales.rep", float, 0.1),
        actor_unimix=options("model.actor.dist.disc.unimix_ratio", float, 0.01),
        discount=1 - 1 / options("model.horizon", float, 333.0),
    )
    cannot = {}
    if not decodes:
        cannot["decode"] = (
            f"it was trained without a decoder (rep_loss={rep_loss}), so there are no image "
            "metrics and no arms that reconstruct: sig, elbo, evidence, best of N"
        )
    return Foreign(
        model=model,
        weights=weights,
        extras={name: x for name, x in taken.out.items() if name not in weights},
        observations=observations,
        actions=acted(weights),
        seed=options.maybe("seed", int, 0) if options.file else None,
        environment={
            "task": options.maybe("env.task", str, "unknown"),
            "repeat": options.maybe("env.action_repeat", int, 1),
        },
        action="mode",
        logits="raw",
        cannot=cannot,
        options=options.data,
    )


def _core(taken: Taken) -> None:
    layers = 0
    convolutions = "encoder.encoders.0.layers.0.weight" in taken
    if convolutions:
        layers = taken.count_by("encoder.encoders.0.layers.{}.weight", 4)
        for index in range(layers):
            name = f"encoder.encoders.0.layers.{4 * index}"
            taken.conv(f"enc/cnn{index}", name)
            taken.move(
                f"enc/cnn{index}norm/scale", f"encoder.encoders.0.layers.{4 * index + 2}.weight"
            )
    dense = f"encoder.encoders.{int(convolutions)}.layers.mlp_encoder_"
    units, count = 0, taken.count(dense + "linear{}.weight")
    for index in range(count):
        taken.dense(f"enc/mlp{index}", f"{dense}linear{index}", f"{dense}norm{index}")
        units = taken.out[f"enc/mlp{index}/bias"].size
    if any(name.startswith(dense) for name in taken.left):
        taken.shape(f"{dense}linear{count}.weight", 2)  # which is missing
    deter_net = "rssm._deter_net._dyn_"
    for index in range(3):
        taken.dense(f"dyn/dynin{index}", f"{deter_net}in{index}.0", f"{deter_net}in{index}.1")
    for index in range(taken.count(deter_net + "hid.dyn_hid_{}.weight")):
        _blocks(taken, f"dyn/dynhid{index}", f"{deter_net}hid.dyn_hid_{index}")
        taken.move(f"dyn/dynhid{index}norm/scale", f"{deter_net}hid.norm_{index}.weight")
    _blocks(taken, "dyn/dyngru", f"{deter_net}gru")
    for new, old in (("obs", "obs"), ("prior", "img")):
        net = f"rssm._{old}_net.{old}_net"
        for index in range(taken.count(net + "_{}.weight")):
            taken.dense(f"dyn/{new}{index}", f"{net}_{index}", f"{net}_n_{index}")
        taken.linear(f"dyn/{new}logit", f"{net}_logit")
    # Tokens are [cnn, mlp] there and [mlp, cnn] here; images are channels first there.
    first = "dyn/obs0/kernel" if "dyn/obs0/kernel" in taken.out else "dyn/obslogit/kernel"
    deter = len(taken.out["dyn/dynin0/kernel"])
    tokens_first(taken, first, deter, units, layers)


def tokens_first(taken: Taken, name: str, deter: int, units: int, layers: int) -> None:
    """Reorder rows [deter, image channels first, vectors] to [deter, vectors, image channels last].

    **Errors:** `Misfit` if the image is not square.
    """
    rows = len(taken.out[name])
    image = rows - deter - units
    parts: list[tuple[int, tuple[int, ...]]] = [(0, (deter,)), (rows - units, (units,))]
    if layers:
        channels = taken.out[f"enc/cnn{layers - 1}/bias"].size
        parts.append((deter, (channels, *square(image, channels, name))))
    taken.rows(name, parts)


def square(numbers: int, channels: int, name: str) -> tuple[int, int]:
    """Height and width of a feature map with this many numbers.

    **Errors:** `Misfit` if it is not square.
    """
    side = round(max(numbers // channels, 0) ** 0.5)
    if side < 1 or side * side * channels != numbers:
        raise Misfit(
            f"{name} has {plural(numbers, 'number')} for an image of "
            f"{plural(channels, 'channel')}: it is "
            "not square, and only square images are known here."
        )
    return side, side


def _blocks(taken: Taken, new: str, name: str) -> None:
    taken.move(f"{new}/kernel", f"{name}.weight", 3, (2, 1, 0))
    taken.move(f"{new}/bias", f"{name}.bias")


def _heads(taken: Taken) -> None:
    features = (len(taken.out["dyn/dynin1/kernel"]), len(taken.out["dyn/dynin0/kernel"]))
    for new, old, inner, output in (
        ("rew", "reward", "reward", "logits"),
        ("con", "cont", "cont", "logit"),
        ("val", "value", "value", "logits"),
        ("slowval", "_slow_value", "value", "logits"),
        ("pol", "actor", "actor", None),
    ):
        net = f"{old}.mlp.layers.{inner}_"
        for index in range(taken.count(net + "linear{}.weight")):
            taken.dense(
                f"{new}/mlp/linear{index}",
                f"{net}linear{index}",
                f"{net}norm{index}",
                f"{new}/mlp/norm{index}",
            )
        features_first(taken, f"{new}/mlp/linear0/kernel", *features)
        if output is not None:
            taken.linear(f"{new}/head/{output}", f"{old}.last")
    actions = len(taken.out["dyn/dynin2/kernel"])
    taken.linear("last", "actor.last")
    kernel, bias = taken.out.pop("last/kernel"), taken.out.pop("last/bias")
    split_action(taken, kernel, bias, actions)


def features_first(taken: Taken, name: str, stoch: int, deter: int) -> None:
    """Reorder rows [stoch, deter] to [deter, stoch]."""
    if name not in taken.out:
        raise Misfit(f"{taken.file} does not hold a whole agent: {name} is missing.")
    taken.rows(name, [(stoch, (deter,)), (0, (stoch,))])


def split_action(taken: Taken, kernel: Any, bias: Any, actions: int) -> None:
    """The actor's outputs: logits of one discrete action, or [mean | std] of continuous ones.

    **Errors:** `Misfit` if the outputs fit neither kind.
    """
    head = "pol/head/action"
    if bias.size == actions:
        taken.out |= {f"{head}/logits/kernel": kernel, f"{head}/logits/bias": bias}
    elif bias.size == 2 * actions:
        for part, here in (("mean", slice(actions)), ("stddev", slice(actions, None))):
            taken.out[f"{head}/{part}/kernel"] = kernel[:, here]
            taken.out[f"{head}/{part}/bias"] = bias[here]
    else:
        raise Misfit(
            f"{taken.file}: the actor has {plural(bias.size, 'output')} for "
            f"{plural(actions, 'action')}, expected "
            f"{actions} (discrete) or {2 * actions} (continuous)."
        )


def _decoder(taken: Taken, names: list[str]) -> None:
    net = "decoder._cnn."
    if f"{net}sp0.weight" in taken:
        _blocks(taken, "dec/sp0", f"{net}sp0")
        taken.dense("dec/sp1", f"{net}sp1.0", f"{net}sp1.1")
        taken.linear("dec/sp2", f"{net}sp2")
        taken.move("dec/spnorm/scale", f"{net}sp_norm.0.weight")
        layers = taken.count_by(f"{net}layers.{{}}.weight", 4, 1)
        for index in range(layers):
            new = f"conv{layers - 2 - index}" if index < layers - 1 else "imgout"
            taken.conv(f"dec/{new}", f"{net}layers.{4 * index + 1}")
            if new != "imgout":
                taken.move(f"dec/{new}norm/scale", f"{net}layers.{4 * index + 2}.weight")
    net = "decoder._mlp."
    if f"{net}last.weight" in taken:
        dense = f"{net}mlp.layers.mlp_decoder_"
        for index in range(taken.count(dense + "linear{}.weight")):
            taken.dense(
                f"dec/mlp/linear{index}",
                f"{dense}linear{index}",
                f"{dense}norm{index}",
                f"dec/mlp/norm{index}",
            )
        taken.linear(f"dec/vec/{JOINED.join(names) or 'vector'}/pred", f"{net}last")


def _names(options: Options, part: str) -> list[str]:
    """The vectors that match the configuration, sorted; it may be any regular expression."""
    names = options.maybe(f"model.{part}.mlp_keys", str, "vector")
    return [] if names == "$^" else sorted(name for name in names.split("|") if name)


def importer() -> Importer:
    return Importer(
        title="NM512/r2dreamer",
        places=files("latest.pt"),
        recognises=lambda content: has(inside(content, "agent_state_dict"), "rssm._deter_net."),
        read=read,
        config=(".hydra/config.yaml",),
    )
