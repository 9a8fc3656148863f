"""`thinkslow study`: play a study that was declared in advance, and give its verdicts."""

import contextlib
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from thinkslow import settings
from thinkslow.cli.common import output, say
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.exports import Showing, of_study
from thinkslow.cli.results import progress
from thinkslow.cli.usage import Usage
from thinkslow.plural import plural
from thinkslow.zoo import located

DESCRIPTION = """Play a study: agents, settings, arms, seeds and hypotheses from one TOML file.

Finished blocks are kept. After any stop the same command continues, and the result is the same on
one core, on many, or on a Ray cluster. --dry-run shows in seconds what will be played.

examples:
  thinkslow study quick
  thinkslow study my-study.toml --out out/mine --dry-run
  thinkslow study shifts --agents 'trained=runs/*/agents/60000' --executor ray"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Showing):
    """Options of `thinkslow study`."""

    plan: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[PLAN]")] = ""
    """A TOML file, or the name of a bundled study. Without it, the bundled studies are listed."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write the study to this folder; by default out/study/NAME."""
    agents: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="GROUP=AGENT")
    ] = ()
    """Play these agents in a group of the plan instead: a name, a folder or a pattern. Repeat the
    flag for more.
    """
    executor: Literal["local", "ray"] = "local"
    """Play in processes of this machine, or on a Ray cluster."""
    jobs: Annotated[int | None, tyro.conf.arg(metavar="N")] = settings.setting(None, least=1)
    """Run N local processes at once; by default one for each core."""
    address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """Use the Ray cluster at this address; by default one is started here."""
    dry_run: bool = False
    """Show what will be played, and how long it takes if the study was begun here. Nothing is
    played.
    """

    def check(self) -> None:
        """**Errors:** `Usage` for an address without a cluster, or an agent without a group."""
        super().check()
        if self.address and self.executor != "ray":
            raise Usage("--address needs a Ray cluster: pass --executor ray too.")
        for each in self.agents:
            if not all(each.partition("=")):
                raise Usage(f"--agents must be GROUP=AGENT; got {each!r}.")


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for impossible values."""
    return parse_options(Options, "study", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    options.check_exports()
    from thinkslow.study import parsing as plans

    if not options.plan:
        return _listed(quiet=options.json)
    instead: dict[str, list[str]] = {}
    for each in options.agents:
        group, _, agent = each.partition("=")
        instead.setdefault(group, []).append(agent)
    plan = plans.read(options.plan, instead)
    folder = options.out or Path("out/study") / plan.name
    if not options.json:
        _show_plan(plan)
    _describe_foreign(plan)
    if options.dry_run:
        from thinkslow.study.rehearsal import known

        return _forecast(known(plan, folder, jobs=_processes(options)), options)
    from thinkslow.storage.lock import writing
    from thinkslow.study.run import refuse_other
    from thinkslow.study.run import run as play

    with writing(folder):
        refuse_other(folder)  # before its time is measured
        if not (folder / "blocks").exists() and not options.json:
            _rehearse(plan, folder, options)
    with progress() as show:
        result = play(
            plan,
            folder,
            executor=options.executor,
            jobs=options.jobs,
            address=options.address,
            command=_command(options, folder),
            show=lambda done, total: show(f"{plan.name}, episodes", done, total),
        )
    with writing(folder):
        options.export(of_study(result, folder))
    return show_study(result, folder, quiet=options.json)


def _listed(*, quiet: bool) -> dict[str, Any]:
    from thinkslow.study import parsing as plans

    found = {name: plans.read(name).question for name in plans.shipped()}
    if not quiet:
        for name, question in found.items():
            output().print(f"{name:18} {question}", soft_wrap=True)
    return found


def _describe_foreign(plan: Any) -> None:
    """Say what is known of the agents of other projects, as every command does. For one that cannot
    be opened the reason follows later.

    **Errors:** those of `study.tasks.found`.
    """
    from thinkslow import importers
    from thinkslow.study.tasks import found

    paths = [located(path) for named in found(plan).values() for path in named.values()]
    for path in dict.fromkeys(paths):
        if not importers.is_own(path):
            with contextlib.suppress(OSError, ValueError):
                for line in importers.told(importers.open_agent(path)):
                    say(line)


def _rehearse(plan: Any, folder: Path, options: Options) -> None:
    """Measure how long the study takes on the beginning of every kind of task, and say it."""
    from thinkslow.study.rehearsal import keep, rehearse

    say("Playing a few decisions of every arm, to estimate the time. This may take minutes.")
    found = rehearse(plan, folder, jobs=_processes(options), show=lambda what: say(f"  {what}"))
    keep(folder, found)
    _forecast(found, options)


def _processes(options: Options) -> int | None:
    """Processes at once that an estimate assumes: one, where a cluster shares the tasks."""
    return 1 if options.executor == "ray" else options.jobs


def _forecast(found: dict[str, Any], options: Options) -> dict[str, Any]:
    """Print how much will be played and how long it takes. Returns the same numbers."""
    if options.json:
        return found
    done = f"; {found['finished']:,} are finished" if found["finished"] else ""
    where = "here"
    if options.executor == "ray":
        where = "on one core, to be shared by those of the cluster"
    much = f"{plural(found['tasks'], 'task')}, {plural(found['episodes'], 'episode')}"
    if found["minutes"] is None:
        output().print(
            f"{much}{done}. The time depends on this machine and is not known yet: without "
            "--dry-run the study begins with a measurement of a few decisions, prints the minutes "
            "and then plays."
        )
    else:
        time = plural(max(found["minutes"], 1), "minute")
        output().print(f"{much}: about {time} {where}{done}")
    return found


def _command(options: Options, folder: Path) -> str:
    """The command that continues this study."""
    agents = [word for each in options.agents for word in ("--agents", each)]
    return shlex.join(["thinkslow", "study", options.plan, *agents, "--out", str(folder)])


def _show_plan(plan: Any) -> None:
    show = output().print
    show(f"{plan.name}: {plan.question}")
    show(f"  plan {plan.hash}, {plural(plan.episodes, 'episode')} of each agent, setting and arm")
    for group in plan.groups:
        show(f"  agents {group.name}: {', '.join(group.agents)}")
    for setting in plan.settings:
        where = setting.env or "the environment of each agent"
        show(
            f"  setting {setting.name}: {where}{f', {setting.shift}' if setting.shift else ''}; "
            f"{', '.join(setting.groups)}"
        )
    show(f"  arms: {', '.join(one.name for one in plan.arms)}")
    for one in plan.hypotheses:
        show(f"  {one.name}: {one.claim}")


def show_study(result: dict[str, Any], folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Print the tables of a study and the path of its page. Returns the object of `--json`."""
    page = folder / "report.html"
    if not quiet:
        show_result(result)
        output().print(f"The page: {page}", soft_wrap=True)
    return {**result, "report": str(page)}


