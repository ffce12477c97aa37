"""What `pipeline train` says at the end of a run."""

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
