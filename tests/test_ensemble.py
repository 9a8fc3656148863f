"""Ensembles: each member fits its own resample, and what is stored is what is loaded."""

import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import golden_case, slow, tiny_dreamer, tiny_v1

from thinkslow import zoo
from thinkslow.agent.agent import Agent
from thinkslow.agent.arms.arm import Arm, arm
from thinkslow.agent.gates import Disagreement
from thinkslow.cli import main
from thinkslow.distributions import Categorical, Gaussian
from thinkslow.dreamer.ensemble import (
    Experience,
    collect,
    fit,
    judged,
    make,
    resample_counts,
    split,
)
from thinkslow.envs import VectorEnv
from thinkslow.loading import load
from thinkslow.objectives import parameter_information_gain
from thinkslow.saved import folder as checkpoint
from thinkslow.storage import store
from thinkslow.weights import named

ENVIRONMENT = {"id": "counting:thinkslow-test/Counting-v0", "size": 16, "repeat": 1}
CONTEXTS, CLASSES, EPISODES = 2, 4, 6


class Rows(eqx.Module):
    """A head on one-hot features: a row of logits for each context."""

    table: jax.Array
    other: jax.Array


def table(model: Any) -> Any:
    return model.table


def by_row(model: Rows, memory: Any) -> Categorical:
    return Categorical((memory @ model.table)[None])


def seen(counts: np.ndarray, contexts: np.ndarray, episodes: np.ndarray) -> Experience:
    """Sure posteriors of the given classes."""
    logits = 40 * jax.nn.one_hot(counts, CLASSES)[:, None]
    memories = np.eye(CONTEXTS, dtype=np.float32)[contexts]
    return Experience(memories, Categorical(logits), episodes)


