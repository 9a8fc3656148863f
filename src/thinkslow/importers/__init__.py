"""Agents of other projects: found, read without running anything, and made into our own."""

from thinkslow.importers.find import SOURCES, find
from thinkslow.importers.load import check_finite, is_own, load, open_agent, told, write

__all__ = ["SOURCES", "check_finite", "find", "is_own", "load", "open_agent", "told", "write"]
