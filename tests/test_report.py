"""The page, the table and the sentence of an evaluation, on folders as an evaluator writes them."""

import base64
import dataclasses
import functools
import io
import json
import operator
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import AGENTS, ARMS, evaluation, savez, strip, strip_of
from PIL import Image
from rich.console import Console

from thinkslow.evaluation import Evaluation, reading
from thinkslow.evaluation.metrics import AHEAD, ahead
from thinkslow.evaluation.records import (
    Episode,
    append,
    read,
    write_header,
)
from thinkslow.evaluation.references import known_scores
from thinkslow.evaluation.report import figures, strips
from thinkslow.evaluation.report.conclusion import conclusion, verdicts
from thinkslow.evaluation.report.page import build
from thinkslow.evaluation.report.scale import Scale
from thinkslow.evaluation.report.table import table
from thinkslow.evaluation.report.text import estimated
from thinkslow.evaluation.summary import summarise

FEW = 6
"""Episodes an arm of which most pages of these tests are made."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation(tmp_path_factory.mktemp("evaluation") / "out")


@pytest.fixture(scope="session")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="session")
def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


class Page(HTMLParser):
    """What a browser would load from a page, and what a reader would read."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "a":
            self.linked.append(named.get("href") or "")
        else:
            self.loaded += [named[key] or "" for key in ("src", "href", "data") if key in named]
        if tag in ("script", "style"):
            self._inside.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if not {"script", "style"} & set(self._inside):
            self.words += " " + " ".join(data.split())


def changed(folder: Path, to: Path, episodes: Any = None, **changes: Any) -> Path:
    """The first records of each arm, without pictures, some of header and episodes changed."""
    to.mkdir(exist_ok=True)
    write_header(to, dataclasses.replace(read(folder).header, **{"episodes": FEW} | changes))
    append(to, few(folder) if episodes is None else episodes)
    return to


def few(folder: Path) -> list[Episode]:
    return [one for one in read(folder).episodes if one.episode < FEW]


def test_the_table_of_the_page_holds_the_numbers_of_the_records(summary, page):
    tables = [each for each in Page(page).tables if "score" in each[0]]
    assert len(tables) == len(AGENTS)
    for agent, (heading, *lines) in zip(AGENTS, tables, strict=True):
        assert [line[0] for line in lines] == list(ARMS)
        assert len(heading) == 7
        for arm, line in zip(reading.arms(summary, agent), lines, strict=True):
            cells = dict(zip(heading, line, strict=True))
            mean, (low, high) = arm["score"]["mean"], arm["score"]["interval"]
            shown = [float(x) for x in re.findall(r"-?[\d.]+", cells["score"])]
            np.testing.assert_allclose(shown, [mean, low, high], atol=0.051)  # one place or two
            assert cells["ms per decision (×)"].startswith(f"{arm['latency_ms']['median']:.2f} (×")
            if arm["arm"] != "none":
                record = reading.comparisons(summary, agent, "psnr")[arm["arm"]]
                expected = estimated(reading.estimate(record, "difference"), signed=True)
                assert cells["Δ PSNR, dB"].rstrip("*") == expected
                assert float(expected.split()[0]) == pytest.approx(record["difference"], abs=5e-3)


@pytest.mark.slow
def test_no_table_or_figure_holds_an_image_metric_of_different_frames(summary, page):
    """`none` had 21.6 dB and `sig-3` 22.8, with a difference of -0.157: of other frames."""
    absolute = {
        estimated(reading.estimate(arm[name]))
        for arm in summary["arms"]
        for name in ("psnr", "ssim", "mse", *(ahead("psnr", step) for step in AHEAD))
    }
    cells = [cell for table in Page(page).tables for row in table for cell in row]
    assert not absolute.intersection(cells)
    assert not [text for text in absolute if text in Page(page).words]


def placed(figure: figures.Intervals, values: list[float]) -> tuple[float, float]:
    """The scale that brings the bars of a figure to where they are."""
    slope, start = np.polyfit([bar.at for bar in figure.bars], values, 1)
    return float(slope), float(start)


