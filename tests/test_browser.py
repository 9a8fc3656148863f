"""The pages of an evaluation and of a study in a browser: they fit, print whole, and can be read
by everyone.

Needs what the fixture `browser` needs.
"""

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import studies
from helpers import nightly
from pages import OPEN, WIDTHS, evaluation

pytestmark = pytest.mark.slow

OUTSIDE = """() => [...document.querySelectorAll('main *')].filter(one => {
    if (one.closest('.scroll') || one.closest('svg')) return false;
    const box = one.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1);
}).map(one => one.outerHTML.slice(0, 200))"""
TOO_WIDE = """() => [...document.querySelectorAll('.scroll')]
    .filter(one => one.scrollWidth > one.clientWidth + 1).length"""

OVERLAPS = """() => [...document.querySelectorAll('svg.axis')].flatMap(axis => {
    const boxes = [...axis.querySelectorAll('text')].map(one => [one, one.getBoundingClientRect()]);
    return boxes.flatMap(([one, a], n) => boxes.slice(n + 1)
        .filter(([_, b]) => a.left < b.right && b.left < a.right)
        .filter(([_, b]) => a.top + 4 < b.bottom && b.top + 4 < a.bottom)
        .map(([other]) => one.textContent + ' | ' + other.textContent));
})"""


TEXTS_OUTSIDE = """() => [...document.querySelectorAll('svg.axis text')].filter(one => {
    const figure = one.closest('figure').getBoundingClientRect();
    return one.getBoundingClientRect().right > figure.right + 1;
}).map(one => one.textContent)"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "out"
    return studies.folder(folder, studies.ROLLOUTS | {"episodes": 8}, seeds=2)


@pytest.fixture(scope="module", params=["evaluation", "study"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "study":
        return request.getfixturevalue("study") / "report.html"
    return evaluation(tmp_path_factory.mktemp("evaluation") / "out") / "report.html"


def opened(browser: Any, page: Path, width: int, **more: Any) -> Any:
    tab = browser.new_page(viewport={"width": width, "height": 844}, **more)
    tab.goto(page.as_uri())
    tab.evaluate(OPEN)
    return tab


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_nothing_needs_sideways_scrolling_of_the_page(browser, page, width):
    tab = opened(browser, page, width, is_mobile=width == WIDTHS["phone"])
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(OVERLAPS) == []
    assert tab.evaluate(TEXTS_OUTSIDE) == []
    tab.close()


def test_every_table_fits_a_desktop(browser, page):
    tab = opened(browser, page, WIDTHS["desktop"])
    assert tab.evaluate(TOO_WIDE) == 0
    tab.close()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (WIDTHS["desktop"], "light"),
        (WIDTHS["phone"], "dark"),
        nightly(WIDTHS["desktop"], "dark"),
        nightly(WIDTHS["phone"], "light"),
    ],
)
def test_axe_finds_nothing(browser, page, width, scheme):
    axe = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    tab = opened(browser, page, width, color_scheme=scheme)
    found = axe.run(tab).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    tab.close()


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser, page):
    tab = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(page.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert said == []
    tab.close()


def test_contents_and_tables_are_reached_by_the_keyboard(browser, page):
    tab = browser.new_page()
    tab.goto(page.as_uri())
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate(
                "document.activeElement.getAttribute('href') ||"
                "document.activeElement.getAttribute('aria-label') || ''"
            )
        )
    assert "#provenance" in reached
    assert any(label.startswith("Arms") for label in reached)
    tab.close()


def test_print_shows_what_is_folded_and_cuts_no_figure(browser, page):
    tab = browser.new_page(viewport={"width": 680, "height": 1000})  # A4 within its margins
    tab.goto(page.as_uri())
    tab.emulate_media(media="print")
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(TOO_WIDE) == 0
    assert tab.evaluate(OVERLAPS) == []
    assert tab.evaluate(TEXTS_OUTSIDE) == []  # the last tick of a narrow figure was cut
    for kind in ("figure", ".frames", "tr", ".claims li"):
        broken = "all => all.map(one => getComputedStyle(one).breakInside)"
        assert set(tab.eval_on_selector_all(kind, broken)) <= {"avoid"}
    assert tab.get_by_text("P(improve)", exact=True).first.is_visible()
    tab.close()


def test_the_numbers_of_a_figure_are_downloaded_from_the_page_itself(browser, study):
    result = json.loads((study / "result.json").read_text())
    tab = browser.new_page()
    tab.goto((study / "report.html").as_uri())
    tab.evaluate(OPEN)
    with tab.expect_download() as download:
        tab.get_by_role("link", name="hypotheses-score.csv").click()
    lines = Path(download.value.path()).read_text().splitlines()
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(first["difference"]) == result["hypotheses"][0]["difference"]
    assert first["hypothesis"] == result["hypotheses"][0]["name"]
    tab.close()


def test_no_number_is_broken_inside(browser, page):
    """Browsers break 4e-4 after its hyphen, which left a line that began with 4]."""
    tab = opened(browser, page, WIDTHS["desktop"])
    broken = "all => all.filter(one => one.getClientRects().length > 1).map(one => one.innerText)"
    assert tab.eval_on_selector_all(".whole", broken) == []
    assert tab.locator(".value .whole").count() > 0
    tab.close()
