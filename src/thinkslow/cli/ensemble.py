"""`thinkslow ensemble`: plausible parameters for an agent."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from thinkslow import settings, zoo
from thinkslow.cli.common import output
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.playing import PlayingAgents
from thinkslow.cli.usage import Usage
from thinkslow.plural import plural
from thinkslow.settings import setting

if TYPE_CHECKING:
    from rich.table import Table

    from thinkslow.saved.folder import Saved

DESCRIPTION = """Fit an ensemble to an agent and store it with the agent.

The arms `pig-*`, the term `pig` and the gate `disagreement` need it. A member is a copy of the
last layer of the prior, fitted to a resample of episodes that the agent plays now. The agent's
weights do not change. An existing ensemble is replaced. The command prints how well the trained
layer and the members predict, also on held-out episodes.

examples:
  thinkslow ensemble runs/first/agents/20000
  thinkslow ensemble runs/first/agents/20000 --members 8 --decisions 10000
  thinkslow ensemble ~/logdir/pong --env ALE/Pong-v5 --out agents/pong"""

ENVIRONMENTS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(PlayingAgents):
    """Options of `thinkslow ensemble`."""

    GROUP: ClassVar = "fit"

    agent: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="AGENT")]
    """An agent folder, or a log folder or checkpoint of another project. A bundled agent keeps the
    ensemble that it comes with."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Convert another project's agent, and write it to this folder with its ensemble."""
    decisions: int = setting(4000, least=1)
    """Play N decisions, over all environments together."""
    members: int = setting(4, least=2)
    """Fit N members."""
    steps: int = setting(300, least=1)
    """Make N steps in each fit. With many more steps the members over-fit their resample."""
    seed: int = settings.seed()
    """Take episodes, resamples and fits from this seed."""


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for impossible values."""
    return parse_options(Options, "ensemble", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Play, fit, judge and store.

    **Errors:** `Usage` for a bundled agent, for another project's agent without `out`, or one of
    ours with `out`; errors of reading, of the environment and of `ensemble.make`.
    """
    if not options.agent.exists() and str(options.agent) in zoo.names():
        raise Usage(
            f"{options.agent} is bundled with thinkslow, has an ensemble and is not changed. Copy "
            f"{zoo.path(str(options.agent))} and pass the copy."
        )
    from thinkslow import importers
    from thinkslow.agent.agent import Agent
    from thinkslow.cli.results import progress
    from thinkslow.dreamer.ensemble import make, seed_of
    from thinkslow.envs import VectorEnv, arguments
    from thinkslow.evaluation.subjects import fitted
    from thinkslow.saved import folder as checkpoint
    from thinkslow.storage.lock import writing

    saved, folder, own = _opened(options)
    environment = options.environment([saved])
    with (
        writing(folder),
        VectorEnv(
            count=ENVIRONMENTS,
            seed=seed_of(options.seed),
            **options.limits(),
            **arguments(environment),
        ) as envs,
        progress() as show,
    ):
        agent = fitted(Agent(saved.model), envs, name=saved.name)
        members, facts = make(
            agent.model,
            envs,
            decisions=options.decisions,
            members=options.members,
            steps=options.steps,
            seed=options.seed,
            show=show,
        )
        facts = {"environment": environment["id"], **facts}
        if not own:
            importers.write(saved, folder)
        checkpoint.save_members(folder, members, facts)
    if not options.json:
        terminal = output()
        terminal.print(_table(facts))
        terminal.print(f"Stored in {folder}", soft_wrap=True)
    return {"agent": str(folder), **facts}


def _opened(options: Options) -> "tuple[Saved, Path, bool]":
    """The agent, the folder that its ensemble goes into, and whether this is the agent's own.

    **Errors:** `Usage` for another project's agent without `out`, or one of ours with `out`; errors
    of reading.
    """
    from thinkslow import importers
    from thinkslow.saved import folder as checkpoint

    folder = zoo.located(options.agent)
    if importers.is_own(folder):
        if options.out is not None:
            raise Usage(
                f"{folder} is already an agent of thinkslow and stores its own ensemble. Leave "
                "out --out."
            )
        # Without the ensemble, so that a damaged one can be replaced.
        return checkpoint.load(folder, ensemble=False), folder, True
    if options.out is None:
        importers.find(folder, format=options.format)  # raises if there is no agent at all
        raise Usage(
            f"{folder} is an agent of another project. An ensemble is stored with an agent in "
            "our format: pass --out AGENT to convert it."
        )
    return options.open(folder), options.out, False


def _table(facts: dict[str, Any]) -> "Table":
    from rich.table import Table

    parts = {"training": "fitted to", "held_out": "held out"}
    table = Table(
        "mean over decisions, nats",
        *(
            f"{title}, {plural(facts['episodes'][part], 'episode')}"
            for part, title in parts.items()
        ),
    )
    rows = {
        "KL(posterior || prior), trained layer": lambda fit: fit["trained"],
        f"the same, mean of {plural(facts['members'], 'member')}": lambda fit: mean(fit["members"]),
        "the same, worst member": lambda fit: max(fit["members"]),
        "information gain of the members": lambda fit: fit["disagreement"],
    }
    for title, value in rows.items():
        table.add_row(title, *(f"{value(facts[part]):.3f}" for part in parts))
    return table
