"""danijar/dreamerv3 since December 2024: profile `main`, whose names are this project's."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.importer import Importer, Order, has, inside
from thinkslow.importers.options import Options, option
from thinkslow.importers.profiles.main import acted, observed, sizes
from thinkslow.importers.renaming import Taken
from thinkslow.storage.faults import Damaged, shown
from thinkslow.storage.reading import read_bounded

EXTRAS = r"(slowval|slowval_count|retnorm|valnorm|advnorm)/.*"
"""Arrays of the training state that are not part of the agent."""
OPTIMISER = "opt/"
FIXED = {
    "dyn.typ": "rssm",
    "enc.typ": "simple",
    "dec.typ": "simple",
    "dyn.rssm.absolute": False,
    "dyn.rssm.act": "silu",
    "dyn.rssm.norm": "rms",
    "enc.simple.act": "silu",
    "enc.simple.norm": "rms",
    "enc.simple.strided": False,
    "enc.simple.outer": False,
    "enc.simple.symlog": True,
    "dec.simple.act": "silu",
    "dec.simple.norm": "rms",
    "dec.simple.strided": False,
    "dec.simple.outer": False,
    "policy.act": "silu",
    "policy.norm": "rms",
    "policy.minstd": 0.1,
    "policy.maxstd": 1.0,
    "policy_dist_disc": "categorical",
    "policy_dist_cont": "bounded_normal",
    "rewhead.output": "symexp_twohot",
    "value.output": "symexp_twohot",
    "conhead.output": "binary",
}
"""Options that change the meaning of the weights, each with its one supported value."""


def read(found: Found, *, classes: int | None = None) -> Foreign:
    """Read an agent. `classes` of the latent is needed if there is no `config.yaml`; all other
    options then have the official values.

    **Errors:** `Damaged`, `Misfit`; `FileNotFoundError` if the classes are unknown.
    """
    options = Options(found)
    options.require({f"agent.{name}": value for name, value in FIXED.items()})
    content = found.content.get("agent", found.content)
    _check_optimiser(content["params"], found.file)
    arrays = {
        name: array for name, array in content["params"].items() if not name.startswith(OPTIMISER)
    }
    taken = Taken(arrays, found.file)
    for name, array in dict(taken.left).items():
        taken.move(name, name, len(array.shape))
    weights = {name: x for name, x in taken.out.items() if not re.fullmatch(EXTRAS, name)}
    task = options.maybe("task", str, "unknown")
    environment = f"env.{task.partition('_')[0]}"
    observations = observed(weights, size=options.maybe(f"{environment}.size", list, []))
    model = sizes(
        weights,
        observations,
        classes=options.classes("agent.dyn.rssm.classes", classes, found),
        unimix=options("agent.dyn.rssm.unimix", float, 0.01),
        free_nats=options("agent.dyn.rssm.free_nats", float, 1.0),
        rep_scale=options("agent.loss_scales.rep", float, 0.1),
        discount=1.0
        if options("agent.contdisc", bool, True)
        else 1 - 1 / options("agent.horizon", float, 333.0),
    )
    return Foreign(
        model=model,
        weights=weights,
        extras={name: x for name, x in taken.out.items() if name not in weights},
        observations=observations,
        actions=acted(weights),
        steps=_steps(found),
        seed=option(options.data, "seed", int, 0) if options.file else None,
        environment={"task": task, "repeat": options.maybe(f"{environment}.repeat", int, 1)},
        action="sample",
        logits="raw",
        options=options.data,
    )


def _check_optimiser(names: Mapping[str, Any], file: Path) -> None:
    """Check that every entry of the optimiser belongs to a weight in the file.

    The entries are not read. But the file has no checksum, and an altered name means that more may
    have been altered.

    **Errors:** `Damaged`.
    """
    prefixes, without = {}, []
    for name in names:
        if name.startswith(OPTIMISER):
            tails = [name[at + 1 :] for at, letter in enumerate(name) if letter == "/"]
            tail = next((tail for tail in tails if tail in names), None)
            if tail is None:
                without.append(name)
            else:
                prefixes[name] = name.removesuffix(tail)
    kept = Counter(prefixes.values())
    most = max(kept.values(), default=0)
    # A name outside the modules of all weights, or inside one of them without a weight.
    odd = [name for name, prefix in prefixes.items() if kept[prefix] == 1 < most]
    odd += [
        name
        for name in without
        if any(name.startswith(prefix) and "/" in name.removeprefix(prefix) for prefix in kept)
    ]
    if odd:
        raise Damaged(
            f"{file}: its optimiser keeps {shown(odd[0])}, which is of no weight in it: it was "
            "altered. Copy it again."
        )


def _steps(found: Found) -> int | None:
    content: dict[str, Any] = found.content
    steps = content.get("step", content.get("counters", {}).get("actions"))
    return steps if isinstance(steps, int) else None


def places(folder: Path) -> Iterator[tuple[Order, Path]]:
    """`ckpt/latest` names the newest checkpoint; without that file, the newest complete one."""
    for logs in (folder / "ckpt", folder):
        found = _latest(logs)
        if found is not None:
            yield (1,), found
    for order, name in ((2, "agent.pkl"), (0, "checkpoint.pkl")):
        if (folder / name).is_file():
            yield (order,), folder / name


def _latest(logs: Path) -> Path | None:
    if (logs / "latest").is_file():
        try:
            name = read_bounded(logs / "latest", 255, "the name of a checkpoint").decode().strip()
        except ValueError:
            name = ""
        if name and name.isprintable() and name == Path(name).name:
            agent = logs / name / "agent.pkl"
            if agent.is_file():
                return agent
    elif logs.name != "ckpt":
        return None
    done = [done.parent / "agent.pkl" for done in logs.glob("*/done")]
    return max((file for file in done if file.is_file()), default=None)


def _unread(content: Any) -> str | None:
    agent = inside(content, "agent") or inside(content)
    names = inside(agent, "params") or agent
    if not has(names, "agent/enc/conv0", "dyn/dyncore"):
        return None
    return (
        "is of danijar/dreamerv3 between April and July 2024, whose agents are neither those of "
        "2023 nor those since December 2024 and are not read. Train it again with another version."
    )


def importer() -> Importer:
    return Importer(
        title="danijar/dreamerv3 since December 2024",
        places=places,
        recognises=lambda content: isinstance(
            (inside(content, "agent") or inside(content)).get("params"), Mapping
        ),
        read=read,
        config=("../../config.yaml", "config.yaml"),
        unread=_unread,
    )
