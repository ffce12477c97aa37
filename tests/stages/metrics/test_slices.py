"""Slices by hand, against plain Python, and of columns that hold anything."""

import math
from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.metrics.intervals import wilson
from stages.metrics.slices import SMALL, slices

BUILT_IN = ("source", "turns", "length", "score_gap")


def frame(n, reference=True, seed=0, **columns):
    """Pairs as pairs.parquet has them, with random scores, some of them ties; columns are given or drawn."""
    rng = np.random.default_rng(seed)
    policy, ref = rng.integers(-9, -1, (2, n)).astype(float), rng.integers(-9, -1, (2, n)).astype(float)
    own = {
        "prompt_key": [f"p{i}" for i in rng.integers(0, max(1, n // 2), n)],
        "n_prompt": rng.integers(3, 30, n),
        "n_chosen": rng.integers(1, 30, n),
        "n_rejected": rng.integers(1, 30, n),
        "turns": rng.integers(1, 7, n),
        "source": rng.choice(["a.jsonl", "b.jsonl", "c.jsonl"], n),
        "score_gap": pl.Series(rng.random(n)),
    }
    names = {name.replace("slice_", "slice:"): values for name, values in columns.items()}
    scores = {
        "policy_chosen_logps": policy[0],
        "policy_rejected_logps": policy[1],
        "ref_chosen_logps": ref[0] if reference else None,
        "ref_rejected_logps": ref[1] if reference else None,
        "margin": (policy[0] - ref[0] - policy[1] + ref[1]) if reference else pl.Series([None] * n, dtype=pl.Float64),
    }
    return pl.DataFrame(scores | own | names, strict=False)


def won(difference):
    return 0.5 if difference == 0 else float(difference > 0)


def brute(rows):
    """What a slice of these rows says."""
    shares = {
        "reward_accuracy": [won(row["margin"]) for row in rows],
        "ranking_accuracy": [won(row["policy_chosen_logps"] - row["policy_rejected_logps"]) for row in rows],
        "ref_ranking_accuracy": [won(row["ref_chosen_logps"] - row["ref_rejected_logps"]) for row in rows],
    }
    found = {"n": len(rows), "n_prompts": len({row["prompt_key"] for row in rows}), "small": len(rows) < 30}
    for name, wins in shares.items():
        found[name] = sum(wins) / len(wins)
        found[f"{name}_low"], found[f"{name}_high"] = wilson(sum(wins), len(wins))
    return found


def told(pairs, name):
    """Values and numbers of pairs of the slices by `name`."""
    return [(row["value"], row["n"]) for row in slices(pairs)[name]]


def column(*values, **options):
    return told(frame(len(values), slice_topic=pl.Series(values, **options)), "topic")


@pytest.mark.parametrize("seed", range(3))
def test_against_plain_python(seed):
    pairs = frame(150, seed=seed, slice_topic=np.random.default_rng(seed).choice(["x", "y"], 150))
    of = {"source": lambda row: row["source"], "turns": lambda row: str(row["turns"]) if row["turns"] < 4 else "4+"}
    of["topic"] = lambda row: row["slice:topic"]
    found = slices(pairs)
    for name, value in of.items():
        groups = defaultdict(list)
        for row in pairs.iter_rows(named=True):
            groups[value(row)].append(row)
        assert {row["value"]: row for row in found[name]} == {
            label: {"value": label} | brute(rows) for label, rows in groups.items()
        }
    for name, unit in (("length", " tokens"), ("score_gap", "")):
        rows = pairs.with_columns(length=pl.col("n_prompt") + pl.col("n_chosen")).sort(name).rows(named=True)
        assert len(found[name]) == 4 and sum(row["n"] for row in found[name]) == len(rows)
        for row in found[name]:
            inside, rows = rows[: row["n"]], rows[row["n"] :]
            low, high = inside[0][name], inside[-1][name]
            label = f"{low} to {high}" if unit else f"{low:.4g} to {high:.4g}"
            assert row == {"value": label + unit} | brute(inside)
            assert not rows or rows[0][name] > high


def test_the_order_of_pairs_is_of_no_consequence():
    pairs = frame(200, slice_topic=pl.Series([None, "a", "b", "c"] * 50), slice_score=np.arange(200) % 37)
    for seed in range(3):
        assert slices(pairs.sample(fraction=1, shuffle=True, seed=seed)) == slices(pairs)


def test_pairs_that_are_exchanged_are_the_mirror_image():
    pairs = frame(80)
    exchanged = {}
    for model in ("policy", "ref"):
        for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
            exchanged[f"{model}_{side}_logps"] = pl.col(f"{model}_{other}_logps")
    back = slices(pairs.with_columns(margin=-pl.col("margin"), **exchanged))
    for name, rows in slices(pairs).items():
        for row, other in zip(rows, back[name], strict=True):
            assert (row["value"], row["n"]) == (other["value"], other["n"])
            for share in ("reward_accuracy", "ranking_accuracy", "ref_ranking_accuracy"):
                assert row[share] == pytest.approx(1 - other[share])
                assert row[f"{share}_low"] == pytest.approx(1 - other[f"{share}_high"])


def test_slices_of_fewer_than_thirty_pairs_are_marked():
    pairs = frame(59, source=["a"] * 30 + ["b"] * 29)
    assert [(row["value"], row["small"]) for row in slices(pairs)["source"]] == [("a", False), ("b", True)]
    assert SMALL == 30


def test_without_a_reference_only_the_ranking_is_there():
    (row,) = slices(frame(5, reference=False, source=["a"] * 5))["source"]
    assert set(row) == {"value", "n", "n_prompts", "small"} | {f"ranking_accuracy{e}" for e in ("", "_low", "_high")}


def test_what_the_pairs_do_not_have_cuts_nothing():
    assert slices(frame(0)) == {}
    without = frame(40, score_gap=pl.Series([None] * 40, dtype=pl.Float64))
    assert set(slices(without)) == {"source", "turns", "length"}
    assert slices(frame(40).drop("source", "turns", "n_prompt", "score_gap")) == {}  # dev pairs


def test_few_pairs_are_cut_into_fewer_by_length():
    assert told(frame(3, n_prompt=[5, 5, 9], n_chosen=[1, 2, 3]), "length") == [("6 to 12 tokens", 3)]
    assert told(frame(3, n_prompt=[5] * 3, n_chosen=[1] * 3), "length") == [("6 tokens", 3)]


def test_turns_are_counted_up_to_three_and_in_their_order():
    assert told(frame(6, turns=[11, 4, 3, 1, 0, 1]), "turns") == [("0", 1), ("1", 2), ("3", 1), ("4+", 2)]


def test_a_column_has_its_most_frequent_values_first_then_the_others_then_what_is_missing():
    values = [f"v{i:02}" for i in range(23) for _ in range(i + 1)] + [None] * 7
    found = column(*values)
    assert found[:20] == [(f"v{i:02}", i + 1) for i in reversed(range(3, 23))]
    assert found[20:] == [("(other)", 1 + 2 + 3), ("(missing)", 7)]
    assert column("b", "a", None, "b", "a") == [("a", 2), ("b", 2), ("(missing)", 1)]  # as many: by the value
    assert column(None, None, dtype=pl.String) == [("(missing)", 2)]


def test_numbers_of_few_values_are_these_and_of_many_quartiles():
    assert column(10, 9, 10, None, 2) == [("2", 1), ("9", 1), ("10", 2), ("(missing)", 1)]
    assert column(0.5, 0.25, 0.5) == [("0.25", 1), ("0.5", 2)]
    many = [*range(40), None]
    assert column(*many) == [
        ("0 to 9", 10), ("10 to 19", 10), ("20 to 29", 10), ("30 to 39", 10), ("(missing)", 1),
    ]  # fmt: skip
    assert column(*(str(value) for value in range(40))) == column(*range(40))  # in CSV numbers are texts
    assert len(column(*(f"{value}x" for value in range(40)))) == 21


def test_numbers_that_are_close_are_told_apart():
    found = column(*(1 + i * 1e-9 for i in range(40)))
    assert found[0] == (f"1.0 to {1 + 9e-9}", 10) and len({value for value, _ in found}) == 4


def test_what_is_not_a_number_is_missing_and_infinity_is_a_number():
    assert column(math.nan, 1.0, math.inf) == [("1.0", 1), ("inf", 1), ("(missing)", 1)]
    assert column(*map(float, range(39)), math.inf, math.nan)[-2:] == [("30 to inf", 10), ("(missing)", 1)]


def test_values_called_as_what_has_none_and_long_ones_keep_slices_of_their_own():
    assert column("(missing)", "(missing)", None) == [("(missing)", 2), ("((missing))", 1)]
    long = ["x" * 100_000 + end for end in "ab"]
    found = column(*long)
    assert [n for _, n in found] == [1, 1] and all(len(value) <= 203 for value, _ in found)
    assert found[0][0] != found[1][0]


def test_a_column_called_as_another_slice_stands_beside_it():
    pairs = frame(4, source=["a.jsonl"] * 4, slice_source=["web", "book", "web", "web"])
    assert told(pairs, "source") == [("a.jsonl", 4)]
    assert told(pairs, "slice:source") == [("web", 3), ("book", 1)]


HOSTILE = st.text() | st.none() | st.sampled_from(["\u202eevil", "(other)", "(missing)", "<script>", "", "\n", "1e999"])


@given(st.lists(HOSTILE, min_size=1, max_size=60) | st.lists(st.floats() | st.none(), min_size=1, max_size=60))
def test_every_pair_is_in_one_slice_and_every_value_is_told_apart(values):
    kind = pl.String if any(isinstance(value, str) for value in values) else pl.Float64
    found = column(*values, dtype=kind)
    assert sum(n for _, n in found) == len(values)
    assert len({value for value, _ in found}) == len(found) <= 22