@pytest.mark.parametrize("metric", ["score", "psnr", "mse"])
def test_bars_lie_where_the_differences_and_intervals_of_the_records_are(summary, metric):
    for agent in AGENTS:
        figure = figures.differences(summary, agent, metric)
        assert figure is not None
        found = reading.comparisons(summary, agent, metric)
        assert [bar.name for bar in figure.bars] == list(found)
        slope, start = placed(figure, [record["difference"] for record in found.values()])
        assert figure.zero is not None
        assert slope * figure.zero + start == pytest.approx(0, abs=0.05 * slope)
        for bar, record in zip(figure.bars, found.values(), strict=True):
            ends = [slope * end + start for end in (bar.low, bar.high)]
            np.testing.assert_allclose(ends, record["interval"], atol=0.05 * slope)  # of a percent
            assert bar.kind == reading.kind(bar.name)


def test_agents_side_by_side_share_one_axis(summary, page):
    scale = figures.common_scale(summary, list(AGENTS), "score")
    both = [figures.differences(summary, agent, "score", scale=scale) for agent in AGENTS]
    assert both[0] is not None
    assert both[1] is not None
    assert both[0].ticks == both[1].ticks
    assert "All agents share one axis" in Page(page).words


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, {"random": 0.72, "scripted": 22.8}),
        ({"options": {"decisions": 60}}, {"random": 0.16, "scripted": 5.6}),  # as the demo plays
        ({"options": {"decisions": 77}}, {}),
        ({"options": {"wall": False}}, {}),
        ({"shift": "noise:1"}, {}),
        ({"repeat": 2}, {}),
    ],
)
def test_known_players_are_those_of_this_very_task(change, known):
    """The page of the demo had no reference, because its episodes are shorter."""
    environment = {"id": "thinkslow/CollectGoodObjects-v0", "size": 64, "repeat": 1, **change}
    assert known_scores({"environment": environment, "protocol": {}}) == known


def test_every_episode_is_a_dot_beside_known_players(folder, summary):
    figure = figures.scores(
        read(folder).episodes, summary, "tiny-8k", {"random": 0.72, "scripted": 22.8}
    )
    assert figure is not None
    assert [bar.name for bar in figure.bars] == list(ARMS)
    assert all(len(bar.dots) == 24 for bar in figure.bars)
    played = sorted(
        one.score or 0.0
        for one in read(folder).episodes
        if (one.agent, one.arm) == ("tiny-8k", "sig")
    )
    dots = figure.bars[1].dots
    slope = (22.8 - 0.72) / (figure.lines[1].at - figure.lines[0].at)
    np.testing.assert_allclose(np.diff(dots) * slope, np.diff(played), atol=0.02)
    assert figure.lines[0].text == "random 0.72"


def test_gains_are_drawn_against_steps_ahead(summary):
    figure = figures.ahead(summary, "tiny-8k")
    assert figure is not None
    assert [tick.text for tick in figure.x_ticks] == ["now", "t+1", "t+3", "t+8"]
    assert [line.name for line in figure.lines] == [arm for arm in ARMS if arm != "none"]
    record = reading.comparisons(summary, "tiny-8k", ahead("psnr", 3))["sig"]
    expected = estimated(reading.estimate(record, "difference"), signed=True, unit=" dB")
    assert figure.lines[0].points[2].text == expected
    assert f"sig: now {figure.lines[0].points[0].text}" in figure.said
    point = figure.lines[1].points[0]  # elbo gains: above zero, its interval around it
    assert figure.zero is not None
    assert point.low < point.y < point.high < figure.zero


def test_costs_are_medians_with_the_ratio_to_none(summary):
    figure = figures.cost(summary, "tiny-8k")
    assert figure is not None
    assert [bar.text for bar in figure.bars[:2]] == ["2.1 ms (×1.0)", "19.7 ms (×9.4)"]
    assert figure.bars[1].at == pytest.approx(9.4 * figure.bars[0].at, rel=1e-3)
    assert all(bar.low < bar.at < bar.high for bar in figure.bars)


