"""What `pipeline train` says at the end of a run."""

import pytest

from pipeline.summary import summary
from stages.job import JobReport


def document(**details):
    report = JobReport("train", pairs=320, tokens=50_000, seconds=10.0, outputs={"policy": "runs/a/policy"})
    return JobReport(**{**vars(report), "details": details}).document()


def test_beginning_and_end_stand_below_one_another():
    first = {"steps": 20, "loss": 0.69123, "rewards/accuracies": 0.5, "rewards/margins": 0.0123}
    last = {"steps": 20, "loss": 0.41, "rewards/accuracies": 0.8125, "rewards/margins": 12.5}
    assert summary(document(first_steps=first, last_steps=last)).splitlines() == [
        "train: 320 pairs, 10.0 s, 5,000 tokens/s; runs/a/policy",
        "  mean of              loss   accuracy     margin",
        "  first 20 steps     0.6912      0.500     +0.012",
        "  last 20 steps      0.4100      0.812    +12.500",
    ]


def test_an_objective_without_a_reference_has_a_loss_only():
    text = summary(document(first_steps={"steps": 2, "loss": 3.0}, last_steps={"steps": 2, "loss": 2.0}))
    assert text.splitlines()[1:] == [
        "  mean of             loss",
        "  first 2 steps     3.0000",
        "  last 2 steps      2.0000",
    ]


def test_where_nothing_was_trained_there_is_no_table():
    assert summary(document()) == "train: 320 pairs, 10.0 s, 5,000 tokens/s; runs/a/policy"


@pytest.mark.parametrize(
    ("last", "end"), [(24, ""), (8, "; training ended early, after step 8 of 24")], ids=["to the last step", "early"]
)
def test_where_dev_pairs_chose_it_says_which_step_the_policy_is(last, end):
    means = {"steps": 2, "loss": 3.0}
    text = summary(document(first_steps=means, last_steps=means, best_step=2, last_step=last, steps_total=24))
    assert text.splitlines()[-1] == f"  the policy is that of step 2, the best on dev pairs{end}"


@pytest.mark.parametrize(("n_bytes", "said"), [(999_900_000, "999.9 MB"), (5_380_600_000, "5.38 GB")])
def test_a_dry_run_tells_disk_in_megabytes_and_from_a_thousand_on_in_gigabytes(n_bytes, said):
    report = JobReport("train", "dry_run", pairs=2, tokens=10, details={"steps_total": 1, "disk_bytes": n_bytes})
    assert summary(report.document()).splitlines()[-1] == f"  about {said} of disk"


def test_a_margin_of_two_digits_stands_below_the_accuracies():
    metrics = {"reward_accuracy": 1.0, "reward_accuracy_low": 0.8, "reward_accuracy_high": 1.0, "loss": 0.1}
    metrics |= {"reward_margin": 12.263, "reward_margin_median": 11.977}
    report = JobReport("eval", details={"metrics": metrics, "n_pairs": 18, "comparisons": [], "gates": []})
    lines = summary(report.document()).splitlines()
    assert {line.index(n) + len(n) for line, n in zip(lines[1:], ("1.000", "+12.263", "0.100"), strict=True)} == {44}
