"""The cells of the benchmark of a GPU with the toy on this CPU: who is measured does the work it is measured for."""

import json
import time
from dataclasses import asdict

import pytest
import torch

import gpu_checks_attention
from data.schema import unique_responses
from gpu_cell import measure
from gpu_checks import step_zero
from gpu_checks_attention import Check, attention_checks, head_checks
from gpu_lengths import MIXES, random_pairs
from gpu_memory import ESTIMATE_COLUMNS, estimate_rows, thinned
from gpu_ours import our_scorer
from gpu_plan import plan
from gpu_profile import busy_time
from gpu_results import Results
from gpu_steps import StepClock
from gpu_tables import cell_rows, reference_rows, summary_rows
from gpu_targets import hours_rows, target_rows
from tests.tiny import ROOT

CELLS = {f"{cell.task} {cell.contender}": cell for cell in plan("cpu", ["toy"], 1) if cell.mix == "hh"}


def measured(name):
    report = measure(CELLS[name], time.time() - 1)
    assert report["seconds"] > 0
    assert report["seconds_to_first"] > report["seconds_to_ready"] > 1
    assert min(report["rates"]) > 0
    assert json.loads(json.dumps(report)) == report
    return report


def test_each_way_of_scoring_scores_the_same():
    ours, *others = [measured(f"scoring {name}") for name in ("ours", "ours-rows", "ours-p256", "ours-separate")]
    cell = CELLS["scoring ours"]
    responses = unique_responses(random_pairs(MIXES["hh"], cell.pairs, 512, cell.cap))
    with torch.no_grad():
        mean = our_scorer(cell).logps(responses).sum() / sum(response.n_scored for response in responses)
    assert ours["mean_logp"] == pytest.approx(float(mean), rel=1e-5)
    for report, tolerance in zip(others, (1e-5, 1e-5, 2e-3), strict=True):  # other prompts, other log-probs
        assert report["useful_tokens"] == ours["useful_tokens"]
        assert report["mean_logp"] == pytest.approx(ours["mean_logp"], rel=tolerance)
    assert others[0]["configuration"]["backend"] == "rows"
    assert others[1]["configuration"]["pack_tokens"] == "256"


@pytest.mark.parametrize("name", ["ours", "ours-memory", "ours-separate", "ours-checkpointing"])
def test_training_is_measured_from_its_second_step_on(name):
    report = measured(f"training {name}")
    assert report["pairs"] == 12
    assert report["useful_flops"] > 0


def test_a_reference_in_memory_is_asked_once_a_step_about_its_pairs():
    cell = CELLS["training ours-memory"]
    pairs = random_pairs(MIXES["hh"], 4, 512, 64)
    steps, reference = [pairs[:2], pairs[2:]], {}
    scorer = our_scorer(cell)
    clock = StepClock(steps, scorer, reference)
    for step in steps:
        for _ in range(3):  # batches
            assert not clock.stop_requested()
        assert list(reference)[-2:] == [pair.key for pair in step]
        clock.worked("training", 1.0, 1)
    clock.stop_requested()
    assert clock.scored == 2
    with torch.no_grad():
        (sum_of_one,) = scorer.logps([pairs[3].chosen]).tolist()
    assert reference[pairs[3].key].chosen == pytest.approx(sum_of_one, rel=1e-6)


def test_checks_hold_here():
    checks = [*attention_checks("cpu"), *head_checks("cpu"), *step_zero("cpu")]
    assert [check for check in checks if not check.ok] == []
    assert len(checks) > 20


def test_checks_find_attention_that_reads_a_sibling(monkeypatch):
    """The reference alone is told that the second response is part of the first one's prompt."""
    wrong = [*gpu_checks_attention.SEGMENTS]
    plain = gpu_checks_attention.plain_attention

    def of_other_segments(*arguments):
        monkeypatch.setattr(
            gpu_checks_attention, "SEGMENTS", [wrong[0], wrong[1], wrong[2]._replace(prefix_stop=80), *wrong[3:]]
        )
        try:
            return plain(*arguments)
        finally:
            monkeypatch.setattr(gpu_checks_attention, "SEGMENTS", wrong)

    monkeypatch.setattr(gpu_checks_attention, "plain_attention", of_other_segments)
    assert not any(check.ok for check in attention_checks("cpu"))


