"""`thinkslow gap`: how far beliefs are from the best possible ones, before and after refinement."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from thinkslow import registry
from thinkslow.cli.common import beside_none, output, part, say, typed
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.playing import PlayingAgents
from thinkslow.cli.usage import Usage
from thinkslow.gap.plan import Plan

if TYPE_CHECKING:
    from rich.table import Table

DESCRIPTION = """Measure how much better an agent's beliefs could be, in nats.

At moments of the base agent's play, the encoder's belief is compared with the best belief of its
family (amortisation gap), with the exact belief (approximation gap), and with the best belief that
also knows the later frames (conditioning gap). Every arm is measured at the same moments: how much
of the gap it closes, and whether it predicts the next frame better. Several agents are compared;
agents of one run show the gap by training budget.

Moments are stored as they are measured. After an interruption, the same command continues.

examples:
  thinkslow gap collect-good
  thinkslow gap collect-early collect-half collect-good --out out/gap/budget
  thinkslow gap runs/first/agents/20000 --arms evidence,evidence-mirror --beta 1"""

ARMS = "none,evidence,sig-3,control-random"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(PlayingAgents, Plan):
    """Options of `thinkslow gap`."""

    GROUP: ClassVar = "gap"

    agents: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="AGENT ...")]
    """Bundled agents by name, agent folders, or log folders and checkpoints of other projects."""
    arms: Annotated[str, tyro.conf.arg(metavar="ARM,...")] = ARMS
    """Measure the beliefs of these arms; `none` is the encoder's. Default arms that do not apply
    to an agent are left out."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write the records and the page to this folder; by default out/gap/NAME."""

    def check(self) -> None:
        """**Errors:** `ValueError` for no agent, or unknown arms."""
        super().check()
        if not self.agents:
            raise Usage(
                "Say which agent: thinkslow gap AGENT. `thinkslow agents` lists the bundled."
            )
        for name in self.arm_names:
            registry.check("arm", name)

    @property
    def arm_names(self) -> list[str]:
        """The arms in `--arms`, `none` first."""
        return beside_none(self.arms)


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for impossible values."""
    return parse_options(Options, "gap", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Measure, print, and write gap.json and the page next to the records.

    **Errors:** `Usage` for an agent without an environment, agents of several environments, or an
    arm whose gaps cannot be measured; those of `gap.measure`.
    """
    options.locate()
    from thinkslow import gap
    from thinkslow.cli.results import progress
    from thinkslow.evaluation.subjects import told_apart
    from thinkslow.gap.page import build
    from thinkslow.loading import agent_of
    from thinkslow.storage.lock import writing

    saved = [options.open(source) for source in options.agents]
    environment = options.environment(saved)
    names = told_apart([one.name for one in saved], options.agents)
    agents = {
        name: playable(name, agent_of(one), options) for name, one in zip(names, saved, strict=True)
    }
    out = options.out or Path("out/gap") / "-".join(one.name for one in saved)
    plan = part(options, Plan)
    words = ["thinkslow", "gap", *map(str, options.agents), *typed(options, ("agents",))]
    try:
        with options.cause_first(environment), progress() as show:
            gap.measure(
                agents,
                environment,
                plan,
                out,
                limits=options.limits(),
                command=shlex.join(words),
                show=show,
            )
    except KeyboardInterrupt:
        say(f"What was measured is in {out}; the same command continues with the rest.")
        raise
    with writing(out):
        summary, page = build(out)
    if not options.json:
        terminal = output()
        for one in summary["agents"]:
            terminal.print(table(one))
        for note in summary["notes"]:
            terminal.print(note)
        terminal.print(f"The page: {page}", soft_wrap=True)
    return {**summary, "folder": str(out), "report": str(page)}


def playable(name: str, agent: Any, options: Options) -> dict[str, Any]:
    """The arms of an agent whose gaps can be measured. Default arms that are left out are reported.

    **Errors:** `Usage` for an arm of --arms that cannot be measured.
    """
    from thinkslow.gap.measuring import refusal

    out = {}
    for label in options.arm_names:
        try:
            arm = agent.thinking(label)
            reason = refusal(arm, options.beta, base=label == "none")
        except ValueError as error:
            arm, reason = None, str(error).rstrip(".")
        if reason is None:
            out[label] = arm
        elif label == "none":
            raise Usage(f"{name}: no gap can be measured: {reason}.".replace("`beta`", "--beta"))
        elif options.arms != ARMS:
            raise Usage(f"{name}, {label}: {reason}. Leave it out of --arms.")
        else:
            say(f"{name}: no {label}: {reason}.")
    return out


def table(agent: Mapping[str, Any]) -> "Table":
    """The gaps of one agent for the terminal."""
    from rich.table import Table

    from thinkslow.gap.words import LABELS, approximated, estimated, heading

    shown = Table(title=heading(agent), title_justify="left")
    shown.add_column("belief")
    for column in ("amortisation gap", "conditioning gap", "next frame, change"):
        shown.add_column(column, justify="right")
    for row in agent["beliefs"]:
        first = row["name"] == "none"
        shown.add_row(
            LABELS.get(row["name"], row["name"]),
            estimated(row["amortisation"]),
            estimated(row["conditioning"]),
            "0" if first else estimated(row["change"]["next"], signed=True),
        )
    shown.caption = f"approximation gap {approximated(agent)}; nats, 95% intervals over episodes"
    shown.caption_justify = "left"
    return shown
