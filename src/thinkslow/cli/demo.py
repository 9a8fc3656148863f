"""`thinkslow demo`: bundled agents on a 3D task, with and without thinking."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from thinkslow import settings, zoo
from thinkslow.cli import early
from thinkslow.cli.common import Common, say
from thinkslow.cli.common import parse as parse_options
from thinkslow.settings import setting

DESCRIPTION = """Play two bundled agents on a first-person 3D task, with and without thinking.

One agent is half-trained, the other is trained. Each plays without thinking, with two ways to
think, and with the controls. A small problem with a known truth shows a case in which thinking
helps. The command prints a table and a headline for each agent, and writes a page. On two cores the
first run takes about a minute and a half, and later runs about a minute.

examples:
  thinkslow demo
  thinkslow demo --episodes 50 --out out/demo-50
  thinkslow demo --seed 1 --json"""


DECISIONS = 60
"""Length of an episode; the agents were trained on episodes of 250 decisions."""
BATCH = 5
"""Environments in parallel."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow demo`."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("out/demo")
    """Write the records and the page to this folder."""
    episodes: int = setting(20, least=2)
    """Play N episodes of each arm. More episodes make narrower intervals."""
    seed: int = settings.seed()
    """Take environment seeds and random numbers from this seed."""


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for impossible values."""
    return parse_options(Options, "demo", DESCRIPTION, arguments)


BEGINS = """\
Two bundled agents play a 3D task with and without thinking: {episodes} episodes per arm.
A small problem with a known truth shows a case in which thinking helps.
Programs are compiled once and kept, so the next demo is faster.
Loading JAX and the agents ..."""


def run(options: Options) -> dict[str, Any]:
    say(BEGINS.format(episodes=options.episodes))
    with early.environments([Path(zoo.DEMO[0])], _environment, min(BATCH, options.episodes)):
        return _run(options)


def _environment(agents: Sequence[Any]) -> dict[str, Any]:
    """The environment of the first agent, with short episodes."""
    return {**agents[0].environment, "options": {"decisions": DECISIONS}}


def _run(options: Options) -> dict[str, Any]:
    from thinkslow.agent.arms.presets import DEFAULT
    from thinkslow.cli.evaluate import play_and_report
    from thinkslow.evaluation import known
    from thinkslow.evaluation.report.beside import FOLDER
    from thinkslow.loading import load

    def beside(folder: Path) -> None:
        if not (folder / FOLDER).exists():
            say("Playing the small problem with a known truth ...")
            known.play(folder / FOLDER, seed=options.seed, command="thinkslow demo")

    agents = {name: load(name) for name in zoo.DEMO}
    return play_and_report(
        {name: {arm: agent.thinking(arm) for arm in DEFAULT} for name, agent in agents.items()},
        {
            "environment": _environment([agent.about for agent in agents.values()]),
            "episodes": options.episodes,
            "seed": options.seed,
            "batch": BATCH,
        },
        out=options.out,
        numbered=options.out == Options.out,
        command=f"thinkslow demo --episodes {options.episodes} --seed {options.seed}",
        quiet=options.json,
        brief=True,
        afresh=True,
        beside=beside,
    )
