"""The player: an episode as one HTML page that needs no network.

Styles, script, images and data are inlined. The content security policy allows only its own script,
identified by its hash, and no loading.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from thinkslow.evaluation.records import BASE
from thinkslow.evaluation.report.rendering import rendered
from thinkslow.plural import plural
from thinkslow.storage import jsontext

SCRIPTS = ("episode.js", "charts.js", "player.js")
_PLACE = "thinkslow.evaluation.watching"
_ENDS = {
    "over": "The episode ended.",
    "cut": "The episode was cut here.",
    "stopped": "Playing was stopped here.",
    "crashed": "The environment failed here.",
}


def page(block: Mapping[str, Any]) -> str:
    """The page of an episode.

    Args:
        block: the block from `block.Gathering`.
    """
    folder = resources.files(_PLACE) / "templates"
    script = "\n".join((folder / name).read_text() for name in SCRIPTS)
    agent, where = block["agent"], block["environment"]
    shift = f", {where['shift']}" if where.get("shift") else ""
    return rendered(
        _PLACE,
        "player.html.jinja",
        title=f"{agent['name']} on {where['id']}{shift}, seed {block['seed']}",
        block=block,
        base=BASE,
        notes=_notes(block),
        end=_ENDS[block["ended"]],
        style=(folder / "player.css").read_text(),
        script=script,
        hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_embedded(block),
        provenance=_provenance(block),
        several=len([one for one in block["parts"] if one["kind"] == "image"]) > 1,
    )


def _embedded(block: Mapping[str, Any]) -> str:
    """JSON in which no text can end the script element."""
    text = jsontext.dumps(block)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _notes(block: Mapping[str, Any]) -> list[str]:
    """Notes on this page."""
    out = []
    decoded = [one for one in block["parts"] if one["decoded"]]
    if not decoded:
        out.append(
            "This agent has no decoder for what it sees, so there are no reconstructions and no "
            "imagined futures."
        )
    if any(one["kind"] == "image" for one in decoded) and block["imagined_every"] != 1:
        every = block["imagined_every"]
        kept = f"one in {plural(every, 'decision')}" if every else "none"
        out.append(f"To keep the page small, imagined frames are kept of {kept}.")
    if not block["arms"][0].get("surprise"):
        out.append(
            "This agent does not return its beliefs; only observations and actions are shown."
        )
    if block["ended"] == "cut":
        out.append(f"The episode was cut after {plural(block['decisions'], 'decision')}.")
    if block["error"]:
        out.append(f"The environment failed: {block['error']}")
    return out


def _provenance(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The provenance of the page, as pairs of name and value."""
    agent = {k: v for k, v in block["agent"].items() if v is not None}
    found = [
        ("command", block["command"]),
        ("agent", ", ".join(f"{k} {v}" for k, v in agent.items())),
        ("environment", ", ".join(f"{k} {v}" for k, v in block["environment"].items())),
        ("environment seed", str(block["environment_seed"])),
        ("versions", ", ".join(f"{k} {v}" for k, v in block["versions"].items())),
        ("revision", block["revision"]),
    ]
    return [(word, value) for word, value in found if value]
