"""docs/cost.md: its table is what the benchmark prints, and its shares are those of a step that is counted here."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cost import LOOPS, STEPS, job, measured, share_of_work

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/cost.md").read_text()


def test_the_table_of_the_page_is_what_the_benchmark_prints():
    done = subprocess.run([sys.executable, "benchmarks/cost.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == len(STEPS) + 2
    assert done.stdout in PAGE


@pytest.mark.parametrize("step", STEPS.values())
@pytest.mark.parametrize(("epochs", "runs"), LOOPS)
def test_a_share_is_that_of_passes_counted_one_by_one(step, epochs, runs):
    visits = [(run, epoch) for run in range(runs) for epoch in range(epochs)]
    without = sum(1 + step for _ in visits)
    with_store = 1 + sum(step for _ in visits)
    assert share_of_work(step, len(visits)) == with_store / without


def test_one_epoch_of_one_run_saves_nothing():
    assert {share_of_work(step, 1) for step in STEPS.values()} == {1.0}


def test_a_work_folder_is_measured_by_its_jobs(work):
    work.run("precompute-ref")
    work.run("train")
    lines = measured(work.root)
    assert [line.partition(":")[0] for line in lines[:2]] == ["device", "scoring"]
    share = lines[3].split()[-6]
    scoring, training = job(work.root, "precompute-ref"), job(work.root, "train")
    rates = [document["tokens"] / document["seconds"] for document in (scoring, training)]
    assert share == f"{1 / (1 + rates[1] / rates[0]):.0%}"


def test_a_folder_without_jobs_says_what_to_run(tmp_path):
    with pytest.raises(SystemExit, match="Run `pipeline precompute-ref` in this work folder first"):
        measured(tmp_path)
