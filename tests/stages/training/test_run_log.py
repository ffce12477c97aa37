"""metrics.jsonl: a line a step, of valid JSON, and none of what is done again."""

import json
import math

from stages.metrics.pairwise import PairScores
from stages.training.run_log import RunLog, step_metrics
from stages.training.step import StepResult


def test_lines_of_later_steps_and_torn_ones_are_taken_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    log = RunLog(path, 2)
    assert [line["step"] for line in log.earlier] == [1, 2]
    log.append({"step": 3, "loss": 0.5})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_lines_are_told_by_their_step_and_not_by_their_place(tmp_path):
    """A machine that lost its power may have lost lines, too."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": null}\n{"step": 4}\n{"step": 5}\n')
    log = RunLog(path, 4)
    log.close()
    assert log.earlier == [{"step": 1, "loss": None}, {"step": 4}]
    assert path.read_text() == '{"step": 1, "loss": null}\n{"step": 4}\n'


def test_what_a_checkpoint_vouches_for_is_durable(tmp_path, monkeypatch):
    synced = []
    log = RunLog(tmp_path / "metrics.jsonl", 0)
    log.append({"step": 1})
    monkeypatch.setattr("os.fsync", lambda file: synced.append((tmp_path / "metrics.jsonl").read_text()))
    log.flush()
    log.close()
    assert synced == ['{"step": 1}\n']


def test_what_is_not_finite_is_null(tmp_path):
    log = RunLog(tmp_path / "metrics.jsonl", 0)
    log.append({"step": 1, "loss": math.nan, "grad_norm": math.inf, "learning_rate": 0.0})
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": null, "grad_norm": null, "learning_rate": 0.0}\n'
    )


def test_sums_that_are_infinite_either_way_are_a_step_to_skip_and_no_bug():
    scores = [PairScores(-math.inf, -3.0, -2.0, -2.0), PairScores(-1.0, -math.inf, -2.0, -2.0)]
    metrics = step_metrics(StepResult([], [math.inf, 0.0], scores, [0.0, 0.0], 10), 0.5, rewards=True)
    assert math.isnan(metrics["rewards/margins"]) and metrics["rewards/accuracies"] == 0.5


def test_means_are_over_pairs_and_a_tie_is_one_half():
    scores = [PairScores(-1.0, -3.0, -2.0, -2.0), PairScores(-4.0, -2.0, -4.0, -2.0)]
    result = StepResult([], [0.25, 0.75], scores, [0.0, 0.0], 10)
    assert step_metrics(result, 0.5, rewards=True) == {
        "loss": 0.5,
        "rewards/chosen": 0.25,
        "rewards/rejected": -0.25,
        "rewards/margins": 0.5,
        "rewards/accuracies": 0.75,
        "logps/chosen": -2.5,
        "logps/rejected": -2.5,
    }
    assert step_metrics(result, 0.5, rewards=False).keys() == {"loss", "logps/chosen", "logps/rejected"}
