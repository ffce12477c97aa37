"""The table, for a terminal and for Markdown, and what is said under it."""

from dataclasses import replace

import pytest

from pipeline.chain import Options, run_command
from pipeline.sweep.comparison import RunResult
from pipeline.sweep.table import markdown, sweep_summary
from stages.job import JobReport
from stages.training.config import TrainConfig
from tests.pipeline.sweep.results import document, done
from tests.tiny import unchanged_process

TWO = (done("sigmoid", 0.05, 0.7, 0.0312), done({"sigmoid": 0.8, "ipo": 0.2}, 0.3, 0.725, 0.125))
FAILED = RunResult(TrainConfig(beta=0.9), ["train.beta=0.9"], "run1", "failed", "The loss is nan.")


def test_columns_are_aligned():
    lines = sweep_summary(document(*TWO)).splitlines()
    assert lines[:4] == [
        "Sweep: reward accuracy on 200 dev pairs and 200 held-out pairs",
        "   objective              beta  learning rate  seeds    dev  held-out   95 % interval   drift",
        "   sigmoid                0.05          1e-06      1  0.700     0.700  0.633 to 0.759  0.0312",
        "*  0.8 sigmoid + 0.2 ipo   0.3          1e-06      1  0.725     0.725  0.659 to 0.782  0.1250",
    ]


def test_the_last_words_are_the_options_of_the_chosen_run_as_a_shell_takes_them():
    text = sweep_summary(document(*TWO))
    assert text.endswith(
        "Run run0 was chosen; with the same --config: pipeline run --set train.beta=0.3 "
        "--set 'train.objective={sigmoid: 0.8, ipo: 0.2}'"
    )


@pytest.mark.parametrize("written", [markdown, sweep_summary])
def test_what_the_choice_went_by_is_said_under_the_table(written):
    text = " ".join(written(document(*TWO)).split())
    assert (
        "The choice (*) was made on the dev pairs, so the held-out figure of the chosen setting is not biased by it, "
        "while the best held-out figure, read off this table, would be." in text
    )
    assert "The noise of seeds is not known: it takes two seeds or more (sweep.seed)." in text
    assert "Drift is the mean of |log pi - log ref| a token on held-out pairs, in nats." in text


def test_the_noise_of_seeds_is_told():
    """Two seeds at 0.7 and 0.8: a standard deviation of 0.0707."""
    text = markdown(document(done("ipo", 0.1, 0.7, 0.1), done("ipo", 0.1, 0.8, 0.1, seed=1)))
    assert "Seeds of one setting differ in held-out reward accuracy by a standard deviation of 0.071; " in text
    assert "0.0123 is more than single pairs explain, and what gates have to allow for (eval.seed_sd)." in text


def test_markdown():
    text = markdown(document(*TWO))
    assert "\n| * | 0.8 sigmoid + 0.2 ipo | 0.3 | 1e-06 | 1 | 0.725 | 0.725 | 0.659 to 0.782 | 0.1250 |\n" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and {row.count("|") for row in rows} == {10}
    assert text.endswith("\n    pipeline run --set train.beta=0.3 --set 'train.objective={sigmoid: 0.8, ipo: 0.2}'\n")


def test_runs_that_failed_are_named_and_those_to_come_are_counted():
    text = sweep_summary(document(TWO[0], FAILED, replace(FAILED, train=TrainConfig(beta=1.0), status="pending")))
    assert "  sigmoid     0.9          1e-06  0 of 1\n" in text
    assert "1 of 3 runs are finished; the choice is made when none is left to come." in text
    assert "failed: train.beta=0.9: The loss is nan." in text and "pipeline run" not in text
    assert "No setting is finished with all of its seeds, so none is chosen." in sweep_summary(document(FAILED))


def test_without_a_reference_the_drift_is_empty():
    line = sweep_summary(document(done("naive", 0.1, 0.7, None), metric="ranking_accuracy")).splitlines()[2]
    assert line.endswith("0.633 to 0.759")


def test_a_large_grid_is_shown_whole(monkeypatch, capsys):
    """A message has its limit; a table has none."""
    many = document(*(done("sigmoid", i, 0.7, 0.1) for i in range(1, 101)))
    monkeypatch.setitem(__import__("pipeline.chain").chain.JOBS, "sweep", lambda _: JobReport("sweep", details=many))
    monkeypatch.setattr("pipeline.chain.load_config", lambda *_: None)
    with unchanged_process():
        assert run_command("sweep", Options(None, (), False, False, True, 0)) == 0
        run_command("sweep", Options(None, (), False, False, False, 0))
    out = capsys.readouterr().out
    assert out.count("0.633 to 0.759") == 100 and out.endswith(" pipeline run --set train.beta=1\n")
