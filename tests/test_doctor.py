"""Doctor: what works on this machine, what does not, and what mends it."""

import dataclasses
import json
from typing import Any

import pytest
from commands import altered
from helpers import slow

from thinkslow.cli import doctor, main
from thinkslow.envs import families, trial
from thinkslow.envs.families import atari
from thinkslow.envs.families.family import Family


@pytest.fixture
def healthy(monkeypatch):
    """A machine on which everything that takes long is fine."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)  # doctor reads it
    fine = doctor.Finding("renderer", True, "drew a frame")
    monkeypatch.setattr(doctor, "drawing", lambda limit_s: [fine])
    monkeypatch.setattr(doctor, "agents", lambda: [])


def test_doctor_says_that_the_demo_can_run(healthy, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "can run here" in out
    assert "No GPU" in out


def test_doctor_prints_one_object(healthy, capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is True
    assert {one["what"] for one in report["findings"]} >= {"python", "jax", "renderer", "disk"}


@pytest.mark.parametrize("flags", [[], slow(["--json"])])
def test_doctor_names_missing_debian_packages_and_the_command(flags, healthy, monkeypatch, capsys):
    from thinkslow.envs import rendering

    monkeypatch.undo()
    monkeypatch.setattr(rendering, "missing_packages", lambda: ["libegl1", "libgl1"])
    assert main(["doctor", *flags]) == 1
    out = capsys.readouterr().out
    assert "sudo apt-get install -y libegl1 libgl1" in out
    if flags:
        assert json.loads(out)["works"] is False


def test_doctor_survives_a_renderer_that_crashes(monkeypatch):
    monkeypatch.setattr(trial, "CALL", "import os; os.abort()")
    found = doctor.renderer(60.0)
    assert not found.ok
    assert "SIGABRT" in found.found
    assert "apt-get" in found.remedy
    monkeypatch.setattr(trial, "CALL", "import time; time.sleep(1000)")
    assert "no step within 0.5 s" in doctor.renderer(0.5).found
    monkeypatch.setattr(trial, "CALL", "print('not JSON')")
    assert not doctor.renderer(60.0).ok


def test_doctor_steps_every_family_and_names_what_mends_it(monkeypatch):
    def family(name: str, example: str, **given: Any) -> Family:
        plain = dataclasses.replace(atari.FAMILY, module="json", registers=None, repeats=None)
        return dataclasses.replace(plain, name=name, example=example, packages=name, **given)

    ways = (
        family("sound", "CartPole-v1"),
        family("sunk", "tiny_envs:tiny/Unborn-v0"),
        family("bare", "CartPole-v1", pattern="CartPole", libraries={"libgone.so": "libgone1"}),
    )
    monkeypatch.setattr(families, "FAMILIES", (*ways, dataclasses.replace(ways[0], module="gone")))
    monkeypatch.setattr(doctor, "renderer", lambda limit_s: doctor.Finding("renderer", True, ""))
    found = {one.what: one for one in doctor.drawing(60.0) if one.what.startswith("family")}
    assert found["family sound"].ok
    assert "3 steps of CartPole-v1" in found["family sound"].found
    assert "no memory for the map" in found["family sunk"].found
    assert found["family sunk"].remedy
    assert trial.tried("CartPole-v1", 0.01).found == "no step within 0.01 s"


def test_doctor_finds_an_altered_bundled_agent(agent, monkeypatch):
    from thinkslow import zoo

    altered(agent)
    monkeypatch.setattr(zoo, "FOLDER", agent.parent)
    monkeypatch.setattr(zoo, "DEMO", (agent.name,))
    (found,) = doctor.agents()
    assert found.needed
    assert not found.ok
    assert "altered" in found.found


def test_doctor_warns_of_a_full_disk_but_the_demo_can_run(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOM", 1e9)
    found = doctor.disk(tmp_path)
    assert not found.ok
    assert not found.needed
