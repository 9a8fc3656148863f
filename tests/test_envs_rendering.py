"""How to draw without a display is chosen by what the machine has, and said."""

import os

import pytest

from thinkslow.envs import Unavailable, rendering
from thinkslow.envs.families import dm_control, memory_maze
from thinkslow.envs.requirements import require_libraries

EGL, OSMESA = set(rendering.EGL), set(rendering.OSMESA[:1])


@pytest.fixture
def machine(monkeypatch):
    """A Linux machine with these libraries, and this display."""

    def has(libraries: set[str], display: str = "") -> None:
        monkeypatch.setattr("sys.platform", "linux")
        monkeypatch.setattr(rendering, "loads", lambda name: name in libraries)
        monkeypatch.setattr(rendering, "DRIVERS", ())
        for name, value in (("MUJOCO_GL", ""), ("DISPLAY", display)):
            monkeypatch.delenv(name, raising=False)
            if value:
                monkeypatch.setenv(name, value)

    return has


@pytest.mark.parametrize(
    ("libraries", "display", "chosen", "said"),
    [
        (EGL | OSMESA, ":0", "egl", "without a display, by EGL"),
        (OSMESA, ":0", "osmesa", "without a display, by OSMesa"),
        (set(), ":0", "glfw", "as MUJOCO_GL=glfw says"),
    ],
)
def test_mujoco_is_told_the_best_that_there_is(libraries, display, chosen, said, machine):
    machine(libraries, display)
    try:
        assert rendering.mujoco() == said
        assert os.environ["MUJOCO_GL"] == chosen
    finally:
        os.environ.pop("MUJOCO_GL", None)


def test_a_choice_of_the_users_stays(machine, monkeypatch):
    machine(EGL)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering.mujoco() == "without a display, by OSMesa"
    assert os.environ["MUJOCO_GL"] == "osmesa"


@pytest.mark.parametrize("family", [dm_control.FAMILY, memory_maze.FAMILY])
def test_nothing_to_draw_with_is_named_with_its_command(family, machine):
    machine({"libGL.so.1"})
    with pytest.raises(Unavailable, match="apt-get install -y libegl1 libgl1-mesa-dri"):
        require_libraries("its-id", family)


def test_miniworld_draws_on_a_display_where_egl_alone_is_missing(machine):
    everything = {*rendering.OPENGL, rendering.NVIDIA}
    machine(everything)
    assert rendering.pyglet() == "without a display, by EGL"
    machine(everything - {"libEGL.so.1"}, ":99")
    assert rendering.pyglet() == "on the display :99"
    machine(everything - {"libEGL.so.1"})
    with pytest.raises(rendering.Missing, match="libegl1"):
        rendering.pyglet()


def test_what_a_machine_draws_with_is_told_with_the_environment():
    from thinkslow.envs import make

    assert make("CartPole-v1").drawn == ""
    assert make("thinkslow/CollectGoodObjects-v0", size=16).drawn
