"""The files of an agent may name a module for its environment, and only the user imports it."""

from pathlib import Path
from typing import Any

import jax.random as jr
import pytest
from helpers import smallest_config

import thinkslow
from thinkslow import envs
from thinkslow.cli.modules import load_modules
from thinkslow.spaces import Space

FACTORY = """import gymnasium

def make():
    return gymnasium.make("CartPole-v1")
"""


def naming(folder: Path, environment: dict[str, Any]) -> thinkslow.Agent:
    """An agent from files that name modules."""
    config = smallest_config()
    spaces = {"image": Space((16, 16, 3), "uint8")}, {"action": Space((), "int32", 3)}
    model = config.build(*spaces, key=jr.key(0))
    thinkslow.save(folder, model, name=folder.name, environment=environment, training={})
    return thinkslow.load(folder)


@pytest.mark.parametrize(
    "environment",
    [
        {"id": "a_module_of_theirs:Env-v0"},
        {"id": "CartPole-v1", "wrappers": ["a_module_of_theirs:Env-v0"]},
    ],
)
def test_a_module_that_only_the_files_name_is_not_imported(tmp_path, environment):
    """A copy of the description, as in a study, had passed for the user's own words."""
    agent = naming(tmp_path / "one", environment)
    with pytest.raises(ValueError, match=r"import a_module_of_theirs:Env-v0.*about.environment"):
        thinkslow.evaluate({"none": agent}, dict(agent.about.environment), episodes=2, seed=0)
    with pytest.raises(ValueError, match=r"import a_module_of_theirs:Env-v0.*about.environment"):
        envs.make(**agent.about.environment)


def test_a_module_that_the_user_imports_may_be_named(tmp_path, monkeypatch):
    """The processes of the environments do not know what the user imported, and refused."""
    (tmp_path / "imported_by_me.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    agent = naming(tmp_path / "one", {"id": "imported_by_me:make", "size": 16})
    load_modules(["imported_by_me.py"])
    assert agent.about.environment["id"] == "imported_by_me:make"
    with envs.make(**agent.about.environment) as env:
        assert env.id == "imported_by_me:make"
    with envs.VectorEnv(**agent.about.environment, count=1) as several:
        assert several.reset([0]).is_first.all()


def test_a_file_with_the_name_of_another_module_is_no_consent_to_that_one(tmp_path):
    (tmp_path / "platform.py").write_text("")
    load_modules([str(tmp_path / "platform.py")])
    agent = naming(tmp_path / "one", {"id": "platform:uname"})
    with pytest.raises(ValueError, match="import platform:uname"):
        envs.make(**agent.about.environment)
