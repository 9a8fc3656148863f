"""Examples in docstrings as code of the site: mkdocstrings loads this (mkdocs.yml names it)."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> (?:.+\n?)+", re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts a fence around each doctest that stands outside of an `Examples:` section."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(example: re.Match) -> str:
    text = re.sub(r" *# doctest: \+\w+", "", example[0].rstrip())
    return f"```pycon\n{text}\n```\n"
