"""Where compiled programs are kept between commands, and when they are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thinkslow.cli import compilation_cache as cache
from thinkslow.cli import doctor, main

VARIABLES = (
    "THINKSLOW_CACHE",
    "XDG_CACHE_HOME",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)


def test_it_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "thinkslow" / "jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache.folder() == tmp_path / "mine" / "thinkslow" / "jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert cache.folder() == tmp_path / ".cache" / "thinkslow" / "jax"


def test_enabling_tells_jax_and_makes_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.enable()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "thinkslow" / "jax")
    assert (tmp_path / "thinkslow" / "jax").is_dir()


@pytest.mark.parametrize("theirs", ["", "somewhere"])
def test_jaxs_own_variable_wins(theirs, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", theirs)
    cache.enable()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == theirs
    assert not any(tmp_path.iterdir())
    assert cache.folder() == (Path(theirs) if theirs else None)


def test_off_keeps_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("THINKSLOW_CACHE", "off")
    cache.enable()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert not any(tmp_path.iterdir())
    assert "not kept" in doctor.cache().found


def test_another_value_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("THINKSLOW_CACHE", "no")
    assert main(["inspect", "agent"]) == 1
    assert "THINKSLOW_CACHE must be off or unset; got 'no'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_folder_that_cannot_be_made_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.enable()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_the_oldest_programs_go_first(tmp_path):
    for age, name in enumerate(("newest", "middle", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    cache.prune(tmp_path, 200)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "middle"}


COMPILE = """
import sys
from thinkslow.cli import compilation_cache
compilation_cache.enable()
import jax
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
print(jax.jit(lambda x: x + 1)(41))
sys.exit("/jax/compilation_cache/cache_hits" not in found)
"""


@pytest.mark.slow
def test_a_second_start_finds_the_program_and_one_cut_short_is_compiled_again(tmp_path):
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start() -> tuple[bool, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", COMPILE],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode == 0, done.stdout.strip(), done.stderr

    assert start() == (False, "42", "")
    assert start() == (True, "42", "")
    for program in (tmp_path / "thinkslow" / "jax").glob("*-cache"):
        program.write_bytes(program.read_bytes()[:20])
    assert start() == (False, "42", "")
