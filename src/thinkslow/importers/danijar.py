"""danijar/dreamerv3 since January 2025: `LOGDIR/config.yaml` and `LOGDIR/ckpt/<time>/agent.pkl`."""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from thinkslow.dreamer.config import MLPConfig, ModelConfig
from thinkslow.importers import pickles
from thinkslow.spaces import Space


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A foreign agent: weights under our names, and what they are weights of."""

    weights: dict[str, np.ndarray]
    model: ModelConfig
    observations: dict[str, Space]
    actions: dict[str, Space]
    options: dict[str, Any]
    """The source's own configuration."""


def read(folder: Path) -> Foreign:
    """The newest checkpoint of a log folder.

    Sizes come from the weights; the classes of the latent, the uniform mix and the scales
    from `config.yaml`, which alone knows them.

    **Errors:** `FileNotFoundError` naming what is missing; `pickles.Refused`, `ValueError`.
    """
    options = yaml.safe_load(_there(folder / "config.yaml").read_text())
    latest = _there(folder / "ckpt" / "latest").read_text().strip()
    weights = pickles.load(_there(folder / "ckpt" / latest / "agent.pkl"))["params"]
    weights = {name: array.read() for name, array in weights.items() if not name.startswith("opt/")}
    model = _model(weights, options["agent"])
    observations, actions = _spaces(weights, model)
    return Foreign(weights, model, observations, actions, options)


def _model(weights: Mapping[str, np.ndarray], agent: Mapping[str, Any]) -> ModelConfig:
    rssm, decoder = agent["dyn"]["rssm"], agent["dec"]["simple"]
    for part, options in (("enc", agent["enc"]["simple"]), ("dec", decoder)):
        for option in ("strided", "outer"):
            if options.get(option):
                raise ValueError(
                    f"`{part}.{option}` of the official code is not supported; got true."
                )
    if rssm.get("absolute"):
        raise ValueError("`dyn.absolute` of the official code is not supported; got true.")
    convolutions = [
        weights[f"enc/cnn{i}/kernel"] for i in range(_count(weights, r"enc/cnn(\d+)/kernel"))
    ]
    depth = agent["enc"]["simple"]["depth"]
    head = {
        name: MLPConfig(
            _count(weights, rf"{name}/mlp/linear(\d+)/kernel"),
            weights[f"{name}/mlp/linear0/kernel"].shape[1],
        )
        for name in ("rew", "con", "pol", "val")
    }
    return ModelConfig(
        deter=weights["dyn/dynin0/kernel"].shape[0],
        hidden=weights["dyn/dynin0/kernel"].shape[1],
        stoch=weights["dyn/priorlogit/bias"].size // rssm["classes"],
        classes=rssm["classes"],
        blocks=weights["dyn/dyngru/kernel"].shape[0],
        encoder=MLPConfig(agent["enc"]["simple"]["layers"], agent["enc"]["simple"]["units"]),
        decoder=MLPConfig(decoder["layers"], decoder["units"]),
        reward=head["rew"], continuation=head["con"], policy=head["pol"], value=head["val"],
        depth=depth,
        mults=tuple(kernel.shape[-1] // depth for kernel in convolutions),
        kernel=convolutions[0].shape[0] if convolutions else agent["enc"]["simple"]["kernel"],
        decoder_blocks=decoder["bspace"],
        core_layers=_count(weights, r"dyn/dynhid(\d+)/kernel"),
        prior_layers=_count(weights, r"dyn/prior(\d+)/kernel"),
        posterior_layers=_count(weights, r"dyn/obs(\d+)/kernel"),
        reward_bins=weights["rew/head/logits/bias"].size,
        value_bins=weights["val/head/logits/bias"].size,
        unimix=rssm["unimix"],
        free_nats=rssm["free_nats"],
        rep_scale=agent["loss_scales"]["rep"],
    )  # fmt: skip


def _spaces(
    weights: Mapping[str, np.ndarray], model: ModelConfig
) -> tuple[dict[str, Space], dict[str, Space]]:
    observations: dict[str, Space] = {}
    for name in weights:
        if match := re.fullmatch(r"dec/vec/(.+)/(pred|logits)/bias", name):
            size = weights[name].size
            classes = size if match[2] == "logits" else None
            shape = () if size == 1 or classes else (size,)
            observations[match[1]] = Space(shape, "int32" if classes else "float32", classes)
    if "enc/cnn0/kernel" in weights:
        cells = weights["dec/sp2/bias"].size // (model.depth * model.mults[-1])
        side = math.isqrt(cells) * 2 ** len(model.mults)
        channels = weights["enc/cnn0/kernel"].shape[2]
        observations["image"] = Space((side, side, channels), "uint8", None)
    actions: dict[str, Space] = {}
    for name in weights:
        if match := re.fullmatch(r"pol/head/(.+)/(logits|mean)/bias", name):
            size = weights[name].size
            discrete = match[2] == "logits"
            actions[match[1]] = (
                Space((), "int32", size) if discrete else Space((size,), "float32", None)
            )
    return observations, actions


def _count(weights: Mapping[str, np.ndarray], pattern: str) -> int:
    return len({match[1] for name in weights if (match := re.fullmatch(pattern, name))})


def _there(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing from this dreamerv3 log folder.")
    return path