def test_the_cost_of_a_gated_arm_is_that_of_the_table():
    """The figure kept the median, so that beside ×3.0 in the table it said ×1.0."""
    times = {"none": (2.0, 2.0, 0.0), "sig-in-doubt": (2.0, 6.0, 0.05)}
    arms = [
        {"agent": "a", "arm": arm, "thought_share": share}
        | {"latency_ms": {"median": median, "mean": mean, "p10": 1.5, "p90": 2.5}}
        for arm, (median, mean, share) in times.items()
    ]
    figure = figures.cost({"arms": arms}, "a")
    assert figure is not None
    assert [bar.text for bar in figure.bars] == ["2 ms (×1.0)", "6 ms (×3.0)"]
    assert figure.bars[1].at < Scale(0.0, 6.0).at(6.0)  # inside the frame, above its p90


def test_a_measure_that_no_arm_changed_is_left_out(page):
    assert "Episode length" not in Page(page).words  # of 250 decisions in every episode
    assert "length" not in {cell for table in Page(page).tables for cell in table[0]}


def test_the_page_loads_nothing_from_elsewhere(page):
    found = Page(page)
    assert found.loaded
    assert all(source.startswith("data:image/webp;base64,") for source in found.loaded)
    elsewhere = [target for target in found.linked if not target.startswith("#")]
    assert elsewhere == ["https://arxiv.org/abs/2402.15283"]
    assert all(f'id="{target[1:]}"' in page for target in found.linked if target not in elsewhere)
    assert "default-src 'none'" in page
    style = re.findall(r"<style>.*?</style>", page, flags=re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]


def test_the_page_stays_small_and_runs_nothing(page):
    assert len(page.encode()) < 1_500_000
    assert "<script" not in page


def test_the_page_says_what_the_command_line_says_and_where_it_comes_from(summary, page):
    words = Page(page).words
    for said in verdicts(summary):
        for sentence in (said.headline, *said.details):
            assert sentence.replace("`", "") in re.sub(" ([.,])", r"\1", words)
    assert words.count("other training runs may differ") == 1  # of all agents, once
    assert summary["protocol"]["command"] in words
    assert summary["protocol"]["machine"] in words
    assert "jax 0.10.1" in words


def renamed(found: Sequence[Episode], agent: str) -> list[Episode]:
    return [dataclasses.replace(one, agent=agent) for one in found if one.agent == "tiny-8k"]


def test_names_are_escaped_wherever_they_appear(folder, tmp_path):
    name = "</script><script>alert(1)</script>\x1b]0;hi\x07\x9b31m\u202egnp"
    arms = [{"agent": name, "arm": arm, "description": name} for arm in ARMS]
    to = changed(
        folder,
        tmp_path,
        renamed(few(folder), name),
        agents=[{"name": name, "preset": name}],
        arms=arms,
        images={name: ["image"]},
        environment={"id": name},
        curves={},
        sittings=[{"command": name, "machine": name}],
    )
    page = build(to).read_text()
    assert "<script>alert" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page), "a terminal may obey it"
    assert r"\x1b]0;hi\x07\x9b31m\u202egnp" in page


def test_a_page_from_few_records_says_what_is_missing(folder, tmp_path):
    alone = [one for one in few(folder) if one.arm == "none"]
    to = changed(folder, tmp_path, alone, curves={})
    words = " ".join(Page(build(to, title="Only numbers").read_text()).words.split())
    assert "Only numbers" in words
    assert "12 of 60 episodes" in words
    assert "No learning curve was recorded" in words
    assert "No frames were kept" in words
    assert "No paired comparison with" in words
    assert "no refinement was compared with none (none alone), so nothing is shown." in words


def test_a_page_whose_scores_are_all_unknown_says_so(folder, tmp_path):
    """It said that none was compared with no refinement, and named both."""
    unknown = [dataclasses.replace(one, score=None, images={}) for one in few(folder)]
    words = " ".join(Page(build(changed(folder, tmp_path, unknown)).read_text()).words.split())
    assert "of no pair are both scores known (none, " in words


