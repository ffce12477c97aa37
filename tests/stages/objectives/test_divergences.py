"""Scores of f-divergences: by hand, by differentiating f, and where they meet."""

import math

import pytest
import torch

from stages.objectives.divergences import divergence_score
from tests.stages.objectives.pairs import by_hand

X = torch.linspace(-5, 5, 41, dtype=torch.float64)
# f(u) with E_ref f(pi/ref) the divergence (arXiv 2309.16240, table 1); scores are f' up to a constant that cancels in D
GENERATORS = {
    "reverse_kl": lambda u: u * u.log(),
    "forward_kl": lambda u: -u.log() + u,
    "js_divergence": lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
    "alpha_divergence": lambda u: (u**0.5 - 0.5 * u - 0.5) / (0.5 * (0.5 - 1)),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_scores_are_the_derivative_of_the_divergence_but_for_a_constant(name):
    u = X.exp().requires_grad_()
    GENERATORS[name](u).sum().backward()
    difference = divergence_score(X, name, None) - u.grad
    assert float(difference.max() - difference.min()) < 1e-9


def test_scores_by_hand():
    """At x = 0.5: 1 - e^-0.5 = 0.393469; ln 2 + log s(0.5) = 0.219070; a = 0.5: (e^-0.25 - 1) / -0.5 = 0.442398."""
    x = torch.tensor([0.5], dtype=torch.float64)
    assert float(divergence_score(x, "forward_kl", None)) == pytest.approx(0.393469, abs=1e-6)
    assert float(divergence_score(x, "js_divergence", None)) == pytest.approx(0.219070, abs=1e-6)
    assert float(divergence_score(x, "alpha_divergence", 0.5)) == pytest.approx(0.442398, abs=1e-6)
    assert float(divergence_score(x, "reverse_kl", None)) == 0.5


@pytest.mark.parametrize("alpha", [1.0, 1 - 1e-9, 1 + 1e-9])
def test_alpha_tends_to_the_log_ratio(alpha):
    torch.testing.assert_close(divergence_score(X, "alpha_divergence", alpha), X, atol=1e-6, rtol=0)


def test_alpha_of_0_is_forward_kl():
    torch.testing.assert_close(divergence_score(X, "alpha_divergence", 0.0), divergence_score(X, "forward_kl", None))


def test_the_difference_of_scores_takes_the_place_of_d():
    """c = 2, r = -1: forward KL (1 - e^-2) - (1 - e^1) = e - e^-2 = 2.582947; -log s(0.5 * that) = 0.242572."""
    expected = math.log(1 + math.exp(-0.5 * (math.e - math.exp(-2))))
    assert by_hand("sigmoid", beta=0.5, f_divergence_type="forward_kl") == pytest.approx(expected)
    assert by_hand("sigmoid", beta=0.5, f_divergence_type="reverse_kl") == by_hand("sigmoid", beta=0.5)
