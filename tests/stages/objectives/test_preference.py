"""The losses: worked examples by hand, gradients, and the promise that no parameter is ignored."""

import math

import pytest
import torch

from stages.objectives.preference import implicit_rewards, preference_loss


def loss(policy: tuple[float, float], reference: tuple[float, float], **parameters) -> float:
    tensors = [torch.tensor([value], dtype=torch.float64) for value in (*policy, *reference)]
    counts = torch.tensor([5]), torch.tensor([5])
    return float(preference_loss("sigmoid", *tensors, *counts, **parameters))


@pytest.mark.parametrize(("beta", "expected"), [(0.5, 0.55436), (0.1, 0.66360), (1.0, 0.43749)])
def test_worked_example_one(beta, expected):
    """D = (-2.3 + 2.5) - (-4.2 + 3.8) = 0.2 + 0.4 = 0.6.

    loss = ln(1 + exp(-0.6 beta)): ln(1 + e^-0.3) = ln 1.740818 = 0.55436; ln(1 + e^-0.06) = ln 1.941765 = 0.66360;
    ln(1 + e^-0.6) = ln 1.548812 = 0.43749.
    """
    assert loss((-2.3, -4.2), (-2.5, -3.8), beta=beta) == pytest.approx(expected, abs=5e-6)


def test_worked_example_two():
    """By hand: c = -10 + 12 = 2, r = -15 + 14 = -1; beta 0.1: rewards 0.2, -0.1; D = 3, ln(1 + e^-0.3) = 0.55436."""
    assert loss((-10, -15), (-12, -14), beta=0.1) == pytest.approx(0.55436, abs=5e-6)
    sums = [torch.tensor([value]) for value in (-10.0, -15.0, -12.0, -14.0)]
    chosen, rejected = implicit_rewards(*sums, beta=0.1)
    assert float(chosen) == pytest.approx(0.2) and float(rejected) == pytest.approx(-0.1)
    assert float(chosen > rejected) == 1.0


def test_bradley_terry_example():
    """Scores 2.5 and 0.8: P = s(1.7) = 1 / (1 + e^-1.7) = 1 / 1.182684 = 0.84553; -ln P = 0.16779."""
    assert 1 / (1 + math.exp(-1.7)) == pytest.approx(0.84553, abs=5e-6)
    assert loss((2.5, 0.8), (0, 0), beta=1.0) == pytest.approx(0.16779, abs=5e-6)


@pytest.mark.parametrize(("x", "expected"), [(5.0, 0.99331), (-1.7, 0.15447), (-5.0, 0.00669)])
def test_sigmoid_values_through_the_loss(x, expected):
    """exp(-loss) of D = x, beta = 1 is s(x): 1/(1+e^-5), 1/(1+e^1.7) = 1/6.473947, 1/(1+e^5) = 1/149.413159."""
    assert math.exp(-loss((x, 0), (0, 0), beta=1.0)) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize(("p", "expected"), [(0.99, 0.01005), (0.5, 0.69315), (0.1, 2.30259), (0.01, 4.60517)])
def test_negative_log_likelihoods_through_the_loss(p, expected):
    """D = ln(p / (1 - p)) has s(D) = p, so the loss is -ln p."""
    assert loss((math.log(p / (1 - p)), 0), (0, 0), beta=1.0) == pytest.approx(expected, abs=5e-6)


def test_naive_and_dpo_rewards():
    """Seven tokens at -0.105 sum to -0.735, two to -0.21: the naive reward prefers the shorter for its length.

    Against references of -0.750 and -0.200 the log-ratios are 0.015 and -0.010; times 0.1: +0.0015 and -0.0010.
    """
    long, short = 7 * -0.105, 2 * -0.105
    assert long == pytest.approx(-0.735) and short == pytest.approx(-0.21)
    sums = [torch.tensor([value], dtype=torch.float64) for value in (long, short, -0.750, -0.200)]
    chosen, rejected = implicit_rewards(*sums, beta=0.1)
    assert float(chosen) == pytest.approx(0.0015) and float(rejected) == pytest.approx(-0.0010)