def test_an_evaluation_of_one_arm_and_no_images_still_makes_a_page(folder, tmp_path):
    first = read(folder).episodes[0]
    bare = dataclasses.replace(
        first,
        images={},
        latency_ms=None,
        latency_ms_mean=None,
        latency_ms_p10=None,
        latency_ms_p90=None,
        thought_share=None,
        belief_kl=None,
    )
    words = Page(build(changed(folder, tmp_path, [bare])).read_text()).words
    assert "No latency was recorded" in words
    assert "No open-loop prediction was recorded" in words


def test_the_interval_of_a_single_pair_is_left_out_not_drawn_as_certain(folder, tmp_path):
    pair = [
        one
        for one in read(folder).episodes
        if one.agent == "tiny-8k" and one.arm in ("none", "sig") and one.episode == 0
    ]
    page = build(changed(folder, tmp_path, pair)).read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    figure = figures.differences(summary, "tiny-8k", "score")
    assert figure is not None
    (bar,) = figure.bars
    assert bar.low == bar.at == bar.high
    assert "[" not in bar.text
    assert "NaN" not in page
    assert "nan%" not in page
    assert "Too few episodes to say" in Page(page).words


def test_strips_show_the_same_frames_under_all_arms(folder):
    found = strips.moments(folder, read(folder).header, budget=100_000_000)
    assert (len(found.shown), found.left_out) == (6, 0)
    for moment in found.shown:
        assert [name for name, _ in moment.arms] == list(ARMS)
        assert [row.name for row in moment.rows] == ["now", "t+1", "t+3", "t+8"]
        assert all(len(row.pictures) == 1 + len(ARMS) for row in moment.rows)
    now = found.shown[0].rows[0].pictures
    assert [picture.caption for picture in now] == ["", "20.0", "+1.0", "+2.0", "+3.0", "+4.0"]
    assert found.shown[0].rows[0].pictures[0] != found.shown[1].rows[0].pictures[0]


def test_pictures_are_the_recorded_frames_exactly(folder):
    (moment, *_) = strips.moments(folder, read(folder).header).shown
    with np.load(strip_of(folder, moment.agent, "none")) as recorded:
        at = list(recorded["step"]).index(moment.step)
        frame = recorded["real"][at]
    _, _, data = moment.rows[0].pictures[0].source.partition(",")
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    np.testing.assert_array_equal(np.asarray(shown), frame)


def test_more_frames_than_the_page_can_hold_are_left_out_and_counted(folder):
    found = strips.moments(folder, read(folder).header, budget=200_000)
    assert 0 < len(found.shown) < 6
    assert len(found.shown) + found.left_out == 6
    assert {moment.agent for moment in found.shown} == set(AGENTS)
    pictures = [p for m in found.shown for row in m.rows for p in row.pictures]
    assert sum(len(picture.source) for picture in pictures) < 200_000


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_frames_of_other_channels_than_three_are_shown(folder, tmp_path, channels):
    (changed(folder, tmp_path) / "strips").mkdir()
    savez(strip_of(tmp_path, "tiny-8k", "none"), strip("none", channels))
    (moment, *_) = strips.moments(tmp_path, read(tmp_path).header).shown
    assert moment.rows[0].pictures[1].source.startswith("data:image/webp;base64,")


def test_strips_are_labelled_by_the_steps_they_look_ahead(folder, tmp_path):
    (changed(folder, tmp_path) / "strips").mkdir()
    fewer = strip("none")
    fewer |= {name: fewer[name][:, :2] for name in ("imagined", "came")}
    savez(strip_of(tmp_path, "tiny-8k", "none"), fewer | {"ahead": np.array([3, 8])})
    (moment, *_) = strips.moments(tmp_path, read(tmp_path).header).shown
    assert [row.name for row in moment.rows] == ["now", "t+3", "t+8"]


