"""The harness that kills runs and evaluations, with a few kills; the full numbers are in docs.

Nightly: in each run of CI, test_resuming.py, test_continuing.py and test_replay.py kill once each.
"""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "kills.py"


@pytest.mark.nightly
def test_a_few_kills_lose_nothing(tmp_path):
    counts = ["--training", "3", "--evaluation", "2", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *counts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
