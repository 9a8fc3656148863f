"""danijar/dreamerv3 since December 2024: profile `main` under its own names."""

import re
from typing import Any

from thinkslow.importers.foreign import Foreign, Found, Options, option
from thinkslow.importers.profiles.main import acted, observed, sizes
from thinkslow.importers.renaming import Taken

EXTRAS = r"(slowval|slowval_count|retnorm|valnorm|advnorm)/.*"
"""What training keeps besides the agent."""
FIXED = {
    "dyn.typ": "rssm", "enc.typ": "simple", "dec.typ": "simple", "dyn.rssm.absolute": False,
    "dyn.rssm.act": "silu", "dyn.rssm.norm": "rms", "enc.simple.act": "silu",
    "enc.simple.norm": "rms", "enc.simple.strided": False, "enc.simple.outer": False,
    "enc.simple.symlog": True, "dec.simple.act": "silu", "dec.simple.norm": "rms",
    "dec.simple.strided": False, "dec.simple.outer": False, "policy.act": "silu",
    "policy.norm": "rms", "policy.minstd": 0.1, "policy.maxstd": 1.0,
    "policy_dist_disc": "categorical", "policy_dist_cont": "bounded_normal",
    "rewhead.output": "symexp_twohot", "value.output": "symexp_twohot",
    "conhead.output": "binary",
}  # fmt: skip
"""Options that change what the weights mean, with the one value that is known here."""


def read(found: Found, *, classes: int | None = None) -> Foreign:
    """`classes` of the latent, where no `config.yaml` tells; the rest is then official.

    **Errors:** `Damaged`, `Misfit`; `FileNotFoundError` if nothing tells the classes.
    """
    options = Options(found)
    options.require({f"agent.{name}": value for name, value in FIXED.items()})
    content = found.content.get("agent", found.content)
    arrays = {
        name: array for name, array in content["params"].items() if not name.startswith("opt/")
    }
    taken = Taken(arrays, found.file)
    for name, array in dict(taken.left).items():
        taken.move(name, name, len(array.shape))
    weights = {name: x for name, x in taken.out.items() if not re.fullmatch(EXTRAS, name)}
    task = options.maybe("task", str, "unknown")
    environment = f"env.{task.partition('_')[0]}"
    observations = observed(weights, size=options.maybe(f"{environment}.size", list, []))
    model = sizes(
        weights, observations,
        classes=options.classes("agent.dyn.rssm.classes", classes, found),
        unimix=options("agent.dyn.rssm.unimix", float, 0.01),
        free_nats=options("agent.dyn.rssm.free_nats", float, 1.0),
        rep_scale=options("agent.loss_scales.rep", float, 0.1),
        discount=1.0 if options("agent.contdisc", bool, True)
        else 1 - 1 / options("agent.horizon", float, 333.0),
    )  # fmt: skip
    return Foreign(
        architecture="dreamerv3-main", model=model, weights=weights,
        extras={name: x for name, x in taken.out.items() if name not in weights},
        observations=observations, actions=acted(weights),
        steps=_steps(found), seed=option(options.data, "seed", int, 0) if options.file else None,
        environment={"task": task, "repeat": options.maybe(f"{environment}.repeat", int, 1)},
        action="sample", logits="raw", cannot={}, options=options.data,
    )  # fmt: skip


def _steps(found: Found) -> int | None:
    content: dict[str, Any] = found.content
    steps = content.get("step", content.get("counters", {}).get("actions"))
    return steps if isinstance(steps, int) else None
