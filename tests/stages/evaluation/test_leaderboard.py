"""A leaderboard against the same, counted by hand from the pairs of each model."""

import json
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from stages.evaluation.leaderboard import Entry, Failure, leaderboard
from stages.metrics.preference import preference_metrics

N, PROMPTS = 60, 40


def pairs(seed: int, skill: float, *, reference: bool = True) -> pl.DataFrame:
    """N pairs, some of one prompt; with `skill` the margins are shifted."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(skill, 1.0, N).round(1)  # with ties
    policy, none = rng.normal(-20, 5, (2, N)), pl.Series([None] * N, dtype=pl.Float64)
    return pl.DataFrame(
        {
            "pair_key": [f"{i:03}" for i in range(N)],
            "row": range(N),
            "policy_chosen_logps": policy[0],
            "policy_rejected_logps": policy[1],
            "ref_chosen_logps": np.arange(N) * -1.0 if reference else none,
            "ref_rejected_logps": np.full(N, -10.5) if reference else none,
            "chosen_reward": margin if reference else none,
            "rejected_reward": np.zeros(N) if reference else none,
            "margin": margin if reference else none,
            "n_chosen": [5] * N,
            "n_rejected": [4] * N,
            "loss": rng.uniform(0, 1, N) if reference else none,
            "prompt_key": [f"p{i % PROMPTS}" for i in range(N)],
        }
    )


def entry(name: str, frame: pl.DataFrame, *, failed: bool = False) -> Entry:
    given = frame["margin"].null_count() == 0
    document = {
        "identity": f"identity of {name}",
        "policy": {"name": name, "id": f"id of {name}"},
        "measure": {"reference": "r" if given else None, "beta": 0.1, "objective": {"beta": 0.1} if given else None},
        "reference": {"name": "ref", "id": "r"} if given else None,
        "objective": "sigmoid",
        "beta": 0.1,
        "metrics": preference_metrics(frame),
        "n_pairs": N,
        "n_prompts": PROMPTS,
        "gates": [{"metric": "drift", "passed": not failed}],
        "verdict": "failed" if failed else "passed",
    }
    return Entry(name, f"evaluations/{name}", document, frame)


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    skills = {"good": 2.0, "better": 2.5, "poor": -0.5, "fair": 0.0}
    return [entry(name, pairs(i, skill), failed=name == "poor") for i, (name, skill) in enumerate(skills.items())]


def wins(frame: pl.DataFrame) -> list[float]:
    return [0.5 if margin == 0 else float(margin > 0) for margin in frame["margin"]]


def test_models_stand_in_the_order_of_their_reward_accuracy(entries):
    board = leaderboard(entries, [])
    found = {each.name: np.mean(wins(each.pairs)) for each in entries}
    assert [model["name"] for model in board["models"]] == sorted(found, key=lambda name: (-found[name], name))
    for model in board["models"]:
        assert model["metrics"]["reward_accuracy"] == pytest.approx(found[model["name"]])
        assert model["metrics"]["reward_accuracy_low"] < found[model["name"]] < model["metrics"]["reward_accuracy_high"]
    assert [model["failed_gates"] for model in board["models"] if model["verdict"] == "failed"] == [["drift"]]
    ranked = np.mean([chosen > -10.5 for chosen in np.arange(N) * -1.0])
    assert board["reference"]["metrics"]["ranking_accuracy"] == pytest.approx(ranked)


def test_every_two_models_are_compared_as_by_hand(entries):
    from scipy.stats import binomtest
    from statsmodels.stats.multitest import multipletests

    board = leaderboard(entries, [])
    by_name = {each.name: np.array(wins(each.pairs)) for each in entries}
    order = [model["name"] for model in board["models"]]
    assert [(test["first"], test["second"]) for test in board["tests"]] == list(combinations(order, 2))
    expected = []
    for test in board["tests"]:
        gaps = by_name[test["first"]] - by_name[test["second"]]
        assert test["difference"] == pytest.approx(gaps.mean()) and gaps.mean() >= 0
        assert (test["gained"], test["lost"]) == ((gaps > 0).sum(), (gaps < 0).sum())
        mcnemar = binomtest(int((gaps > 0).sum()), int((gaps != 0).sum())).pvalue
        assert test["mcnemar_p"] == pytest.approx(mcnemar)
        expected.append(max(mcnemar, test["clustered_p"]))
    apart, corrected, *_ = multipletests(expected, 0.05, method="holm")
    assert [test["holm_p"] for test in board["tests"]] == pytest.approx(list(corrected))
    assert [test["better"] is not None for test in board["tests"]] == list(apart)
    assert any(apart) and not all(apart)
    for model in board["models"]:
        above = sum(
            test["better"] not in (None, model["name"])
            for test in board["tests"]
            if model["name"] in (test["first"], test["second"])
        )
        below = sum(test["better"] == model["name"] for test in board["tests"])
        assert (model["rank_low"], model["rank_high"]) == (1 + above, len(order) - below)


def test_the_order_of_models_and_of_pairs_is_of_no_consequence(entries):
    failures = [Failure("x", None, "no", 2), Failure("a", "id", "no", 3)]
    other = [each._replace(pairs=each.pairs.reverse()) for each in entries[::-1]]
    one, again = leaderboard(entries, failures), leaderboard(other, failures[::-1])
    assert json.dumps(one) == json.dumps(again)
    assert [each["name"] for each in one["failed"]] == ["a", "x"]


def test_a_pair_that_stands_twice_is_one_proof(entries):
    doubled = [
        each._replace(pairs=pl.concat([each.pairs, each.pairs.with_columns(row=pl.col("row") + N)])) for each in entries
    ]
    assert leaderboard(doubled, [])["tests"] == leaderboard(entries, [])["tests"]


def test_level_models_stand_by_name():
    frame = pairs(0, 1.0)
    board = leaderboard([entry("b", frame), entry("a", frame)], [])
    assert [model["name"] for model in board["models"]] == ["a", "b"]
    assert {(model["rank_low"], model["rank_high"]) for model in board["models"]} == {(1, 2)}


def test_without_a_reference_rankings_count():
    frames = [pairs(seed, 0.0, reference=False) for seed in (1, 2)]
    board = leaderboard([entry("a", frames[0]), entry("b", frames[1])], [])
    assert board["metric"] == "ranking_accuracy" and board["reference"] is None
    assert board["objective"] is None and board["beta"] is None
    (test,) = board["tests"]
    won = [(frame["policy_chosen_logps"] > frame["policy_rejected_logps"]).mean() for frame in frames]
    assert test["difference"] == pytest.approx(max(won) - min(won))


def test_another_policy_pairs_or_failure_makes_another_leaderboard(entries):
    first = entries[0]
    other_policy = first._replace(document={**first.document, "policy": {"name": first.name, "id": "another"}})
    other_pairs = first._replace(document={**first.document, "identity": "of other pairs"})
    boards = [[first, *entries[1:]], [other_policy, *entries[1:]], [other_pairs, *entries[1:]], entries[:3]]
    found = {leaderboard(board, [])["identity"] for board in boards}
    found.add(leaderboard(entries, [Failure("x", None, "no", 2)])["identity"])
    assert len(found) == 5
