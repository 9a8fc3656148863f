import os
import subprocess
import sys

import pytest

from thinkslow import __main__ as thinkslow_main
from thinkslow.cli import huge_pages


@pytest.fixture
def started(monkeypatch, tmp_path):
    """A process that is the command alone, where huge pages are given on request."""
    kernel = tmp_path / "enabled"
    kernel.write_text("always [madvise] never\n")
    calls = []
    monkeypatch.setattr(huge_pages, "KERNEL", kernel)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(os, "execve", lambda *given: calls.append(given))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "argv", ["/bin/thinkslow", "train", "x"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-P", "/bin/thinkslow", "train", "x"])
    return kernel, calls


def test_a_command_is_started_again_with_its_own_words_and_huge_pages(started, monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    huge_pages.use()
    [(program, words, environment)] = started[1]
    assert program == sys.executable
    assert words == ["python", "-P", "/bin/thinkslow", "train", "x"]
    assert environment == {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_the_command_as_a_module_is_started_again_too(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", [thinkslow_main.__file__, "train", "x"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "thinkslow", "train", "x"])
    huge_pages.use()
    assert started[1][0][1] == ["python", "-m", "thinkslow", "train", "x"]


def test_nothing_is_started_again_where_nothing_would_change(started, monkeypatch):
    kernel, calls = started
    with monkeypatch.context() as patch:
        patch.setenv("GLIBC_TUNABLES", "")
        huge_pages.use()
    for libc in ("glibc 2.34", "", None):
        with monkeypatch.context() as patch:
            patch.setattr(os, "confstr", lambda name, libc=libc: libc)
            huge_pages.use()
    with monkeypatch.context() as patch:
        patch.setattr(os, "confstr", lambda name: os.sysconf("no such name"))
        huge_pages.use()
    for argv in (["mine.py", "train", "x"], ["-", "train"], ["-c", "train"]):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            patch.setattr(sys, "orig_argv", ["python", *argv])
            huge_pages.use()
    for setting in ("[always] madvise never", "always madvise [never]"):
        kernel.write_text(setting)
        huge_pages.use()
    kernel.unlink()
    huge_pages.use()
    assert calls == []


def test_a_python_that_cannot_be_started_is_done_without(started, monkeypatch):
    def fails(*given):
        started[1].append(given)
        raise PermissionError

    monkeypatch.setattr(os, "execve", fails)
    huge_pages.use()
    assert len(started[1]) == 1


def test_it_stays_the_same_process(tmp_path):
    (tmp_path / "thinkslow").write_text(
        "import os; from thinkslow.cli import huge_pages; huge_pages.use();"
        "print(os.getpid(), os.environ.get('GLIBC_TUNABLES'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "thinkslow"), "train"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    out, _ = process.communicate(timeout=60)
    pid, tunables = out.split()
    assert int(pid) == process.pid
    given = huge_pages.by_request() and huge_pages.glibc() >= (2, 35)
    assert tunables == ("glibc.malloc.hugetlb=1" if given else "None")