@pytest.fixture(scope="module")
def draws() -> tuple[Experience, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    classes, contexts = rng.integers(0, CLASSES, 240), rng.integers(0, CONTEXTS, 240)
    return seen(classes, contexts, np.repeat(np.arange(EPISODES), 40)), classes, contexts


@pytest.fixture
def importable(monkeypatch) -> None:
    """Processes of a `VectorEnv` find the environment of these tests."""
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def folder(dreamer, tmp_path) -> Path:
    checkpoint.save(
        tmp_path / "agent",
        dreamer,
        name="agent",
        environment=ENVIRONMENT,
        training={"steps": 7, "seed": 3, "preset": "test"},
        dtype="float16",
    )
    return tmp_path / "agent"


def layers(model: Any, seed: int = 0) -> Any:
    """Three members of which nothing is right."""
    from thinkslow.objectives.members import Noise

    return Noise(0.5, count=3)(model, key=jr.key(seed))


@pytest.mark.slow
def test_each_member_is_the_frequencies_of_its_own_resample(draws):
    experience, classes, contexts = draws
    model = Rows(jnp.zeros((CONTEXTS, CLASSES)).at[0, 0].set(0.1), jnp.ones(3))
    times = resample_counts(experience.episodes, 3, seed=0)
    told = []
    members = fit(
        model,
        table,
        by_row,
        experience,
        times,
        steps=600,
        rate=0.05,
        key=jr.key(0),
        show=lambda *progress: told.append(progress),
    )
    assert members.differing.other is None
    assert told[-1] == ("fitting", 600, 600)
    expected = np.zeros((3, CONTEXTS, CLASSES))
    for member in range(3):
        np.add.at(expected[member], (contexts, classes), times[member])
    expected /= expected.sum(-1, keepdims=True)
    # Minibatches of 240 draws of 240: what the falling rate leaves of their noise.
    found = jax.nn.softmax(members.differing.table)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.abs(expected[0] - expected[1]).max() > 0.04  # the resamples do differ


def test_a_resample_holds_whole_episodes_and_as_many_as_there_are():
    episodes = np.repeat([3, 5, 9, 11], [2, 4, 1, 3])
    times = resample_counts(episodes, 50, seed=1)
    assert len({tuple(row) for row in times}) > 10
    for one in np.unique(episodes):
        part = times[:, episodes == one]
        np.testing.assert_array_equal(part, part[:, :1].repeat(part.shape[1], 1))
    firsts = np.unique(episodes, return_index=True)[1]
    np.testing.assert_array_equal(times[:, firsts].sum(1), 4)


def test_episodes_are_held_out_whole(draws):
    train, held = split(draws[0], 0.3, seed=0)
    assert len(np.unique(held.episodes)) == 2
    assert not set(train.episodes) & set(held.episodes)
    assert len(train.memories) + len(held.memories) == 240
    few = jax.tree.map(lambda x: x[:80], draws[0])
    with pytest.raises(ValueError, match=r"3 episodes or more; 80 decisions gave 2\. Play more"):
        split(few, 0.3, seed=0)


def test_fits_are_judged_by_divergences_and_gain_of_known_value():
    """One context, one class seen; members sure of it and even."""
    experience = seen(np.zeros(5, int), np.zeros(5, int), np.arange(5))
    model = Rows(jnp.zeros((CONTEXTS, CLASSES)), jnp.ones(3))
    sure = jnp.zeros((CONTEXTS, CLASSES)).at[0, 0].set(40.0)
    from thinkslow.objectives.members import replaced

    members = replaced(model, table, jnp.stack([sure, model.table]))
    found = judged(model, members, by_row, experience)
    np.testing.assert_allclose(found.trained, np.log(4), rtol=1e-5)
    np.testing.assert_allclose(found.members, [0, np.log(4)], atol=1e-5)
    mixture = np.array([5 / 8, 1 / 8, 1 / 8, 1 / 8])
    gain = -np.sum(mixture * np.log(mixture)) - np.log(4) / 2
    np.testing.assert_allclose(found.disagreement, gain, rtol=1e-5)


@pytest.mark.parametrize("kind", ["categorical", slow("gaussian"), slow("v1")])
def test_every_agent_says_which_layer_its_prior_ends_in(kind):
    model = {
        "categorical": tiny_dreamer,
        "gaussian": lambda: tiny_dreamer(classes=None),
        "v1": tiny_v1,
    }[kind]()
    image = {"image": np.zeros((16, 16, 3), np.uint8)}

    @jax.jit
    def look(model: Any, members: Any) -> Any:
        memory, prior = model.predict(model.initial(), jnp.zeros(3), jnp.ones((), bool))
        posterior = model.infer(memory, image)
        return (
            (prior, model.prior(memory)),
            parameter_information_gain(members.each(model, lambda m: m.prior(memory))),
            (members.each(model, lambda m: m.infer(memory, image)), posterior),
        )

    (prior, again), gain, (each, posterior) = look(model, layers(model))
    assert isinstance(again, Gaussian if kind == "gaussian" else Categorical)
    np.testing.assert_array_equal(*(jax.tree.leaves(x)[0] for x in (prior, again)))
    assert gain > 0.01
    found, expected = (jax.tree.leaves(x)[0] for x in (each, posterior))
    np.testing.assert_allclose(found, np.tile(expected, (3, 1, 1)).reshape(found.shape), atol=1e-6)


@pytest.fixture(scope="module")
def played(dreamer) -> Experience:
    patch = pytest.MonkeyPatch()
    here = str(Path(__file__).parent)
    patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    with VectorEnv(ENVIRONMENT["id"], 2, size=16) as envs:
        out = collect(Agent(dreamer), envs, 60, key=jr.key(0))
    patch.undo()
    return out


@pytest.mark.slow
def test_an_agent_plays_on_through_episodes(dreamer, played):
    """Nine steps and a first observation make ten decisions."""
    assert np.bincount(played.episodes).tolist() == [10] * 6
    assert played.memories.shape == (60, dreamer.config.deter)
    first = np.asarray(dreamer.predict(dreamer.initial(), jnp.zeros(3), jnp.ones((), bool))[0])
    begun = [np.flatnonzero(played.episodes == one)[0] for one in range(6)]
    np.testing.assert_allclose(played.memories[begun], np.tile(first, (6, 1)), atol=1e-5)


@pytest.mark.slow
def test_members_predict_held_out_episodes_better_than_an_untrained_layer(dreamer, importable):
    """The layer is random: whatever is learnt of other episodes helps by nats."""
    with VectorEnv(ENVIRONMENT["id"], 2, size=16) as envs:
        members, facts = make(dreamer, envs, decisions=120, members=3, steps=200, seed=0)
    assert members.count == 3
    assert facts["episodes"] == {"training": 10, "held_out": 2}
    for part in ("training", "held_out"):
        assert max(facts[part]["members"]) < 0.9 * facts[part]["trained"]
        assert facts[part]["disagreement"] > 0
    assert json.loads(json.dumps(facts)) == facts | {
        part: facts[part] | {"members": list(facts[part]["members"])}
        for part in ("training", "held_out")
    }


@pytest.mark.slow
def test_an_ensemble_comes_back_with_its_agent_and_replaces_the_old(folder, dreamer):
    weights = (folder / store.WEIGHTS).read_bytes()
    for seed in (0, 1):
        checkpoint.save_members(folder, layers(dreamer, seed), {"members": 3, "seed": seed})
    saved = checkpoint.load(folder)
    assert (folder / store.WEIGHTS).read_bytes() == weights
    entry = saved.manifest["ensemble"]
    assert (entry["seed"], entry["members"]) == (1, 3)
    assert entry["weights"]["dyn/priorlogit/kernel"] == [[3, 16, 48], "float16"]
    assert saved.members is not None
    found, expected = named(saved.members.differing), named(layers(dreamer, 1).differing)
    assert found.keys() == expected.keys() == {"dyn/priorlogit/kernel", "dyn/priorlogit/bias"}
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=1e-6)  # float16
    memory = jnp.ones(dreamer.config.deter)
    each = saved.members.each(saved.model, lambda m: m.prior(memory))
    assert parameter_information_gain(each) > 0
    assert checkpoint.load(folder, ensemble=False).members is None


