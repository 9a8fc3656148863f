"""The problem whose truth is known, which the demo shows beside its task."""

import pytest

from thinkslow.evaluation import known, read
from thinkslow.evaluation.reading import comparisons
from thinkslow.evaluation.report.beside import BEST, FOLDER, known_beside


@pytest.mark.slow
def test_refinement_brings_the_belief_of_a_wrong_encoder_to_the_exact_filter(tmp_path):
    known.play(tmp_path / FOLDER, episodes=24, seed=1, command="thinkslow demo")
    assert read(tmp_path / FOLDER).finished
    found = known_beside(tmp_path)
    assert found is not None
    means = {arm["arm"]: arm["score"]["mean"] for arm in found.summary["arms"]}
    best = found.summary["environment"][BEST]
    assert means["none"] < best / 2
    assert means["evidence"] == pytest.approx(best, abs=5)
    record = comparisons(found.summary, known.AGENT, "score")["evidence"]
    assert (record["pairs"], record["paired"]) == (24, True)
    assert record["interval"][0] > 0
    assert found.said.headline == "evidence raised the score."
    assert len(found.figures) == 2


def test_an_evaluation_without_it_shows_nothing_of_it(tmp_path):
    assert known_beside(tmp_path) is None