def test_label_smoothing_is_the_mean_over_flipped_labels():
    """At D = 0.6, beta 1, e = 0.1: 0.9 * 0.437488 + 0.1 * 1.037488 = 0.497488."""
    assert loss((-2.3, -4.2), (-2.5, -3.8), beta=1.0, label_smoothing=0.1) == pytest.approx(0.497488, abs=5e-6)


def test_equal_policy_and_reference_give_ln_2():
    assert loss((-3.25, -7.5), (-3.25, -7.5), beta=0.1) == pytest.approx(math.log(2), abs=1e-15)


def test_gradient_is_the_derivation_of_the_paper():
    """It is -beta s(-beta D) for log pi(y+), the opposite for y-; D = 0.6, beta 0.5: -0.5 s(-0.3) = -0.21278."""
    policy = torch.tensor([-2.3, -4.2], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-2.5, -3.8], dtype=torch.float64)
    one = torch.ones(1)
    preference_loss("sigmoid", policy[:1], policy[1:], reference[:1], reference[1:], one, one, beta=0.5).backward()
    assert policy.grad.tolist() == pytest.approx([-0.21278, 0.21278], abs=5e-6)


def test_a_sum_is_the_weighted_sum_of_its_terms_and_a_parameter_goes_to_those_that_take_it():
    """MPO (arXiv 2411.10442): 0.8 sigmoid + 0.2 bco_pair + 1.0 sft."""
    sums = [torch.tensor([-10.0, -6.0], dtype=torch.float64) + i for i in (0.0, -5.0, -2.0, -4.0)]
    counts = torch.tensor([4, 2]), torch.tensor([2, 3])
    weights = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
    mixed = preference_loss(weights, *sums, *counts, beta=0.5, label_smoothing=0.1, bco_delta=1.0)
    own = {"sigmoid": {"label_smoothing": 0.1}, "bco_pair": {"bco_delta": 1.0}, "sft": {}}
    alone = [w * preference_loss(name, *sums, *counts, beta=0.5, **own[name]) for name, w in weights.items()]
    assert mixed.tolist() == pytest.approx(torch.stack(alone).sum(0).tolist(), rel=1e-12)


def test_weights_multiply_the_losses_and_margins_are_taken_off():
    """D = 3, beta 0.5: x = 1.5 - m; m = 1 gives -log s(0.5) = 0.474077, and m = 0 -log s(1.5) = 0.201413."""
    sums = [torch.tensor([value] * 2, dtype=torch.float64) for value in (-10.0, -15.0, -12.0, -14.0)]
    counts = torch.tensor([4, 4]), torch.tensor([2, 2])
    margins, weights = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 3.0])
    losses = preference_loss("sigmoid", *sums, *counts, beta=0.5, margins=margins, weights=weights)
    assert losses.tolist() == pytest.approx([0.474077, 3 * 0.201413], abs=2e-6)


def test_the_reference_may_be_left_out_only_where_none_is_read():
    policy, counts = [torch.tensor([-4.0]), torch.tensor([-6.0])], [torch.tensor([2]), torch.tensor([3])]
    assert float(preference_loss("naive", *policy, None, None, *counts)) == pytest.approx(math.log(1 + math.exp(-0.2)))
    with pytest.raises(ValueError, match="the objective sft \\+ ipo needs the reference's log-probs"):
        preference_loss({"sft": 1.0, "ipo": 1.0}, *policy, None, None, *counts)


def test_an_unknown_objective_or_parameter_is_refused():
    zero = torch.zeros(1)
    with pytest.raises(ValueError, match=r"there is no objective 'ipoo'; did you mean ipo\?"):
        preference_loss("ipoo", *[zero] * 6)
    with pytest.raises(ValueError, match="simpo_gamma has no effect on the objective sigmoid; remove it"):
        preference_loss("sigmoid", *[zero] * 6, simpo_gamma=0.5)