def test_an_agent_saved_over_another_does_not_keep_its_ensemble(folder, dreamer):
    checkpoint.save_members(folder, layers(dreamer), {})
    weights, manifest = store.read(folder)
    store.write(folder, weights, manifest)
    assert checkpoint.load(folder).members is None
    assert sorted(os.listdir(folder)) == [store.MANIFEST, store.WEIGHTS]


def gone(path: Path) -> None:
    path.unlink()


def short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [gone, short, changed])
def test_a_damaged_ensemble_is_refused_with_its_remedy(damage, folder, dreamer, capsys):
    checkpoint.save_members(folder, layers(dreamer), {})
    damage(folder / store.ENSEMBLE)
    with pytest.raises((store.Missing, store.Damaged), match="thinkslow ensemble") as error:
        checkpoint.load(folder)
    assert store.ENSEMBLE in str(error.value)
    assert main(["inspect", str(folder)]) == 1
    assert store.ENSEMBLE in capsys.readouterr().err
    checkpoint.save_members(folder, layers(dreamer), {})  # the remedy works
    assert checkpoint.load(folder).members is not None


def test_an_ensemble_of_another_shape_is_a_misfit(folder, dreamer):
    other = tiny_dreamer(stoch=5)
    arrays = {k: np.asarray(v) for k, v in named(layers(other).differing).items()}
    store.write_ensemble(folder, arrays, {})
    with pytest.raises(store.Misfit, match=r"is \(3, 16, 40\), expected \(3, 16, 48\)"):
        checkpoint.load(folder)
    store.write_ensemble(folder, {"dyn/none": np.zeros((3, 2))}, {})
    with pytest.raises(store.Misfit, match="1 unexpected names, first dyn/none"):
        checkpoint.load(folder)


def test_an_ensemble_needs_an_agent_and_leaves_other_files_alone(folder, tmp_path):
    with pytest.raises(store.Missing, match="does not exist"):
        store.write_ensemble(tmp_path / "none", {"a": np.zeros((2, 1))}, {})
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.txt"):
        store.write_ensemble(folder, {"a": np.zeros((2, 1))}, {})
    with pytest.raises(ValueError, match="JSON"):
        store.write_ensemble(folder, {}, {"kl": float("nan")})
    assert (folder / "notes.txt").read_text() == "mine"


def test_arms_that_compare_parameters_need_an_ensemble(folder, dreamer):
    agent = load(folder)
    gated = Arm(arm("entropy-3").thinking, gate=Disagreement(), share=0.2)
    for how in ("pig-3", gated):
        with pytest.raises(ValueError, match=r"no ensemble .* thinkslow ensemble AGENT"):
            agent.thinking(how)
    assert agent.thinking("entropy-3").inner is not None
    checkpoint.save_members(folder, layers(dreamer), {})
    agent = load(folder)
    assert agent.thinking("pig-3").inner is not None
    assert agent.thinking(gated).inner is not None