def test_an_arm_that_did_not_change_the_state_says_so(folder, tmp_path):
    (changed(folder, tmp_path) / "strips").mkdir()
    savez(strip_of(tmp_path, "tiny-8k", "none"), strip("none"))
    savez(strip_of(tmp_path, "tiny-8k", "sig"), strip("sig") | {"now": strip("none")["now"]})
    (moment, *_) = strips.moments(tmp_path, read(tmp_path).header).shown
    assert moment.rows[0].pictures[2].caption == "as none"


def test_frames_of_another_episode_are_not_laid_beside_those_of_the_base(folder, tmp_path):
    (changed(folder, tmp_path) / "strips").mkdir()
    savez(strip_of(tmp_path, "tiny-8k", "none"), strip("none"))
    savez(strip_of(tmp_path, "tiny-8k", "elbo"), strip("elbo"))
    savez(strip_of(tmp_path, "tiny-8k", "sig"), strip("sig") | {"frames": np.array(8)})
    (moment, *_) = strips.moments(tmp_path, read(tmp_path).header).shown
    assert [name for name, _ in moment.arms] == ["none", "elbo"]


BROKEN = [
    ("evaluation.json", None, "is missing.*thinkslow evaluate AGENT --out"),
    ("evaluation.json", b"{", "evaluation.json is not JSON"),
    ("evaluation.json", b"\xff\xfe", "evaluation.json is not JSON"),
    ("evaluation.json", b"[]", "format 2; got 'list'"),
    ("evaluation.json", b'{"format": 1}', "format 2; got 1"),
    ("evaluation.json", b'{"format": 2}', "lacks protocol"),
    ("evaluation.json", b'{"format": 2, "format": 2}', "'format' is given twice"),
    ("episodes.jsonl", b"{}\n", "episodes.jsonl, line 1 .*lacks agent, arm"),
    ("episodes.jsonl", b'{"agent": "a"\n{}\n', "episodes.jsonl, line 1 is not a record"),
    ("episodes.jsonl", b"[]\n", "line 1 .*got list"),
    ("strips/0-0.npz", b"PK\x03\x04 cut off", "0-0.npz is not a readable strip"),
    ("strips/0-0.npz", b"", "0-0.npz is not a readable strip"),
]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("environment",), {}, "environment` lacks id"),
        (("agents", 0, "name"), {}, r"agents\[0\].name` must be a text; got {}"),
        (("agents", 0, "training_steps"), [], r"agents\[0\].training_steps` must be an integer"),
        (("arms", 1, "arm"), 5, r"arms\[1\].arm` must be a text; got 5"),
        (("curves",), {"a": {"step": [1]}}, r"curves\.a` lacks score"),
        (("curves",), {"a": {"step": ["x"], "score": [1]}}, r"curves\.a\.step\[0\]` must be a num"),
        (("sittings",), [{"command": 5}], r"sittings\[0\].command` must be a text"),
    ],
)
def test_a_header_says_where_a_value_of_another_type_is(folder, tmp_path, path, value, said):
    """Edited by hand it ended in "unhashable type: 'dict'", or in the words of a template."""
    content = json.loads((folder / "evaluation.json").read_text())
    *parents, last = path
    functools.reduce(operator.getitem, parents, content)[last] = value
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"evaluation\.json: `{said}.*Evaluate again"):
        read(tmp_path)


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_a_broken_file_is_one_clear_error_and_keeps_the_old_page(
    folder, tmp_path, name, content, said
):
    changed(folder, tmp_path)
    (tmp_path / "report.html").write_text("old")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        build(tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": "many"}, "`score` is 'many'"),
        ({"length": 2.5}, "`length` is 2.5"),
        ({"crashed": 1}, "`crashed` is 1"),
        ({"score": True}, "`score` is True"),
        ({"score": float("nan")}, "`score` is nan"),
        ({"score": 10**400}, "`score` is 1000"),  # an OverflowError that named no file
        ({"psnr": float("inf")}, "`psnr` is inf"),
        ({"length": 0}, "`length` is 0 and `latency_ms` "),  # a mean without weights
        ({"length": -1, "latency_ms": None}, "`length` is -1"),
        ({"arm": "other"}, "has no episode 0 of .*, other"),
        ({"episode": 1000}, "has no episode 1000 of"),
        ({"psnr_of_the_moon": 1.0}, "psnr_of_the_moon"),
    ],
)
def test_a_record_of_other_columns_is_refused_by_line_and_name(folder, tmp_path, changes, said):
    changed(folder, tmp_path)
    path = tmp_path / "episodes.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([json.dumps(json.loads(first) | changes) + "\n", *rest]))
    with pytest.raises(ValueError, match=f"line 1 .*{said}"):
        read(tmp_path)


