"""Episodes as video: every decision a frame, what came beside what the model decodes."""

import importlib.util
import os

import numpy as np
import pytest
from counting import LENGTH
from helpers import tiny_dreamer
from odd_players import SideBySide
from PIL import Image

import thinkslow
from thinkslow import envs
from thinkslow.agent.agent import Agent
from thinkslow.evaluation import evaluate, protocol, video
from thinkslow.evaluation.report.page import build
from thinkslow.spaces import Space
from thinkslow.storage.lock import Locked

COUNTING = {"id": "counting:thinkslow-test/Counting-v0", "size": 16}


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent(tiny_dreamer())


@pytest.mark.parametrize("kind", [".gif", ".png"])
def test_every_decision_is_a_frame_of_two_pictures(agent, tmp_path, kind):
    path = thinkslow.record(agent, COUNTING, tmp_path / f"episode{kind}", seed=3)
    with Image.open(path) as film:
        assert getattr(film, "n_frames", 1) == LENGTH
        assert film.size == (2 * video.SIDE + 4, video.SIDE + video.LINE)
        shown = np.asarray(film.convert("RGB"))
    env = envs.make(**COUNTING)
    came = env.reset(seed=3)[0]["image"]
    left = shown[8 : video.SIDE : 16, 8 : video.SIDE : 16].astype(int)
    assert np.abs(left - came).mean() < 12  # in 128 colours
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_an_environment_without_images_is_rendered(tmp_path):
    agent = Agent(tiny_dreamer(observations={"vector": Space((2,), "float32")}))
    path = thinkslow.record(agent, "odd_episodes:Drawn", tmp_path / "drawn.gif")
    with Image.open(path) as film:
        assert getattr(film, "n_frames", 1) == 9
        assert film.size == (240, 120 + video.LINE)


@pytest.mark.parametrize("rendered", [np.full((4, 4, 3), 0.5), np.zeros((2, 4, 4, 3), np.uint8)])
def test_what_is_rendered_must_be_a_picture(monkeypatch, rendered, tmp_path):
    """Floats were refused by Pillow, as a type <f8 that it cannot handle."""
    agent = Agent(tiny_dreamer(observations={"vector": Space((2,), "float32")}))
    env = envs.make("odd_episodes:Drawn", options={"render_mode": "rgb_array"})
    monkeypatch.setattr(env.env.unwrapped, "render", lambda: rendered)
    with pytest.raises(ValueError, match=f"renders {rendered.dtype} of .*a picture is uint8"):
        thinkslow.record(agent, env, tmp_path / "drawn.gif")
    assert not list(tmp_path.iterdir())


def test_an_environment_with_nothing_to_show_says_so(tmp_path):
    agent = Agent(tiny_dreamer(observations={"vector": Space((2,), "float32")}))
    env = envs.make("odd_episodes:Drawn")
    with pytest.raises(ValueError, match="render_mode"):
        thinkslow.record(agent, env, tmp_path / "nothing.gif")
    assert not list(tmp_path.iterdir())


def test_of_two_recordings_of_one_file_the_second_is_refused(tmp_path):
    path = tmp_path / "film.gif"
    first = video.Video(path)
    first.add(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(Locked, match="another recording"):
        video.Video(path)
    assert first.close() == path
    first.drop()
    video.Video(path).drop()
    assert os.listdir(tmp_path) == ["film.gif"]


@pytest.mark.parametrize("name", ["film.avi", "film"])
def test_another_suffix_is_refused_with_those_that_there_are(agent, tmp_path, name):
    with pytest.raises(ValueError, match=r"\.mp4, \.gif"):
        thinkslow.record(agent, COUNTING, tmp_path / name)


def test_mp4_without_its_library_says_what_to_install(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert video.suffix() == ".gif"
    with pytest.raises(ModuleNotFoundError, match=r"thinkslow\[video\].*\.gif"):
        thinkslow.record(agent, COUNTING, tmp_path / "film.mp4")


def test_an_mp4_holds_every_decision(agent, tmp_path):
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    path = thinkslow.record(agent, COUNTING, tmp_path / "film.mp4")
    with av.open(str(path)) as film:
        assert sum(1 for _ in film.decode(video=0)) == LENGTH


@pytest.mark.slow
def test_an_evaluation_films_the_first_episode_of_every_arm(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "VectorEnv", SideBySide)
    arms = {"none": agent, "control-mode": agent.thinking("control-mode")}
    result = evaluate(arms, COUNTING, episodes=4, seed=0, batch=2, out=tmp_path / "out", video=True)
    films = sorted((result.folder / "video").iterdir())
    assert [film.name for film in films] == [
        f"agent-{arm}{video.suffix()}" for arm in ("control-mode", "none")
    ]
    assert f'href="video/{films[0].name}"' in build(result.folder).read_text()
