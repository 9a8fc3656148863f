"""Agents of other projects: found, read without running anything, and made into our own."""

from thinkslow.importers.find import SOURCES, find
from thinkslow.importers.load import is_own, load, open_agent, write

__all__ = ["SOURCES", "find", "is_own", "load", "open_agent", "write"]
