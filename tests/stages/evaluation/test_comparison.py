"""Two evaluations beside each other: joined by key, and refused where they are not of the same kind."""

import json
import random

import numpy as np
import polars as pl
import pytest

from data.errors import ConfigError, StoreError
from data.parquet import parquet_bytes
from stages.evaluation.comparison import check_comparable, compare, compare_with_reference
from stages.evaluation.config import EvalConfig
from stages.evaluation.others import Other
from stages.metrics.pairwise import PairScores
from stages.metrics.preference import METRICS_VERSION
from stages.metrics.records import records_frame, scores_digest
from stages.metrics.values import pair_values
from tests.stages.metrics.frames import record

MEASURE = {"reference": "r", "beta": 0.1, "objective": {"objective": "sigmoid"}}


def evaluated(seed, rows=range(60), shift=0.0):
    """Pairs whose keys and reference are those of their rows, under a policy of this seed."""
    records = []
    for row in rows:
        rng = random.Random(row)
        reference = [rng.uniform(-60, -20) for _ in range(2)]
        own = random.Random(f"{seed} {row}")
        policy = [reference[0] + own.gauss(1 + shift, 2), reference[1] + own.gauss(0, 2)]
        records.append(record(row, PairScores(*policy, *reference), prompt=f"prompt{row // 2}"))
    return records_frame(records, 0.1)


def write_pairs(folder, pairs, identity):
    table = pairs.to_arrow().replace_schema_metadata({"evaluation": identity})
    (folder / "pairs.parquet").write_bytes(parquet_bytes(table))


@pytest.fixture
def folder(tmp_path):
    def write(pairs, name="base", **changes):
        path = tmp_path / name / "eval"
        path.mkdir(parents=True)
        versions = {"schema_version": 2, "metrics_version": METRICS_VERSION}
        document = versions | {"identity": name, "measure": MEASURE, "scores_digest": scores_digest(pairs)} | changes
        (path / "metrics.json").write_text(json.dumps(document))
        write_pairs(path, pairs, name)
        return path

    return write


def baseline(*folders):
    return Other("baseline", "base", folders)


def config(**settings):
    return EvalConfig.model_validate({"baseline": "base", **settings})


def test_pairs_are_joined_by_key_whatever_their_order(folder):
    before, after = evaluated(1), evaluated(2)
    found = compare(after, MEASURE, baseline(folder(before.sample(fraction=1.0, shuffle=True, seed=3))), config())
    for metric in ("reward_accuracy", "ranking_accuracy", "reward_margin", "loss"):
        expected = pair_values(after, metric) - pair_values(before, metric)  # row by row: the frames were made alike
        assert found[metric].found.difference == pytest.approx(expected.mean())
        assert found[metric].found.lost == np.count_nonzero(expected < 0)
    assert found["loss"].found.n == 60 and found["loss"].found.n_prompts == 30 and found["loss"].overlap == 1.0


def test_on_data_that_have_grown_the_shared_pairs_are_compared(folder):
    found = compare(evaluated(2, range(66)), MEASURE, baseline(folder(evaluated(1))), config())
    alone = compare(evaluated(2), MEASURE, baseline(folder(evaluated(1), "again")), config())
    assert found["reward_accuracy"].found == alone["reward_accuracy"].found
    assert found["reward_accuracy"].overlap == pytest.approx(60 / 66)


def test_a_pair_that_stands_twice_counts_once(folder):
    twice = pl.concat([evaluated(2), evaluated(2).head(10)])
    found = compare(twice, MEASURE, baseline(folder(evaluated(1))), config())
    assert found["loss"].found.n == 60


@pytest.mark.parametrize(("rows", "shared"), [(range(50, 110), 10), (range(60, 120), 0), (range(200), 60)])
def test_other_pairs_are_never_passed(folder, rows, shared):
    other = baseline(folder(evaluated(1)))
    own = evaluated(2, rows)
    with pytest.raises(ConfigError) as raised:
        compare(own, MEASURE, other, config())
    message = str(raised.value)
    assert f"of its 60 pairs and the {len(rows)} of this evaluation {shared} are shared" in message
    assert "eval.min_overlap is 0.8" in message and "Nothing passes on so few" in message
    with pytest.raises(ConfigError, match="was evaluated on other pairs"):
        check_comparable(own["pair_key"], MEASURE, other, config())


def test_not_one_shared_pair_is_never_enough(folder):
    with pytest.raises(ConfigError, match="0 are shared"):
        compare(evaluated(2, range(60, 120)), MEASURE, baseline(folder(evaluated(1))), config(min_overlap=1e-9))