def test_an_episode_written_twice_is_refused_by_name(folder, tmp_path):
    twice = read(folder).episodes[3]
    append(changed(folder, tmp_path), [twice])
    with pytest.raises(ValueError, match="episode 3 of tiny-8k, none twice"):
        read(tmp_path)


def test_the_folder_of_an_earlier_version_is_told_from_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no evaluation\\."):
        read(tmp_path)
    (tmp_path / "summary.json").write_text('{"format": 1}')
    with pytest.raises(FileNotFoundError, match="earlier version"):
        read(tmp_path)


def test_a_strip_of_other_frames_is_refused_by_name(folder, tmp_path):
    (changed(folder, tmp_path) / "strips").mkdir()
    path, whole = strip_of(tmp_path, "tiny-8k", "none"), strip("none")
    savez(path, whole | {"real": whole["real"] / 255})
    with pytest.raises(ValueError, match=r"0-0.npz: `real`.*got float64"):
        build(tmp_path)
    savez(path, whole | {"step": np.arange(2)})
    with pytest.raises(ValueError, match=r"`real` holds frames in shape \(3,\); .* \(2,\)"):
        build(tmp_path)


def test_episodes_that_end_at_one_step_are_one_point_of_the_learning_curve():
    curve = {"step": [10, 10, 20, 30], "score": [1.0, 3.0, 5.0, None]}
    agents = [{"name": "a", "training_seed": 0, "training_steps": 19}]
    figure = figures.learning({"a": curve}, agents)
    assert figure is not None
    (line,) = figure.lines
    assert len(line.faint) == 2
    (star,) = line.stars
    assert star.text == "a: 3.5"  # the running mean of 2 and 5
    assert line.points[0].x < star.x < line.points[1].x


def test_the_learning_curve_is_a_running_mean_over_what_was_recorded():
    """The zigzag of single episodes hid the trend."""
    steps = list(range(100))
    zigzag = [float(step % 2) for step in steps]
    figure = figures.learning({"a": {"step": steps, "score": zigzag}}, [{"name": "a"}])
    assert figure is not None
    (line,) = figure.lines
    assert np.ptp([point.y for point in line.points]) < 0.2 * np.ptp([p.y for p in line.faint])


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_the_name_of_an_agent_stands_where_its_curve_does_not(slope):
    """It lay over the line. Right of the first agent the curve goes on; the last one ends it."""
    steps = list(range(0, 100, 2))
    curve = {"step": steps, "score": [slope * step for step in steps]}
    agents = [{"name": name, "training_steps": at} for name, at in (("a", 30), ("b", 70))]
    figure = figures.learning({"a": curve}, agents)
    assert figure is not None
    assert [star.below for star in figure.lines[0].stars] == [slope > 0, slope < 0]


def test_several_agents_have_a_line_each(summary):
    lines = conclusion(summary).split("\n")
    assert [line.split(":")[0] for line in lines] == list(AGENTS)
    assert conclusion({"arms": [], "comparisons": []}).startswith("No arm was evaluated")