def test_a_check_is_held_against_its_limit():
    assert Check("", 1e-3, 1e-3).ok
    assert not Check("", 2e-3, 1e-3).ok
    assert not Check("", float("nan"), 1e-3).ok
    assert not Check("", "failed: RuntimeError", "to run").ok
    assert Check("", 5.0, None).ok


def test_no_peak_is_lost_between_samples():
    samples = [(0.001 * i, 7 * i % 5000) for i in range(10_000)]
    samples[4321] = (4.321, 10**9)
    few = thinned(samples)
    assert len(few) <= 1500
    assert max(used for _, used in few) == 10**9


def test_busy_time_counts_what_overlaps_once():
    assert busy_time([(0, 2), (1, 3), (6, 7), (6.5, 6.6)]) == (4, 7)


def entry(task, contender, seconds, model="8b", peak=100e9, **report):
    cell = asdict(CELLS["scoring ours"]) | {"task": task, "model": model, "mix": "ultrafeedback", "device": "cuda"}
    figures = {"pairs": 100, "useful_tokens": 1000, "useful_flops": 400e12, "rates": [700e12, 900e12]}
    figures |= {"peak_bytes": peak, "seconds": seconds, "seconds_to_first": 3.0}
    return {"cell": cell | {"contender": contender}, "made_by": {}, **(report or figures)}


DOCUMENT = {
    "cells": [
        *(entry("scoring", "ours", seconds) for seconds in (0.9, 1.0, 9.0)),
        *(
            entry("scoring", name, seconds)
            for name, seconds in (("trl-default", 2.0), ("trl-default-bs16-sorted", 1.6))
        ),
        entry("training", "ours-8bit", 4.0),
        entry("training", "ours-8bit-memory", 5.0, peak=120e9),
        entry("training", "trl-default-8bit", 20.0, error="out of memory"),
    ]
}


def test_tables_hold_figures_against_targets():
    """400 useful TFLOP in 1 s (the median) at a rate of 800: half. A million pairs at 100 a second: 2.78 hours."""
    results = Results(DOCUMENT)
    targets = {row[0]: row[1:] for row in target_rows(results)}
    assert targets["scoring 8b: 60% of the matrix rate"] == ["50%", "ours", "no"]
    assert targets["scoring 8b: 3.0x TRL's defaults"] == ["2.00x", "ours / trl-default", "no"]
    assert targets["scoring 8b: 1.5x TRL at its best"] == ["1.60x", "ours / trl-default-bs16-sorted", "yes"]
    assert targets["training 8b: 3.0x TRL's defaults"] == ["", "", "not measured"]
    assert targets["all of 8b is trained on 141 GB"] == ["100 GB", "ours-8bit", "yes"]
    assert list(hours_rows(results)) == [["8b", "ultrafeedback", "2.78", "11.11", "13.89", "11.14"]]
    assert list(reference_rows(results)) == [
        ["8b", "ultrafeedback", "ours-8bit", "in memory", "20.00", "120.00"],
        ["8b", "ultrafeedback", "ours-8bit", "stored", "25.00", "100.00"],
    ]
    (summary,) = summary_rows(results)
    assert summary[2:6] == ["100.0 pairs/s (ours)", "50%", "50.0 (2.00x)", "62.5 (1.60x) default-bs16-sorted"]
    ours, default, _ = cell_rows(results, "scoring", "8b")
    assert (ours[3], ours[5], ours[6], default[-1]) == ("100.00", "400", "50%", "2.00x")
    assert [result.errors for result in results.failed()] == [["out of memory"]]


def test_the_page_has_what_is_estimated():
    page = (ROOT / "docs/gpu.md").read_text()
    for row in [ESTIMATE_COLUMNS, *estimate_rows()]:
        assert f"| {' | '.join(row)} |" in page


@pytest.mark.real  # where TRL is installed
@pytest.mark.filterwarnings("ignore")  # its own, and of what it uses
@pytest.mark.parametrize("name", ["scoring trl-default", "training trl-default-memory", "training trl-best-bs2"])
def test_trl_is_measured_on_the_same_pairs(name):
    report = measured(name)
    assert report["pairs"] == 16
    if "scoring" in name:
        ours = measured("scoring ours")
        assert report["mean_logp"] == pytest.approx(ours["mean_logp"], abs=1e-3)
        assert report["useful_tokens"] == ours["useful_tokens"]
