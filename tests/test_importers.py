"""Agents of other projects: read, played and kept.

Parity with their own code is `test_golden.py`'s; here are other sizes than its cases have, other
importers, and the command line.
"""

import dataclasses
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from foreign import SMALL, as_danijar, choice, image, vector
from helpers import golden_case, slow, tiny_dreamer

import thinkslow
from thinkslow import importers
from thinkslow.cli import main
from thinkslow.dreamer.config import MLPConfig
from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.importer import files, inside
from thinkslow.importers.loading import read
from thinkslow.importers.options import read_options
from thinkslow.saved import folder as checkpoint
from thinkslow.saved.environment import environment_of
from thinkslow.storage import store
from thinkslow.weights import named

SHAPES: dict[str, dict[str, Any]] = {
    "an image of 96": {"observations": {"image": image(96)}, "mults": (1, 2, 3)},
    "an image of 128": {"observations": {"image": image(128, 1)}, "mults": (1, 2, 2, 3, 3)},
    "one convolution, another kernel": {
        "observations": {"image": image(8)},
        "mults": (1,),
        "kernel": 3,
    },
    "vectors only, one a number, one of classes": {
        "observations": {"b": vector(3), "a": vector(), "c": choice(4)},
        "encoder": MLPConfig(3, 5),
        "decoder": MLPConfig(2, 7),
        "mults": (),
    },
    "several actions": {
        "observations": {"image": image(8)},
        "mults": (1,),
        "actions": {"jump": choice(2), "aim": vector(3), "turn": choice(5)},
    },
    "layers, blocks and bins": {
        "observations": {"image": image(8), "x": vector(2)},
        "mults": (2, 4),
        "blocks": 8,
        "core_layers": 2,
        "prior_layers": 3,
        "posterior_layers": 2,
        "reward_bins": 7,
        "value_bins": 9,
        "reward": MLPConfig(2, 6),
        "policy": MLPConfig(4, 5),
        "decoder_blocks": 2,
        "classes": 3,
        "stoch": 5,
    },
    "twelve layers": {
        "observations": {"image": image(8)},
        "mults": (1,),
        "policy": MLPConfig(12, 4),
    },
    "other widths of prior and posterior": {
        "observations": {"image": image(8)},
        "mults": (1,),
        "prior_hidden": 5,
        "posterior_hidden": 9,
    },
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_danijars_code_writes_is_what_is_read(name, tmp_path):
    case = {"depth": 4, "decoder_blocks": 4, "vision": "conv"} | SHAPES[name]
    model = tiny_dreamer(**case)
    saved = importers.load(as_danijar(tmp_path / "log", model))
    jax.tree.map(np.testing.assert_array_equal, named(saved.model), named(model))
    assert dict(saved.model.observation_spaces) == dict(model.observation_spaces)
    assert dict(saved.model.action_spaces) == dict(model.action_spaces)
    assert saved.manifest["training"] == {"steps": 7, "seed": 3, "preset": None}
    channels = [saved.model.config.depth * mult for mult in saved.model.config.mults]
    assert channels == [model.config.depth * mult for mult in model.config.mults]


def test_an_imported_agent_is_the_same_agent(tmp_path):
    saved = importers.load(golden_case("r2dreamer-a-nodecoder"))
    importers.write(saved, tmp_path / "ours")
    again = checkpoint.load(tmp_path / "ours")
    jax.tree.map(np.testing.assert_array_equal, named(again.model), named(saved.model))
    assert again.model.config == saved.model.config
    for key in ("source", "conventions", "cannot", "environment"):
        assert again.manifest[key] == saved.manifest[key]


def test_a_module_that_only_the_agents_files_name_is_not_imported():
    environment = {"id": "evil:Env-v0", "size": 8, "repeat": 1}
    one = checkpoint.Saved(tiny_dreamer(), {"name": "theirs", "environment": environment})
    with pytest.raises(ValueError, match="`environment=evil:Env-v0`"):
        environment_of(one)
    assert environment_of(one, "CartPole-v1")["id"] == "CartPole-v1"
    environment |= {"id": "CartPole-v1", "wrappers": ["evil:Class"]}
    with pytest.raises(ValueError, match="`wrappers=evil:Class`"):
        environment_of(one, "CartPole-v1")
    mine = {"wrappers": ["mine:Class"]}
    assert environment_of(one, None, mine)["wrappers"] == ["mine:Class"]


def test_an_importer_from_outside_is_opened_like_any_other(tmp_path):
    def read_it(found: Found, *, classes: int | None = None) -> Foreign:
        own = as_danijar(tmp_path / "inner", tiny_dreamer(**SMALL))
        inner = read(importers.find(own))
        return dataclasses.replace(inner, steps=found.content["theirs"])

    def mine(title: str = "a project of mine") -> importers.Importer:
        return importers.Importer(
            title=title,
            places=files("mine.pkl"),
            recognises=lambda content: "theirs" in inside(content),
            read=read_it,
        )

    thinkslow.register("importer", "mine", mine)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "mine.pkl").write_bytes(pickle.dumps({"theirs": 12}))
    saved = importers.open_agent(tmp_path / "log")
    assert saved.manifest["source"]["project"] == "a project of mine"
    assert saved.manifest["training"]["steps"] == 12
    with pytest.raises(ValueError, match="not by a project of mine"):
        importers.find(tmp_path / "inner", format="mine")
    with pytest.raises(ValueError, match="'sheeprl' is taken"):
        thinkslow.register("importer", "sheeprl", mine)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"agent": {"agent/enc/conv0/kernel": 1}}, "between April and July 2024"),
        ({"params": {"dyn/dyncore/kernel": 1}}, "between April and July 2024"),
        ({"weights": 1}, "no agent of a known project"),
        ([], "no agent of a known project"),
        ({"agent": 3}, "no agent of a known project"),
        ({"params": {}}, "does not hold a whole agent"),
        ({"params": 5}, "no agent of a known project"),
        ({"agent": {"params": {"enc/cnn0/kernel": 1}}}, "does not hold a whole agent"),
    ],
)
def test_what_is_no_agent_that_is_known_says_so(content, said, tmp_path):
    (tmp_path / "checkpoint.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=said) as caught:
        importers.load(tmp_path, classes=4)
    assert "\n" not in str(caught.value)


def test_an_option_that_changes_what_weights_mean_is_refused(tmp_path):
    log = as_danijar(
        tmp_path / "log",
        tiny_dreamer(**SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4),
    )
    options = yaml.safe_load((log / "config.yaml").read_text())
    options["agent"]["enc"] = {"simple": {"strided": True}}
    (log / "config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(store.Damaged, match=r"`agent\.enc\.simple\.strided` .* must be False"):
        importers.load(log)
    (log / "config.yaml").write_text("!!python/object/apply:os.system [touch tricked]")
    with pytest.raises(store.Damaged, match="is not YAML"):
        importers.load(log)
    (log / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="`classes=N`"):
        importers.load(log)


# --- broken files --------------------------------------------------------------------------------


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def environments(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def play(*arguments: Any, out: Path) -> dict[str, Any]:
    """What `evaluate` wrote."""
    given = ["evaluate", *map(str, arguments), "--episodes", "2", "--batch", "2", "--json"]
    assert main([*given, "--out", str(out)]) == 0
    return json.loads((out / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("environments")
def test_an_agent_of_another_project_plays_arms_of_every_kind(tmp_path, capsys):
    """Refined, gated, with more of the past, a control; each arm alone is tried elsewhere."""
    arms = ("none", "evidence-in-doubt", "control-particles-16")
    summary = play(
        golden_case("danijar_main-a"),
        "--env",
        "tiny_envs:tiny/Foreign-v0",
        "--arms",
        ",".join(arms),
        out=tmp_path,
    )
    assert [arm["arm"] for arm in summary["arms"]] == [*arms]
    assert all(np.isfinite(arm["score"]["mean"]) for arm in summary["arms"])
    assert all(arm["belief_kl"] > 0 for arm in summary["arms"] if arm["thinking"]["steps"])
    err = capsys.readouterr().err
    assert "danijar/dreamerv3 since December 2024, 4,567 steps" in err
    assert "sees image 64x64x3; does action one of 17" in err


@pytest.mark.slow
def test_an_agent_of_another_project_plays_crafter_where_it_is_installed(tmp_path, monkeypatch):
    pytest.importorskip("crafter")
    examples = Path(__file__).parents[1] / "examples"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(examples), *sys.path]))
    monkeypatch.syspath_prepend(str(examples))
    summary = play(
        golden_case("danijar_main-a"),
        "--env",
        "crafter_env:thinkslow-example/Crafter-v0",
        "--arms",
        "none,control-soft",
        out=tmp_path,
    )
    assert all(arm["length"]["mean"] > 1 for arm in summary["arms"])
    assert all(np.isfinite(arm["psnr"]["mean"]) for arm in summary["arms"])


@pytest.mark.slow
@pytest.mark.usefixtures("environments")
@pytest.mark.parametrize(
    ("name", "arms"),
    [("r2dreamer-b", "none,control-soft"), ("dreamerv3_v150-b", "none,evidence")],
)
def test_vectors_and_continuous_actions_are_played(name, arms, tmp_path, capsys):
    summary = play(
        golden_case(name),
        "--env",
        "tiny_envs:tiny/ForeignVectors-v0",
        "--arms",
        arms,
        out=tmp_path,
    )
    assert summary["agents"][0]["action"] == ("mode" if name == "r2dreamer-b" else "sample")
    assert [arm["psnr"] is not None for arm in summary["arms"]] == [True, True]
    assert ("takes the mode of its policy" in capsys.readouterr().err) == (name == "r2dreamer-b")


@pytest.mark.slow
@pytest.mark.usefixtures("environments")
def test_an_agent_without_a_decoder_plays_the_arms_that_it_can(tmp_path, capsys):
    folder = golden_case("r2dreamer-a-nodecoder")
    environment = ("--env", "tiny_envs:tiny/Foreign-v0", "--action", "sample")
    summary = play(folder, *environment, out=tmp_path)
    assert [arm["arm"] for arm in summary["arms"]] == [
        "none",
        "control-mode",
        "control-soft",
        "entropy-3",
    ]
    assert all(arm["psnr"] is None for arm in summary["arms"])
    assert summary["agents"][0]["action"] == "sample"
    assert "it has no decoder" in capsys.readouterr().err
    assert main(["evaluate", str(folder), *environment, "--arms", "evidence"]) == 2
    told = capsys.readouterr().err
    assert "it has no decoder" in told
    assert "--arms" in told


@pytest.mark.parametrize(
    "name", ["danijar_main-b", slow("r2dreamer-a-nodecoder"), slow("sheeprl-a")]
)
def test_inspect_tells_what_was_found(name, capsys):
    assert main(["inspect", str(golden_case(name)), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["source"]["file"].startswith(str(golden_case(name)))
    assert facts["parameters"]["total"] > 10_000
    assert ("decode" in facts["cannot"]) == ("nodecoder" in name)


def test_every_command_that_opens_a_pickle_says_that_it_has_no_checksum(tmp_path, capsys):
    """`study` opened it without a word."""
    log, ours = as_danijar(tmp_path / "log", tiny_dreamer(**SMALL)), str(tmp_path / "ours")
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'format = 1\nname = "p"\nquestion = "Does it?"\nepisodes = 4\nblock = 2\n'
        'arms = ["sig-3"]\n[settings.there]\nenv = "CartPole-v1"\n'
    )
    study = ["study", str(plan), "--dry-run", "--json", "--out", str(tmp_path / "out"), "--agents"]
    for given, says in ((str(log), True), (ours, False)):
        text = plan.read_text().partition("[agents]")[0]
        plan.write_text(f'{text}[agents]\na = "{given}"\n')
        for command in (["inspect", given], [*study, f"a={given}"]):
            assert main(command) == 0
            assert (capsys.readouterr().err.count("has no checksum") == 1) == says
        if says:
            assert main(["import", given, ours]) == 0
            assert "has no checksum" in capsys.readouterr().err


def test_an_archive_has_checksums_and_is_not_said_to_have_none(capsys):
    assert main(["inspect", str(golden_case("r2dreamer-a"))]) == 0
    assert "no checksum" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x\n", "it has an alias"),
        ("a: &x {k: 1}\nb: {<<: {j: 1}}\n", "it merges mappings"),
        ("a: !!python/name:os.system\n", "it has a tag"),
        ("a: !!int '3'\n", "it has a tag"),
        ("a: 1\nb: 2\na: 3\n", "it gives 'a' twice"),
        ("a: 1\n---\nb: 2\n", "it has more than one document"),
        ("? [1]\n: 2\n", "a list or a mapping for a name"),
        ("a: " + 40 * "[" + 40 * "]" + "\n", "it is nested deeper"),
    ],
)
def test_yaml_that_is_more_than_options_is_refused_by_what_it_is(tmp_path, text, said):
    """Skipped aliases left another configuration, which no test missed."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(store.Damaged, match=said):
        read_options(path)


def test_import_writes_what_every_command_reads(tmp_path, capsys):
    log = as_danijar(
        tmp_path / "log",
        tiny_dreamer(**SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4),
    )
    assert main(["import", str(log), str(tmp_path / "ours")]) == 0
    assert main(["inspect", str(tmp_path / "ours"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["source"]["format"] == "dreamerv3"
    assert main(["import", str(log), str(tmp_path / "ours")]) == 0  # the same once more
    other = as_danijar(tmp_path / "other", tiny_dreamer(**SMALL))
    assert main(["import", str(other), str(tmp_path / "ours")]) == 1
    assert "holds another agent" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "ours"), str(tmp_path / "again")]) == 2
    assert "already an agent" in capsys.readouterr().err
    assert main(["import", str(log), str(tmp_path / "x"), "--format", "r2dreamer"]) == 1
    assert "not by NM512/r2dreamer" in capsys.readouterr().err


def test_an_environment_that_is_not_stored_is_asked_for_with_suggestions(tmp_path, capsys):
    log = as_danijar(
        tmp_path / "log",
        tiny_dreamer(**SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4),
    )
    assert main(["evaluate", str(log)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "its task was gym_cartpole. Pass --env, perhaps one of CartPole-v" in line


def test_weights_that_are_not_finite_are_said_on_the_command_line(tmp_path, capsys):
    model = tiny_dreamer(
        **SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4
    )
    bad = np.asarray(named(model)["dyn/obs0/bias"]).copy()
    bad[0] = np.nan
    log = as_danijar(tmp_path / "log", model, **{"dyn/obs0/bias": bad})
    assert main(["inspect", str(log)]) == 1
    assert "1 of 16 values of dyn/obs0/bias are non-finite" in capsys.readouterr().err
    assert main(["inspect", str(log), "--allow-nonfinite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nonfinite"] == {"dyn/obs0/bias": 1}
