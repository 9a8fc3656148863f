"""`thinkslow agents`: the trained agents that come with the package."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from thinkslow import zoo
from thinkslow.cli.common import Common
from thinkslow.cli.common import parse as parse_options
from thinkslow.plural import plural

DESCRIPTION = """List the bundled agents. Every command takes them by name.

examples:
  thinkslow agents
  thinkslow inspect collect-good
  thinkslow evaluate collect-half --arms none,evidence"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Options of `thinkslow agents`."""


def parse(arguments: Sequence[str]) -> Options:
    return parse_options(Options, "agents", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Print the bundled agents, from their manifests."""
    agents = [_facts(name) for name in zoo.names()]
    if not options.json:
        for one in agents:
            print(
                f"{one['name']:14} {one['environment']}, {one['preset']}, "
                f"{plural(one['decisions'], 'decision')}, {plural(one['updates'], 'update')}, "
                f"training score {one['score']:g}"
            )
        print("\nGive the path of an agent that you trained, or of another project's checkpoint.")
    return {"agents": agents}


def _facts(name: str) -> dict[str, Any]:
    manifest = json.loads((zoo.path(name) / "manifest.json").read_text())
    training = manifest["training"]
    return {
        "name": name,
        "decisions": training["steps"],
        "updates": training["updates"],
        "score": training["score"],
        "environment": manifest["environment"]["id"],
        "preset": training["preset"],
        "path": str(zoo.path(name)),
    }
