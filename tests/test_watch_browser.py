"""The player in a real browser: it moves by buttons, keys, touch, slider and figures, it fits, and
everyone can use it.

Needs what the fixture `browser` needs.
"""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import nightly
from pages import OPEN, WIDTHS
from watched import ARMS, COUNT, MISSING, block

from thinkslow.evaluation.watching.page import page

pytestmark = pytest.mark.slow

OUTSIDE = """() => [...document.querySelectorAll('main *')].filter(one => {
    if (one.closest('svg') || one.closest('.speed')) return false;
    const box = one.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1);
}).map(one => one.outerHTML.slice(0, 200))"""
CUT = """() => [...document.querySelectorAll('th, td, button, figcaption, h1, p, .cell')]
    .filter(one => one.clientWidth && one.scrollWidth > one.clientWidth + 1)
    .map(one => one.outerHTML.slice(0, 200))"""
TEXTS_OUTSIDE = """() => [...document.querySelectorAll('#charts svg text')].filter(one => {
    const box = one.getBoundingClientRect(), around = one.closest('svg').getBoundingClientRect();
    return box.left < around.left - 1 || box.right > around.right + 1;
}).map(one => one.textContent)"""


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("player") / "player.html"
    path.write_text(page(block()))
    return path


@pytest.fixture
def tab(browser: Any, player: Path) -> Any:
    tab = opened(browser, player)
    yield tab
    tab.close()


def opened(browser: Any, path: Path, width: int = 1280, at: str = "", **more: Any) -> Any:
    """The page, which must neither say anything to the console nor ask for anything."""
    tab = browser.new_page(viewport={"width": width, "height": 844}, **more)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on(
        "request",
        lambda one: (
            said.append(one.url) if not one.url.startswith((path.as_uri(), "data:")) else None
        ),
    )
    tab.goto(path.as_uri() + at)
    tab.said = said
    return tab


def position(tab: Any) -> int:
    """The decision that is shown, as the page says it in words, slider and address."""
    text, slider = tab.evaluate(
        "[document.getElementById('position').textContent, document.getElementById('slider').value]"
    )
    assert text == f"Decision {slider} of {COUNT}"
    return int(slider)


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait in Python: the page's policy lets nobody evaluate a text in it again and again."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def came(tab: Any) -> str:
    """The picture of what came."""
    return tab.locator("#frames img").first.get_attribute("src")


def test_buttons_step_through_the_episode(tab):
    first = came(tab)
    for name, expected in [
        ("Next decision", 2),
        ("Next decision", 3),
        ("Previous decision", 2),
        ("Last decision", COUNT),
        ("Next decision", COUNT),
        ("First decision", 1),
        ("Previous decision", 1),
    ]:
        tab.get_by_role("button", name=name, exact=True).click(force=True)  # the ends are disabled
        assert position(tab) == expected
    tab.get_by_role("button", name="Last decision").click()
    assert came(tab) != first
    assert tab.said == []


