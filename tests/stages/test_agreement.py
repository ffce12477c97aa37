"""How far apart two scorings are, and how far they may be."""

from itertools import pairwise

import numpy as np
import pytest

from stages.agreement import agreement, agrees, in_words, limit_in_words, spread


def test_the_figures_are_those_of_the_differences():
    figures = agreement([-10.0, -20.0, -30.0], [-10.0, -20.4, -29.1], [1, 4, 9])
    assert figures == pytest.approx(
        {
            "responses": 3,
            "max_abs": 0.9,
            "rms_per_root_token": np.sqrt((0 + 0.16 / 4 + 0.81 / 9) / 3),
            "max_per_root_token": 0.3,
            "mean_per_token": (0 - 0.1 + 0.1) / 3,
        }
    )
    assert "up to 0.9 nats apart" in in_words(figures)


@pytest.mark.parametrize(
    ("d", "n", "dtype", "passes"),
    [
        (1e-3 - 1e-9, 1, "float32", True),
        (1.1e-3, 1000, "float32", False),
        (0.05, 1, "bfloat16", True),
        (0.5, 1, "bfloat16", False),
        (1.0, 400, "bfloat16", True),
        (float("nan"), 1, "bfloat16", False),
        (float("nan"), 1, "float32", False),
        (float("inf"), 1, "float32", False),
    ],
)
def test_what_rounding_explains_passes(d, n, dtype, passes):
    assert agrees(agreement([0.0], [-d], [n]), dtype) is passes
    assert dtype in limit_in_words(dtype)


def test_many_small_differences_in_bf16_fail_where_one_would_not():
    one, many = (
        agreement(np.zeros(100), [-0.3] + [0.0] * 99, [1] * 100),
        agreement([0.0] * 100, [-0.3] * 100, [1] * 100),
    )
    assert agrees(one, "bfloat16") and not agrees(many, "bfloat16")


def test_a_sample_spans_everything():
    assert spread([1, 2], 5) == [1, 2]
    sample = spread(range(700), 64)
    assert len(set(sample)) == 64 and sample[0] == 0 and sample[-1] == 699
    assert max(b - a for a, b in pairwise(sample)) <= 12
