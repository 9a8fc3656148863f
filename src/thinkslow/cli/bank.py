"""`thinkslow bank`: the value of every action at single decisions, and how arms choose there."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from thinkslow import registry
from thinkslow.bank.plan import Plan
from thinkslow.cli.common import beside_none, output, part, say
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.playing import PlayingAgents
from thinkslow.plural import plural
from thinkslow.settings import setting

if TYPE_CHECKING:
    from rich.table import Table

DESCRIPTION = """Fill a bank of decisions and judge arms on it.

The agent plays, and at some moments every action is tried and played out: this estimates its
value. Every arm then decides at these moments, and the command prints by how much its actions are
better than the agent's own. It also prints how far the agent is from the best action, whether its
critic and its imagination are accurate, and what the best possible gate would keep.

A bank is stored while it is filled. After an interruption, the same command continues. With other
--arms, it judges them on the full bank.

examples:
  thinkslow bank collect-half
  thinkslow bank collect-half --moments 300 --arms none,values,control-shuffled
  thinkslow bank runs/first/agents/20000 --out out/bank/first"""

ARMS = "none,values,control-tempered,control-shuffled,control-critic,control-reward,control-greedy"
GATES = "voc,improvement,policy-information,surprise"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(PlayingAgents, Plan):
    """Options of `thinkslow bank`."""

    GROUP: ClassVar = "bank"

    agent: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="AGENT")]
    """A bundled agent by name, an agent folder, or a log folder or checkpoint of another
    project."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write the bank to this folder; by default out/bank/NAME."""
    arms: Annotated[str, tyro.conf.arg(metavar="ARM,...")] = ARMS
    """Judge these arms. Arms that the agent cannot play are left out."""
    gates: Annotated[str, tyro.conf.arg(metavar="SCORE,...")] = GATES
    """Compare these scores as gates."""
    draws: int = setting(4, least=1)
    """Let each arm decide N times at each moment."""

    def check(self) -> None:
        """**Errors:** `ValueError` for unknown arms or scores."""
        super().check()
        for name in self.arm_names:
            registry.check("arm", name)
        for name in self.gate_names:
            registry.check("gate", name)

    @property
    def arm_names(self) -> list[str]:
        """The arms in `--arms`, `none` first."""
        return beside_none(self.arms)

    @property
    def gate_names(self) -> list[str]:
        return [name.strip() for name in self.gates.split(",") if name.strip()]


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for impossible values."""
    return parse_options(Options, "bank", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Fill the bank, judge the arms, print the result and write it next to the bank.

    **Errors:** `Usage` for an agent of no environment; those of `bank.filled` and of `bank.judge`.
    """
    options.locate()
    from thinkslow import bank
    from thinkslow.cli.results import progress
    from thinkslow.loading import agent_of
    from thinkslow.storage import atomic

    saved = options.open(options.agent)
    environment = options.environment([saved])
    agent = agent_of(saved)
    out = options.out or Path("out/bank") / saved.name
    plan = part(options, Plan)
    try:
        with (
            options.cause_first(environment),
            progress() as show,
            bank.filled(agent, environment, plan, out, limits=options.limits(), show=show) as held,
        ):
            agent = with_returns(agent, environment, plan)
            arms, scores = playable(agent, held, options)
            choices = bank.judge(held, arms, scores=scores, draws=options.draws, show=show)
            summary = bank.summarise(choices)
            text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
            atomic.write_text(held.folder / "summary.json", text)
    except KeyboardInterrupt:
        say(f"What was stored is in {out}; the same command continues with the rest.")
        raise
    if not options.json:
        for table in tables(summary):
            output().print(table)
        output().print(scope(summary))
        output().print(f"The bank: {out}", soft_wrap=True)
    return {"bank": str(out), **summary}