def test_keys_step_through_the_episode(tab):
    for key, expected in [
        ("ArrowRight", 2),
        ("Shift+ArrowRight", 12),
        ("ArrowLeft", 11),
        ("End", COUNT),
        ("Home", 1),
    ]:
        tab.keyboard.press(key)
        assert position(tab) == expected
    tab.keyboard.press("s")
    surprises = block()["arms"][0]["surprise"]
    least = sorted(surprises)[-COUNT // 10]
    assert surprises[position(tab) - 1] >= least
    assert tab.said == []


def test_space_and_the_button_play_and_pause(tab):
    tab.locator("#speed").select_option("30")
    tab.locator("h1").click()
    tab.keyboard.press("Space")
    until(lambda: position(tab) > 5)
    assert tab.locator("#play").get_attribute("aria-label") == "Pause"
    tab.get_by_role("button", name="Pause").click()
    stopped = position(tab)
    tab.wait_for_timeout(200)
    assert position(tab) == stopped
    tab.get_by_role("button", name="Play", exact=True).click()
    until(lambda: position(tab) == COUNT)
    until(lambda: tab.locator("#play").get_attribute("aria-label") == "Play")


def test_the_slider_moves_by_mouse_and_keys(tab):
    slider = tab.locator("#slider")
    box = slider.bounding_box()
    tab.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    assert position(tab) == COUNT
    slider.press("ArrowLeft")
    assert position(tab) == COUNT - 1
    assert slider.get_attribute("aria-valuetext") == f"Decision {COUNT - 1} of {COUNT}"


def test_a_click_in_a_figure_goes_there(tab):
    figure = tab.locator("#charts svg").first
    box = figure.bounding_box()
    figure.click(position={"x": box["width"] - 9, "y": 40})
    assert position(tab) == COUNT
    figure.click(position={"x": 47, "y": 40})
    assert position(tab) == 1


def test_touch_swipes_and_taps(browser, player):
    tab = opened(browser, player, 390, has_touch=True, is_mobile=True)
    tab.get_by_role("button", name="Next decision").tap()
    assert position(tab) == 2
    box = tab.locator("#frames table").first.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + 60)
    session = tab.context.new_cdp_session(tab)
    for toward, expected in ((-90, 3), (90, 2)):
        session.send(
            "Input.dispatchTouchEvent",
            {"type": "touchStart", "touchPoints": [{"x": middle[0], "y": middle[1]}]},
        )
        for part in (0.3, 0.6, 1.0):
            session.send(
                "Input.dispatchTouchEvent",
                {
                    "type": "touchMove",
                    "touchPoints": [{"x": middle[0] + part * toward, "y": middle[1]}],
                },
            )
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        until(lambda at=expected: position(tab) == at)
    slider = tab.locator("#slider").bounding_box()
    tab.touchscreen.tap(slider["x"] + slider["width"] - 3, slider["y"] + slider["height"] / 2)
    assert position(tab) == COUNT
    assert tab.said == []
    tab.close()


def test_an_address_leads_to_its_decision_and_follows(browser, player):
    tab = opened(browser, player, at="#decision=17")
    assert position(tab) == 17
    tab.get_by_role("button", name="Next decision").click()
    assert tab.url.endswith("#decision=18")
    tab.evaluate("location.hash = '#decision=999'")
    until(lambda: position(tab) == COUNT)
    tab.close()


def test_the_page_shows_what_its_data_say(browser, player):
    data, at = block(), 6
    tab = opened(browser, player, at=f"#decision={at + 1}")
    for name in ARMS:
        assert tab.locator(f'img[alt="Decoded by {name}, decision {at + 1}"]').count() == 2
    shown = tab.locator(f'img[alt="Imagined by sig-3, 3 steps after decision {at + 1}"]').first
    assert shown.get_attribute("src") == data["arms"][2]["imagined"]["front"][at][1]
    loss = data["arms"][2]["objective"][at]["loss"]
    assert f"{loss[0]} → {loss[5]}" in tab.locator("#decision").text_content()
    policy = tab.locator("#policy").text_content()
    taken = data["arms"][0]["action"]["gear"][at]
    assert f"gear {taken}takes " in policy
    assert "steer[1]" in policy
    assert "speed[23]" in tab.locator("#numbers").text_content()
    assert "speed[24]" not in tab.locator("#numbers").text_content()
    tab.keyboard.press("ArrowRight")  # no imagined frames are kept here
    assert tab.locator('img[alt^="Imagined"]:visible').count() == 0
    for _ in range(MISSING - at - 1):
        tab.keyboard.press("ArrowRight")
    assert "missing or old" in tab.locator("#frames").text_content()
    tab.close()


@pytest.mark.parametrize("arms", [ARMS, ARMS[:1]], ids=["four arms", "one arm"])
@pytest.mark.parametrize("width", [320, *WIDTHS.values()])
def test_nothing_is_cut_or_needs_sideways_scrolling(browser, tmp_path, width, arms):
    path = tmp_path / "player.html"
    path.write_text(page(block(arms)))
    tab = opened(browser, path, width, at="#decision=9")
    tab.evaluate(OPEN)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(CUT) == []
    assert tab.evaluate(TEXTS_OUTSIDE) == []
    assert tab.said == []
    tab.close()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1280, "light"), (390, "dark"), nightly(1280, "dark"), nightly(390, "light")],
)
def test_axe_finds_no_fault(browser, player, width, scheme):
    axe = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    tab = opened(browser, player, width, at="#decision=9", color_scheme=scheme)
    tab.evaluate(OPEN)
    found = axe.run(tab).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    tab.close()
