"""Memory goes back to the system when it is asked for."""

import platform
import subprocess
import sys

import pytest

from thinkslow import memory

SCRIPT = """
import ctypes
from pathlib import Path

from thinkslow import memory


def resident() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024


libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pieces = [libc.malloc(64 << 10) for _ in range(2048)]
for piece in pieces:
    ctypes.memset(ctypes.c_void_p(piece), 1, 64 << 10)
for piece in pieces[:-1]:
    libc.free(piece)
held = resident()
memory.give_back()
print(held - resident())
"""
"""Frees 128 MiB in pieces of 64 KiB below one that stays, so that the C library keeps them."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others are not asked")
def test_freed_memory_goes_back():
    python = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(python, check=True, capture_output=True, text=True)
    assert int(done.stdout) > 100


def test_the_limit_of_a_container_or_a_job_counts(tmp_path, monkeypatch):
    """A replay that fits the machine may not fit the job."""
    monkeypatch.setattr(memory, "_limits", lambda: [tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    machine = memory.allowed()
    (tmp_path / "a").write_text("max\n")
    assert memory.allowed() == machine
    (tmp_path / "b").write_text("1048576\n")
    assert memory.allowed() == 2**20
