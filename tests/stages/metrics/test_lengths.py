"""Length controls by hand, against plain Python and statsmodels, and where a policy goes by length alone."""

import math
from fractions import Fraction
from itertools import groupby

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from statsmodels.stats.proportion import proportion_confint

from stages.metrics.intervals import wilson
from stages.metrics.lengths import length_metrics, length_strata

PAIRS = st.lists(
    st.tuples(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0]), st.integers(1, 12), st.integers(1, 12)),
    min_size=1,
    max_size=80,
)
SHARES = ("chosen_longer", "chosen_shorter", "equal_length")


def frame(rows):
    """Pairs (margin, n_chosen, n_rejected)."""
    kinds = {"margin": pl.Float64, "n_chosen": pl.Int32, "n_rejected": pl.Int32}
    keys = pl.Series("prompt_key", [f"p{i}" for i in range(len(rows))], pl.String)
    return pl.DataFrame(rows, schema=kinds, orient="row").with_columns(keys)


def won(margin):
    return Fraction(1, 2) if margin == 0 else Fraction(int(margin > 0))


def share(rows):
    return float(sum(won(margin) for margin, *_ in rows) / len(rows))


def brute_sides(rows):
    """The pairs of each of SHARES."""
    kinds = {"chosen_longer": 1, "chosen_shorter": -1, "equal_length": 0}
    sign = {name: [r for r in rows if (r[1] > r[2]) - (r[1] < r[2]) == kind] for name, kind in kinds.items()}
    return {name: found for name, found in sign.items() if found}


