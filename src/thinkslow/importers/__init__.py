"""Agents of other projects: found, read without running anything, and made into our own."""

from thinkslow.importers.find import SOURCES, find
from thinkslow.importers.load import load, open_agent, told, write
from thinkslow.storage.store import check_finite, is_own

__all__ = ["SOURCES", "check_finite", "find", "is_own", "load", "open_agent", "told", "write"]
