"""One episode to watch: arms on the same frames, gates, pictures that fit, files that are whole."""

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import slow, tiny_dreamer
from odd_episodes import id_of
from odd_players import Guesser, SideBySide
from PIL import Image

import thinkslow
from thinkslow.agent.agent import Agent
from thinkslow.agent.gates import Surprise
from thinkslow.agent.thinking import Thinking
from thinkslow.cli import main
from thinkslow.cli import watch as command
from thinkslow.evaluation import calibrate
from thinkslow.evaluation.metrics import AHEAD
from thinkslow.evaluation.play import play
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.shadow import Recorder, decoded
from thinkslow.evaluation.video import suffix
from thinkslow.evaluation.watching import block as blocks
from thinkslow.evaluation.watching import episode as episodes
from thinkslow.evaluation.watching import pictures, session
from thinkslow.evaluation.watching.page import page
from thinkslow.objectives import Entropy, Evidence
from thinkslow.readouts import Soft
from thinkslow.spaces import Space

SEED, LENGTHS = 3, {"id": id_of("Lengths"), "size": 16}
LONGEST = next(n for n in range(50) if episode_seed(SEED, n) % 3 == 2)
"""An episode of 23 decisions."""
EVIDENCE = Thinking({Evidence(): 1.0}, steps=2, latent=Soft(), record=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Environments without processes of their own."""
    monkeypatch.setattr(session, "VectorEnv", SideBySide)
    monkeypatch.setattr(calibrate, "VectorEnv", SideBySide)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent(tiny_dreamer())


@pytest.fixture(scope="module")
def watched(agent, tmp_path_factory) -> tuple[session.Watched, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("watched") / "out"
    arms = {"evidence": EVIDENCE, "control-lag": Thinking(lag=2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "VectorEnv", SideBySide)
        found = thinkslow.watch(agent, LENGTHS, folder, arms=arms, seed=SEED, episode=LONGEST)
    return found, data_of(found.player)


def data_of(player: Path) -> dict[str, Any]:
    """The JSON block of a page, as docs/watch.md says to read it."""
    text = player.read_text()
    return json.loads(
        re.findall(r'<script type="application/json" id="episode">(.*?)</script>', text, re.DOTALL)[
            0
        ]
    )


def picture(address: str) -> np.ndarray:
    """An inlined picture."""
    import io

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def arm_of(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(arm for arm in data["arms"] if arm["name"] == name)


@pytest.mark.slow
def test_it_is_the_episode_that_an_evaluation_plays(agent, watched):
    seeds = [episode_seed(SEED, LONGEST)]
    with SideBySide(LENGTHS["id"], 1, size=16) as envs:
        (played,) = play(agent, envs, seeds, SEED)
    assert (watched[0].length, watched[0].score) == (played.length, played.score)
    assert (watched[0].ended, watched[1]["decisions"]) == ("over", 23)


@pytest.mark.parametrize("arm", ["none", slow("evidence"), "control-lag"])
def test_arms_are_shown_as_on_the_frames_of_an_evaluation(agent, watched, arm):
    """An independent path to the same pictures: moments that `evaluate` records."""
    arms = {"none": Thinking(), "evidence": EVIDENCE, "control-lag": Thinking(lag=2)}
    own = episode_seed(SEED, LONGEST)
    recorder = Recorder(agent, 1, ["image"], before=2)
    with SideBySide(LENGTHS["id"], 1, size=16) as envs:
        play(agent, envs, [own], SEED, watchers=[recorder])
    moments = recorder.moments()
    found = decoded(
        agent.thinking(arms[arm]), moments, ["image"], count=1, seed=SEED, environment_seed=own
    )
    assert found is not None
    shown = arm_of(watched[1], arm)
    for row, moment in enumerate(moments):
        for place in range(1 + len(AHEAD)):
            drawn = shown["imagined"]["image"][moment.step]
            address = drawn[place - 1] if place else shown["decoded"]["image"][moment.step]
            image = found.imagined["image"][row, place - 1] if place else found.now["image"][row]
            expected = (np.clip(image, 0, 1) * 255).round()
            np.testing.assert_allclose(picture(address), expected, atol=1.01)


def test_every_list_has_an_entry_for_each_decision_and_frame(watched):
    data = watched[1]
    count = data["decisions"]
    assert len(data["came"]["image"]) == len(data["current"]) == count + 1
    assert len(data["reward"]) == len(data["score"]) == count
    for arm in data["arms"]:
        for name in ("thinks", "moved", "surprise", "entropy_before", "entropy_after", "value"):
            assert len(arm[name]) == count, name
        for each in (
            arm["action"]["action"],
            arm["policy"]["action"],
            arm["decoded"]["image"],
            arm["imagined"]["image"],
            arm["error"]["image"],
        ):
            assert len(each) == count
    evidence, none = arm_of(data, "evidence"), arm_of(data, "none")
    assert all(len(one["loss"]) == 3 for one in evidence["objective"])
    assert all(one["loss"][2] < one["loss"][0] for one in evidence["objective"])
    assert none["objective"] is None
    assert not any(none["moved"])
    # The policy before thinking is that of the agent which does not think.
    before = [pair[0] for pair in evidence["policy"]["action"]]
    np.testing.assert_allclose(before, [pair[1] for pair in none["policy"]["action"]], atol=1e-4)
    np.testing.assert_allclose(np.sum(before, -1), 1, atol=1e-4)


def test_frames_that_have_not_come_are_compared_with_nothing(watched):
    error = arm_of(watched[1], "none")["error"]["image"]
    assert all(one is not None for one in error[0])
    assert error[-1][0] is not None  # the present
    assert error[-1][1] is not None  # what the last action led to
    assert error[-1][2:] == [None, None]


def test_records_of_the_decisions_are_flat_lines(watched):
    rows = [json.loads(line) for line in watched[0].decisions.read_text().splitlines()]
    assert len(rows) == 23 * 3
    assert not any(isinstance(value, list | dict) for row in rows for value in row.values())
    thinking = [row for row in rows if row["arm"] == "evidence"]
    assert all(row["objective_after"] < row["objective_before"] for row in thinking)
    assert sum(row["reward"] for row in thinking) == watched[0].score


def test_the_video_shows_what_came_and_every_arm(watched):
    video = watched[0].video
    assert video is not None
    if video.suffix == ".gif":
        with Image.open(video) as film:
            assert getattr(film, "n_frames", 1) == 23
            assert film.size[0] > 4 * film.size[1] * 0.7
    assert sorted(one.name for one in video.parent.iterdir()) == [
        "decisions.jsonl",
        video.name,
        "player.html",
    ]


def test_the_page_runs_its_own_script_and_nothing_else(watched):
    text = watched[0].player.read_text()
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)


def test_no_name_can_end_the_data_of_the_page(watched):
    data = {**watched[1], "command": "</script><script>alert(1)</script>"}
    assert "<script>alert" not in page(data)
    assert page(data).count("</script>") == 2


def test_a_gate_that_is_always_open_can_be_written(watched):
    """A share of 1 has the threshold -inf, which ended the command after it had played."""
    settings = [{**one, "threshold": -np.inf} for one in watched[1]["settings"]]
    assert '"threshold": -1e999' in page({**watched[1], "settings": settings})


@pytest.mark.slow
def test_a_gate_is_shown_open_where_its_arm_thought(agent, tmp_path):
    arm = thinkslow.Arm(EVIDENCE, gate=Surprise(), share=0.3)
    found = thinkslow.watch(
        agent, LENGTHS, tmp_path, arms={"gated": arm}, seed=SEED, episode=LONGEST, video=False
    )
    data = data_of(found.player)
    gated = arm_of(data, "gated")
    threshold = next(one["threshold"] for one in data["settings"] if one["arm"] == "gated")
    assert gated["thinks"] == [doubt > threshold for doubt in gated["doubt"]]
    assert len(set(gated["thinks"])) == 2
    np.testing.assert_allclose(gated["doubt"], arm_of(data, "none")["surprise"], rtol=1e-3)
    for thinks, objective, moved in zip(
        gated["thinks"], gated["objective"], gated["moved"], strict=True
    ):
        assert (objective is not None) == thinks == (moved > 0)


@pytest.mark.slow
def test_another_arm_can_act_and_none_thinks_beside_it(agent, tmp_path):
    arms = {"mode": "control-mode", "evidence": EVIDENCE}
    found = thinkslow.watch(
        agent, LENGTHS, tmp_path, arms=arms, acting="mode", seed=SEED, episode=LONGEST, video=False
    )
    data = data_of(found.player)
    assert data["acting"] == "mode"
    mine = agent.thinking("control-mode")
    with SideBySide(LENGTHS["id"], 1, size=16) as envs:
        (played,) = play(mine, envs, [episode_seed(SEED, LONGEST)], SEED)
    assert (found.length, found.score) == (played.length, played.score)


@pytest.mark.slow
def test_all_kinds_of_parts_and_actions_are_shown(tmp_path):
    seen = {
        "front": Space((16, 16, 1), "uint8"),
        "map": Space((16, 16, 3), "uint8"),
        "speed": Space((30,), "float32"),
        "lamp": Space((), "int32", 3),
    }
    acts = {"gear": Space((), "int32", 4), "steer": Space((2,), "float32")}
    agent = Agent(tiny_dreamer(observations=seen, actions=acts))
    found = thinkslow.watch(
        agent, {"id": "odd_episodes:Everything", "size": 16}, tmp_path, arms={"evidence": EVIDENCE}
    )
    data = data_of(found.player)
    kinds = {part["name"]: (part["kind"], part["decoded"]) for part in data["parts"]}
    assert kinds == {
        "front": ("image", True),
        "map": ("image", True),
        "speed": ("numbers", True),
        "lamp": ("numbers", True),
    }
    first = data["arms"][0]
    assert picture(first["decoded"]["front"][0]).shape[:2] == (16, 16)
    assert len(first["decoded"]["speed"][0]) == blocks.NUMBERS
    assert first["decoded"]["lamp"][0] in range(3)
    assert np.shape(first["policy"]["gear"]) == (7, 2, 4)
    assert np.shape(first["policy"]["steer"]) == (7, 2, 2, 2)
    assert found.video is not None


@pytest.mark.slow
def test_an_agent_without_decoder_or_images_has_a_player(tmp_path):
    agent = Agent(tiny_dreamer(observations={"vector": Space((2,), "float32")}))
    blind = Agent(Undecoded(agent.model))
    found = thinkslow.watch(
        blind, id_of("Vector"), tmp_path, arms={"sure": Thinking({Entropy(): 1.0}, steps=1)}
    )
    data = data_of(found.player)
    assert found.video is None
    assert [part["decoded"] for part in data["parts"]] == [False]
    assert np.shape(data["came"]["vector"]) == (10, 2)
    assert max(arm_of(data, "sure")["moved"]) > 0
    assert "no decoder" in found.player.read_text()


class Undecoded(thinkslow.WorldModel):
    """A model, but for its decoder."""

    whole: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def initial(self):
        return self.whole.initial()

    def predict(self, state, action, is_first):
        return self.whole.predict(state, action, is_first)

    def infer(self, memory, observation):
        return self.whole.infer(memory, observation)

    def decode(self, state):
        return {}

    def policy(self, state, key):
        return self.whole.policy(state, key)

    def actor(self, state):
        return self.whole.actor(state)

    @property
    def observation_spaces(self):
        return self.whole.observation_spaces

    @property
    def action_spaces(self):
        return self.whole.action_spaces


def test_an_agent_of_another_kind_is_shown_by_what_it_did(tmp_path):
    found = thinkslow.watch(Guesser(), LENGTHS, tmp_path, seed=SEED, episode=LONGEST)
    data = data_of(found.player)
    assert (data["decisions"], len(data["came"]["image"])) == (23, 24)
    assert data["arms"][0]["policy"] == {}
    with pytest.raises(ValueError, match=r"`arms` must be empty.*evidence"):
        thinkslow.watch(Guesser(), LENGTHS, tmp_path / "other", arms=["evidence"])


class Interrupted(SideBySide):
    """Ctrl-C in the middle of its sixth step."""

    def step(self, actions: Any, *, playing: Any = None) -> Any:
        if self._time == 5:
            raise KeyboardInterrupt
        return super().step(actions, playing=playing)


def test_what_was_played_before_ctrl_c_is_whole(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "VectorEnv", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        thinkslow.watch(agent, LENGTHS, tmp_path, arms=[], seed=SEED, episode=LONGEST)
    data = data_of(tmp_path / "player.html")
    assert (data["decisions"], data["ended"], len(data["came"]["image"])) == (5, "stopped", 6)
    assert len((tmp_path / "decisions.jsonl").read_text().splitlines()) == 5
    assert (tmp_path / f"episode{suffix()}").exists()


def test_a_long_episode_is_cut_and_says_so(agent, tmp_path):
    found = thinkslow.watch(
        agent, LENGTHS, tmp_path, arms=[], seed=SEED, episode=LONGEST, max_decisions=4, video=False
    )
    assert (found.length, found.ended) == (4, "cut")
    assert "cut after 4 decisions" in found.player.read_text()


@pytest.mark.parametrize(
    ("name", "episode", "ended", "said"),
    [
        ("Fails", 0, "crashed", "the door is gone"),
        (
            "NanReward",
            next(n for n in range(50) if episode_seed(0, n) % 3 == 0),
            "over",
            "score not finite",
        ),
    ],
)
def test_an_episode_that_fails_or_is_not_finite_is_shown_so(name, episode, ended, said, tmp_path):
    agent = Agent(tiny_dreamer(observations={"vector": Space((2,), "float32")}))
    found = thinkslow.watch(agent, id_of(name), tmp_path, arms=[], episode=episode)
    data = data_of(found.player)
    assert (found.ended, data["ended"]) == (ended, ended)
    assert said in found.player.read_text()
    assert all(math.isfinite(value) for value in data["reward"] if value is not None)


@pytest.mark.parametrize(
    ("fixed", "each", "budget", "every"),
    [(0, [5] * 8, 40, 1), (0, [5] * 8, 39, 2), (30, [5] * 8, 40, 4), (41, [5] * 8, 40, None)],
)
def test_imagined_pictures_are_thinned_until_the_page_is_small(fixed, each, budget, every):
    assert pictures.stride(fixed, each, budget) == every


def test_a_page_over_its_budget_keeps_some_imagined_frames_and_says_so(
    agent, tmp_path, monkeypatch
):
    monkeypatch.setattr(pictures, "BUDGET", 100)
    monkeypatch.setattr(blocks, "stride", lambda fixed, each: 4)
    found = thinkslow.watch(
        agent, LENGTHS, tmp_path, arms=[], seed=SEED, episode=LONGEST, video=False
    )
    kept = [one is not None for one in data_of(found.player)["arms"][0]["imagined"]["image"]]
    assert kept == [at % 4 == 0 for at in range(23)]
    assert "one in 4 decisions" in found.player.read_text()


def test_large_pictures_are_reduced_and_others_kept_in_shape():
    wide = np.random.default_rng(0).integers(0, 256, (100, 400, 9)).astype(np.uint8)
    assert picture(pictures.inlined(wide)).shape == (48, pictures.LARGEST, 3)
    small = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(picture(pictures.inlined(small)), small)


def test_a_folder_that_holds_an_episode_is_refused(agent, watched):
    with pytest.raises(FileExistsError, match="Give another folder"):
        thinkslow.watch(agent, LENGTHS, watched[0].player.parent)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"acting": "evidense", "arms": []}, r"`acting`.*evidense"),
        ({"max_decisions": 0}, r"`max_decisions`.*0"),
        ({"seed": -1}, r"`seed`.*-1"),
        ({"arms": ["evidnce"]}, "evidence"),
    ],
)
def test_an_impossible_setting_is_told_before_anything_is_played(agent, tmp_path, more, said):
    with pytest.raises(ValueError, match=said):
        thinkslow.watch(agent, LENGTHS, tmp_path, **more)


def test_arms_that_cannot_follow_are_refused(agent):
    other = Agent(tiny_dreamer(deter=16))
    with SideBySide(LENGTHS["id"], 1, size=16) as envs, pytest.raises(ValueError, match="other"):
        episodes.play(
            {"none": agent, "other": other},
            "none",
            envs,
            seed=0,
            environment_seed=0,
            max_decisions=2,
        )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--max-decisions", "0"], "--max-decisions"),
        (["--seed", "-3"], "--seed"),
        (["--arm", "evidnce"], "evidence"),
        (["--acting", "control-mod"], "control-mode"),
        (["--episode", "-1"], "--episode"),
    ],
)
def test_a_wrong_value_is_answered_with_flag_and_remedy(given, said, capsys):
    assert main(["watch", "collect-good", *given]) == 2
    assert said in capsys.readouterr().err


def test_arms_may_be_repeated_or_joined():
    options = command.parse(["x", "--arm", "evidence,none", "--arm", "sig-3", "--acting", "pig-1"])
    assert options.arm_names == ["evidence", "none", "sig-3", "pig-1"]
    typed = command.command(command.parse(["x", "--arm", "sig-3", "--seed", "2", "--steps", "4"]))
    assert typed == "thinkslow watch x --arm sig-3 --seed 2 --steps 4"


def test_a_second_run_writes_beside_the_first(tmp_path):
    first = tmp_path / "good-0"
    assert command.free(first) == first
    first.mkdir()
    assert command.free(first) == tmp_path / "good-0.2"