def brute_strata(rows, of):
    """Rows in strata of `of(row)`: sorted, cut before the value at each fifth, whole runs of one value together."""
    wanted = max(1, min(5, len(rows) // 10))
    values = sorted(of(row) for row in rows)
    cuts = {values[len(rows) * i // wanted] for i in range(1, wanted)} - {values[0]} if rows else set()
    ordered = sorted(rows, key=of)
    return [list(group) for _, group in groupby(ordered, key=lambda row: sum(of(row) >= cut for cut in cuts))]


def brute_matched(rows):
    """Accuracy of the draw, as its expectation: (accuracy, weights of the pairs)."""
    drawn = [(Fraction(1), row) for row in rows if row[1] == row[2]]
    unequal = [row for row in rows if row[1] != row[2]]
    for stratum in brute_strata(unequal, lambda row: abs(row[1] - row[2])):
        longer = [row for row in stratum if row[1] > row[2]]
        shorter = [row for row in stratum if row[1] < row[2]]
        n = min(len(longer), len(shorter))
        drawn += [(Fraction(n, len(side)), row) for side in (longer, shorter) if n for row in side]
    total = sum(weight for weight, _ in drawn)
    if not total:
        return None
    accuracy = float(sum(weight * won(row[0]) for weight, row in drawn) / total)
    return accuracy, float(total**2 / sum(weight**2 for weight, _ in drawn))


def spearman(rows):
    """Pearson's correlation of ranks, written out."""
    ranks = [rankdata([row[0] for row in rows]), rankdata([row[1] - row[2] for row in rows])]
    x, y = ([2 * rank - len(rows) - 1 for rank in side] for side in ranks)
    norm = math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / norm if norm else None


def test_by_hand():
    rows = [(1.0, 9, 4), (-1.0, 7, 2), (0.0, 8, 3), (2.0, 3, 8), (1.0, 5, 5)]
    metrics = length_metrics(frame(rows))
    assert metrics["length_baseline"] == (3 + 0.5) / 5
    assert metrics["reward_accuracy_chosen_longer"] == 0.5
    assert metrics["reward_accuracy_chosen_shorter"] == metrics["reward_accuracy_equal_length"] == 1
    # one stratum (|difference| is 5): the one shorter pair, one of the three longer ones, and the one of equal length
    assert metrics["reward_accuracy_length_matched"] == pytest.approx((1 + 0.5 + 1) / 3)
    effective = 9 / (1 + 3 * (1 / 3) ** 2 + 1)
    low, high = proportion_confint(5 / 6 * effective, effective, method="wilson")
    assert metrics["reward_accuracy_length_matched_low"] == pytest.approx(low)
    assert metrics["reward_accuracy_length_matched_high"] == pytest.approx(high)


@given(PAIRS)
def test_against_plain_python(rows):
    metrics, sides, matched = length_metrics(frame(rows)), brute_sides(rows), brute_matched(rows)
    expected = {"length_baseline": float(sum(won(row[1] - row[2]) for row in rows) / len(rows))}
    for name, (found, n) in (
        {f"reward_accuracy_{name}": (share(found), len(found)) for name, found in sides.items()}
        | ({"reward_accuracy_length_matched": matched} if matched else {})
    ).items():
        low, high = proportion_confint(found * n, n, method="wilson")
        expected |= {name: found, f"{name}_low": low, f"{name}_high": high}
    if (correlation := spearman(rows)) is not None:
        expected["margin_length_correlation"] = correlation
    assert metrics == pytest.approx(expected, abs=1e-9)


@given(PAIRS)
def test_strata_against_plain_python(rows):
    found = length_strata(frame(rows))
    expected = brute_strata(rows, lambda row: row[1] - row[2])
    assert [(row["low"], row["high"], row["n"]) for row in found] == [
        (min(c - r for _, c, r in stratum), max(c - r for _, c, r in stratum), len(stratum)) for stratum in expected
    ]
    for row, stratum in zip(found, expected, strict=True):
        interval = row["reward_accuracy_low"], row["reward_accuracy_high"]
        assert row["reward_accuracy"] == share(stratum)
        assert interval == pytest.approx(wilson(share(stratum) * len(stratum), len(stratum)))


@given(PAIRS, st.randoms())
def test_order_changes_no_bit(rows, rng):
    metrics, found = length_metrics(frame(rows)), length_strata(frame(rows))
    rng.shuffle(rows)
    assert length_metrics(frame(rows)) == metrics and length_strata(frame(rows)) == found


@given(PAIRS)
def test_every_pair_exchanged_is_the_mirror_image(rows):
    """Chosen and rejected exchanged, and with them margins and lengths."""
    there, back = length_metrics(frame(rows)), length_metrics(frame([(-m, r, c) for m, c, r in rows]))
    assert there.keys() == {
        name.replace("longer", "other").replace("shorter", "longer").replace("other", "shorter") for name in back
    }
    for name, other in [("chosen_longer", "chosen_shorter"), ("equal_length",) * 2, ("length_matched",) * 2]:
        if f"reward_accuracy_{name}" in there:
            assert there[f"reward_accuracy_{name}"] == pytest.approx(1 - back[f"reward_accuracy_{other}"])
            assert there[f"reward_accuracy_{name}_low"] == pytest.approx(1 - back[f"reward_accuracy_{other}_high"])
    assert there["length_baseline"] == pytest.approx(1 - back["length_baseline"])
    name = "margin_length_correlation"
    assert there.get(name, 0) == pytest.approx(back.get(name, 0))


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=200), st.booleans())
def test_a_policy_that_goes_by_length_alone_has_one_half_once_length_is_matched(lengths, likes_long):
    sign = 0.1 if likes_long else -0.1
    metrics = length_metrics(frame([(sign * (c - r), c, r) for c, r in lengths]))
    assert metrics.get("reward_accuracy_length_matched", 0.5) == pytest.approx(0.5)


def test_a_policy_that_knows_more_than_length_keeps_it():
    """Right in 80 % of the pairs whatever their lengths, on data where nine of ten chosen responses are longer."""
    rng = np.random.default_rng(0)
    rows = [(1.0 if rng.random() < 0.8 else -1.0, *((20, 9) if rng.random() < 0.9 else (9, 20))) for _ in range(4000)]
    metrics = length_metrics(frame(rows))
    assert metrics["length_baseline"] == pytest.approx(0.9, abs=0.02)
    assert metrics["reward_accuracy_length_matched_low"] < 0.8 < metrics["reward_accuracy_length_matched_high"]


def test_without_a_reference_only_the_baseline_is_there():
    rows = [(None, 3, 2), (None, 2, 3), (None, 4, 1), (None, 1, 1)]
    assert length_metrics(frame(rows)) == {"length_baseline": 2.5 / 4}
    assert length_strata(frame(rows)) == []


def test_what_the_pairs_do_not_give_is_absent():
    assert length_metrics(frame([])) == {} and length_strata(frame([])) == []
    longer = length_metrics(frame([(0.5, 4, 1), (0.7, 4, 1)]))
    assert set(longer) == {
        "length_baseline", *(f"reward_accuracy_chosen_longer{end}" for end in ("", "_low", "_high")),
    }  # fmt: skip
    assert "margin_length_correlation" not in length_metrics(frame([(0.5, 4, 1), (0.5, 1, 1)]))