def show_result(result: Mapping[str, Any]) -> None:
    """The tables: verdicts first, then the score of every arm."""
    from rich.table import Table

    from thinkslow.evaluation.reading import arms, comparisons, decision_ms
    from thinkslow.study.view import view

    terminal = output()
    if result["hypotheses"]:
        table = Table("hypothesis", "verdict", "effect [95%]", "pairs", "why")
        for one in result["hypotheses"]:
            table.add_row(
                f"{one['name']}: {one['claim']}",
                one["verdict"],
                _interval(one),
                str(one["pairs"]),
                one["why"],
            )
        terminal.print(table)
    seen = view(dict(result))
    table = Table("agents and setting", "arm", "score [95%]", "difference to none [95%]", "ms")
    for label in seen.labels:
        differences = comparisons(seen.summary, label, "score")
        for arm in arms(seen.summary, label):
            score, latency = arm["score"] or {}, decision_ms(arm)
            table.add_row(
                label,
                arm["arm"],
                _interval({"difference": score.get("mean"), "interval": score.get("interval")}),
                _interval(differences[arm["arm"]]) if arm["arm"] in differences else "",
                "" if latency is None else f"{latency:.3g}",
            )
    terminal.print(table)
    for note in seen.notes:
        terminal.print(note)
    if not result["finished"]:
        terminal.print("Not finished: the same command continues with the rest.")


def _interval(row: Mapping[str, Any]) -> str:
    if row.get("difference") is None:
        return "-"
    ends = row.get("interval")
    return f"{row['difference']:.3g}" + (f" [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "")