@pytest.mark.parametrize(
    ("there", "metric", "what"),
    [
        ({"reference": "another"}, "reward_accuracy", "reference"),
        ({"beta": 0.2}, "reward_margin", "beta"),
        ({"objective": {"objective": "ipo"}}, "loss", "objective"),
    ],
)
def test_a_metric_that_means_something_else_there_is_refused_with_a_limit_and_left_out_without(
    folder, there, metric, what
):
    other = baseline(folder(evaluated(1), measure=MEASURE | there))
    limited = config(max_drop={metric: 0.0})
    for check in (
        lambda: compare(evaluated(2), MEASURE, other, limited),
        lambda: check_comparable(evaluated(2)["pair_key"], MEASURE, other, limited),
    ):
        with pytest.raises(ConfigError, match=f"cannot be held against this evaluation in {metric}: its {what} is not"):
            check()
    found = compare(evaluated(2), MEASURE, other, config())
    assert metric not in found and "ranking_accuracy" in found


def test_what_is_missing_or_damaged_is_an_error_that_names_it(folder, tmp_path):
    own = evaluated(2)
    with pytest.raises(ConfigError, match=r"There is no evaluation in .*nowhere.*Nothing passes without it"):
        compare(own, MEASURE, baseline(tmp_path / "nowhere"), config())
    path = folder(evaluated(1))
    (path / "pairs.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"pairs.parquet cannot be read"):
        compare(own, MEASURE, baseline(path), config())
    write_pairs(path, evaluated(1).head(7), "base")
    with pytest.raises(StoreError, match=r"does not hold the scores that metrics.json beside it was made of"):
        compare(own, MEASURE, baseline(path), config())
    (path / "pairs.parquet").unlink()
    with pytest.raises(StoreError, match=r"is not whole: pairs.parquet is missing"):
        compare(own, MEASURE, baseline(path), config())
    (path / "metrics.json").write_text("{")
    with pytest.raises(StoreError, match="is not what an evaluation writes"):
        compare(own, MEASURE, baseline(path), config())


def test_scores_of_another_policy_than_was_judged_are_compared_with_nothing(folder):
    """As an evaluation leaves them that was stopped between its scores and its verdict."""
    path = folder(evaluated(1))
    write_pairs(path, evaluated(3), "another")
    with pytest.raises(StoreError, match=r"pairs.parquet is of another evaluation than metrics.json beside it"):
        compare(evaluated(2), MEASURE, baseline(path), config())
    newer = folder(evaluated(1), "newer", schema_version=3)
    with pytest.raises(ConfigError, match=r"another version of this program \(schema_version 3 instead of 2\)"):
        compare(evaluated(2), MEASURE, baseline(newer), config())


def test_a_reference_that_is_not_there_gives_no_figure_to_compare_with(folder):
    """Only the baseline was evaluated without one: its column of the reference's log-probs is empty."""
    alone = evaluated(1).with_columns(
        pl.lit(None, pl.Float64).alias(f"ref_{side}_logps") for side in ("chosen", "rejected")
    )
    path = folder(alone, measure=MEASURE | {"reference": None})
    with pytest.raises(ConfigError, match="in ref_ranking_accuracy: its reference is not the same"):
        compare(evaluated(2), MEASURE, baseline(path), config(max_drop={"ref_ranking_accuracy": 0.1}))


def test_of_several_evaluations_the_mean_of_each_pair_is_compared(folder):
    others = [evaluated(seed) for seed in (1, 3, 4)]
    several = baseline(*(folder(each, f"run{i}") for i, each in enumerate(others)))
    found = compare(evaluated(2), MEASURE, several, config())["reward_accuracy"]
    before = np.mean([pair_values(each, "reward_accuracy") for each in others], axis=0)
    assert found.found.before == pytest.approx(before.mean()) and found.n_before == 3
    one = compare(evaluated(2), MEASURE, baseline(folder(others[0], "alone")), config())["reward_accuracy"]
    assert found.found.standard_error < one.found.standard_error
    assert found.document(0.0)["mcnemar_p"] is None and one.document(0.0)["mcnemar_p"] is not None


def test_the_reference_is_compared_as_a_ranker_of_the_same_pairs():
    pairs = evaluated(2, shift=20.0)
    plain, normalized = compare_with_reference(pairs)
    assert plain.found.before == pytest.approx(pair_values(pairs, "ref_ranking_accuracy").mean())
    assert plain.found.after == pytest.approx(pair_values(pairs, "ranking_accuracy").mean())
    assert plain.document(0.0)["verdict"] == "better" and normalized.metric == "ranking_accuracy_normalized"


def test_the_document_says_which_way_and_what_cannot_be_seen(folder):
    other = baseline(folder(evaluated(1)))
    found = compare(evaluated(2, shift=-4.0), MEASURE, other, config())["reward_accuracy"]
    document, noisy = found.document(0.0), found.document(0.3)
    assert document["verdict"] == "worse" and document["high"] < 0
    assert noisy["verdict"] == "inconclusive" and noisy["low"] < document["low"]
    assert document["bootstrap_low"] == pytest.approx(document["low"], abs=0.05)
    assert noisy["detectable"] > document["detectable"] > 0