def with_returns(agent: Any, environment: Mapping[str, Any], plan: Plan) -> Any:
    """The agent with the range of its returns, if it has a critic."""
    from thinkslow.evaluation.calibrate import calibrated

    try:
        values = agent.thinking("values")
    except ValueError:  # it has no critic, so no arm needs the range
        return agent
    if not values.lacks_returns:
        return agent
    inner: Any = calibrated(values, environment, seed=plan.seed).inner
    return agent.having_returns(inner.returns)


def playable(agent: Any, filled: Any, options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arms and scores that the agent can play; the others are named in a message."""
    from thinkslow.bank.judging import lacking, refusal

    arms: dict[str, Any] = {}
    for name in options.arm_names:
        try:
            made = agent.thinking(name)
        except ValueError as error:
            say(f"no {name}: {error}")
            continue
        reason = refusal(made, filled)
        if reason and (filled.header.enumerated or name != "none"):
            say(f"no {name}: {reason}")
            continue
        arms[name] = made
    scores = {}
    for name in options.gate_names:
        score = registry.make("gate", name)
        if (reason := lacking(agent, score)) is not None:
            say(f"no gate {name}: {reason}")
        else:
            scores[name] = score
    return arms, scores


def scope(summary: Mapping[str, Any]) -> str:
    """What the numbers rest on."""
    moments, episodes = (plural(summary[key], key[:-1]) for key in ("moments", "episodes"))
    return f"{moments} of {episodes}; 95% intervals over episodes, of one checkpoint."


def tables(summary: Mapping[str, Any]) -> "list[Table]":
    """The results of the bank as tables for the terminal."""
    from rich.table import Table

    out = []
    base, critic = summary["base"], summary["critic"]
    if base:
        table = Table("single decisions", "return over the play-out")
        table.add_row("the base agent's action", _estimate(base["value"]))
        table.add_row("what the best action would add", _estimate(base["regret"]))
        for arm, row in summary["arms"].items():
            share = f"{row['changed']:.0%} of actions changed"
            table.add_row(f"{arm} adds ({share})", _estimate(row["gain"]))
        out.append(table)
    if summary["calibration"]:
        table = Table("imagined against true advantages", "r", "r without noise", "verdict")
        for arm, row in summary["calibration"].items():
            table.add_row(
                arm,
                _correlation(row["r"], row.get("r_interval")),
                _correlation(row["r_corrected"], row.get("r_corrected_interval")),
                row["verdict"] or "–",
            )
        out.append(table)
    if critic:
        table = Table("critic against returns", "r", "slope", "critic too high by")
        table.add_row(
            "at every moment",
            _correlation(critic["r"]),
            _correlation(critic["slope"]),
            _estimate(critic["bias"]),
        )
        out.append(table)
    for arm, curves in summary["gates"].items():
        shares = [row["share"] for row in next(iter(curves.values()))]
        table = Table(f"{arm} behind a gate open for", *(f"{share:.0%}" for share in shares))
        largest = max(abs(row["mean"]) for rows in curves.values() for row in rows)
        for name, rows in curves.items():
            table.add_row(name, *(_beside(row["mean"], largest) for row in rows))
        out.append(table)
    return out


def _estimate(row: Mapping[str, Any]) -> str:
    from thinkslow.evaluation.reading import Estimate
    from thinkslow.evaluation.report.text import estimated

    if row["mean"] is None:
        return "–"
    ends = row["interval"]
    return estimated(Estimate(row["mean"], tuple(ends) if ends else None), signed=True)


def _beside(value: float, largest: float) -> str:
    """A number to two significant digits of the largest in its table: what is left of it by the
    rounding of floats, such as 9.15e-10, had so many letters that a terminal broke it.

    >>> _beside(0.00679, 0.00679), _beside(-9.15e-10, 0.00679), _beside(-12.34, 123.4)
    ('+0.0068', '+0', '-12')
    """
    places = 1 - math.floor(math.log10(largest)) if largest else 0
    return f"{round(value, max(places, 0)) or 0:+.3g}"


def _correlation(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "–"
    ends = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""
    return f"{value:+.2f}{ends}"