def printed(summary: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(table(summary, width))
    return console.export_text()


def test_the_terminals_table_groups_arms_by_agent_and_fits_eighty_columns(summary):
    shown = printed(summary)
    assert max(map(len, shown.splitlines())) <= 80
    lines = shown[: shown.index("diff: ")].splitlines()  # what follows explains it
    starts = [line.split()[0] for line in lines if line[:1].strip()]
    assert starts[1:] == [name for agent in AGENTS for name in (agent, *ARMS)]
    record = reading.comparisons(summary, "tiny-8k", "score")["sig"]
    row = next(line for line in lines if line.startswith("sig"))
    expected = estimated(reading.estimate(record, "difference"), signed=True)
    assert expected.replace(", ", ",") in row
    assert "100%" in row


def test_a_table_without_images_or_timings_has_dashes(summary):
    arm = {"agent": "a", "arm": "[none]", "score": {"mean": 1.0}, "latency_ms": None}
    shown = printed(summary | {"arms": [arm], "comparisons": []})
    assert re.search(r"\[none\] +1.00( +–){5}", shown)


def test_the_table_of_an_evaluation_without_an_episode_has_headings_alone(summary):
    """`report` of what was stopped before its first block ended with a TypeError."""
    assert "score" in printed(summary | {"arms": [], "comparisons": []})


@pytest.mark.parametrize("width", [45, 50, 64, 80])
def test_a_narrow_terminal_breaks_no_number(summary, width):
    """In 50 columns an interval was shown as `[2.85,4` above `.30]`."""
    shown = printed(summary, width)
    for agent in AGENTS:
        for record in reading.comparisons(summary, agent, "score").values():
            found = reading.estimate(record, "difference")
            value, interval = estimated(found, signed=True).replace(", ", ",").split()
            assert value in shown
            assert interval in shown


@pytest.mark.parametrize("width", [30, 40, 60, 80])
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e3, 1e7, 1e12])
def test_the_table_never_cuts_a_number(width, scale):
    """Scores of 2e7 were shown as `[20000000.00,2000000…` in a log of 80 columns."""
    score = {"mean": 2.0123 * scale, "interval": [1.9 * scale, 2.2 * scale]}
    row = {"agent": "agent", "arm": "evidence+steps=8+samples=4", "metric": "score"}
    row |= {"difference": 0.5 * scale, "interval": [0.1 * scale, 0.9 * scale], "pairs": 9}
    arms = [{"agent": "agent", "arm": arm, "score": score} for arm in ("none", row["arm"])]
    summary = {
        "environment": {"id": "some/Env-v0"},
        "protocol": {"episodes": 9},
        "arms": arms,
        "comparisons": [row],
    }
    shown = printed(summary, width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    wide = printed(summary, 200)
    for interval in (score["interval"], row["interval"]):
        found = re.findall(r"\[(\S+?),(\S+?)\]", wide)
        assert any(
            np.allclose([float(low), float(high)], interval, rtol=0.05) for low, high in found
        )


def test_the_table_says_that_episodes_are_no_pairs(summary):
    rows = [row | {"paired": False} for row in summary["comparisons"]]
    assert "independent" in printed(summary | {"comparisons": rows})


def test_a_folder_that_was_moved_is_the_one_in_the_command_that_continues(folder, tmp_path):
    """The command named the place where the evaluation was played, and began another there."""
    found = read(shutil.copytree(folder, tmp_path / "kept"))
    for out in ("out/old", str(tmp_path / "kept")):
        sittings = [{"command": f"thinkslow evaluate mine --out {out} --seed 1"}]
        header = dataclasses.replace(found.header, sittings=sittings)
        moved = dataclasses.replace(found, header=header)
        said = summarise(moved)["protocol"]["command"]
        assert said == f"thinkslow evaluate mine --out {tmp_path / 'kept'} --seed 1"


@pytest.mark.slow
def test_a_report_in_another_folder_holds_the_records_too(folder, tmp_path):
    result = Evaluation(folder)
    page = result.report(tmp_path / "copy")
    assert page.parent == tmp_path / "copy"
    assert read(tmp_path / "copy").rows() == result.episodes
    with pytest.raises(ValueError, match="holds an evaluation already"):
        result.report(tmp_path / "copy")