@pytest.mark.slow
def test_a_command_fits_an_ensemble_by_which_an_agent_thinks(folder, importable, tmp_path, capsys):
    pig = ["--arms", "pig-1", "--env", ENVIRONMENT["id"]]
    assert main(["evaluate", str(folder), *pig]) == 2
    assert "Fit one: thinkslow ensemble" in " ".join(capsys.readouterr().err.split())
    env = ["--env", ENVIRONMENT["id"]]  # a module: the user names it, not the agent
    few = ["--decisions", "40", "--members", "2", "--steps", "20", "--seed", "3", *env]
    assert main(["ensemble", str(folder), *few[:-2]]) == 1
    assert "--env counting:" in " ".join(capsys.readouterr().err.split())
    assert main(["ensemble", str(folder), *few, "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["members"], out["decisions"], out["seed"]) == (2, 40, 3)
    assert out["environment"] == ENVIRONMENT["id"]
    stored = store.read_manifest(folder)["ensemble"]
    assert stored["held_out"] == out["held_out"]
    assert {"sha256", "versions", "revision"} <= stored.keys()
    assert main(["inspect", str(folder)]) == 0
    assert "ensemble members" in capsys.readouterr().out
    arms = ["--arms", "pig-1", "--gate", "disagreement", "--share", "0.5", "--json"]
    records = tmp_path / "out"
    played = ["--episodes", "2", "--batch", "1", "--out", str(records), *env]
    assert main(["evaluate", str(folder), *arms, *played]) == 0
    rows = [json.loads(line) for line in (records / "episodes.jsonl").read_text().splitlines()]
    thought = [row for row in rows if row["arm"].startswith("pig-1")]
    assert any(0 < row["thought_share"] < 1 for row in thought)
    assert any(row["belief_kl"] > 0 for row in thought)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--members", "1"], "--members must be 2 or more; got 1."),
        (["--decisions", "0"], "--decisions must be 1 or more; got 0."),
        (["--steps", "0"], "--steps must be 1 or more; got 0."),
        (["--seed", "-1"], "--seed must be between 0"),
    ],
)
def test_impossible_ensembles_are_wrong_usage(arguments, said, capsys):
    assert main(["ensemble", "agent", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_agent_has_one_place_for_its_ensemble(folder, tmp_path, capsys):
    assert main(["ensemble", str(golden_case("danijar_main-a"))]) == 2
    assert "--out AGENT" in " ".join(capsys.readouterr().err.split())
    assert main(["ensemble", str(folder), "--out", str(tmp_path / "other")]) == 2
    assert "Leave out --out" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_another_projects_agent_is_kept_as_one_of_ours(importable, tmp_path):
    golden, kept = str(golden_case("danijar_main-a")), tmp_path / "kept"
    few = ["--decisions", "64", "--members", "2", "--steps", "2"]
    env = ["--env", "tiny_envs:tiny/Foreign-v0", "--out", str(kept), "--json"]
    assert main(["ensemble", golden, *few, *env]) == 0
    saved = checkpoint.load(kept)
    assert saved.members is not None
    assert saved.members.count == 2
    assert saved.manifest["source"]["format"] == "dreamerv3"


def test_a_bundled_agent_keeps_its_ensemble(capsys):
    """A trial with 50 decisions replaced the ensemble inside the installed package."""
    before = {path: path.read_bytes() for path in zoo.path("collect-half").iterdir()}
    assert main(["ensemble", "collect-half", "--decisions", "50"]) == 2
    assert "Copy" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in zoo.path("collect-half").iterdir()} == before


def test_an_ensemble_of_nothing_is_refused(tmp_path, capsys):
    (tmp_path / "logdir").mkdir()
    assert main(["ensemble", str(tmp_path / "logdir")]) == 1
    assert "holds no agent" in " ".join(capsys.readouterr().err.split())
    assert main(["ensemble", str(tmp_path / "nowhere")]) == 1
    assert "There is no file, folder or bundled agent" in capsys.readouterr().err
