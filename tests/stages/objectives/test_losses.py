"""Each loss: values by hand, finite differences, finiteness, limits, and what they have to do with one another."""

import inspect
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from stages.objectives.catalogue import OBJECTIVES
from stages.objectives.losses import LOSSES
from stages.objectives.preference import preference_loss
from tests.stages.objectives.pairs import IDS, VARIANTS, by_hand, random_pairs

LN2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        # s(1.5) = 0.817574, log s(1.5) = -0.201413, log s(-1.5) = -1.701413
        ("sigmoid", {"beta": 0.5}, 0.201413),
        ("sigmoid", {"beta": 0.5, "label_smoothing": 0.1}, 0.351413),  # 0.9 * 0.201413 + 0.1 * 1.701413
        ("robust", {"beta": 0.5, "label_smoothing": 0.1}, 0.013913),  # (0.181272 - 0.170141) / 0.8
        ("hinge", {"beta": 0.1}, 0.7),  # 1 - 0.3
        ("hinge", {"beta": 0.5}, 0.0),  # 1 - 1.5 is below 0
        ("ipo", {"beta": 0.1}, 16.0),  # (0.5 + 0.5 - 5)^2
        ("ipo", {"beta": 0.1, "average": False}, 4.0),  # (3 - 5)^2
        ("sigmoid_norm", {"beta": 5.0}, 0.006715),  # -log s(5)
        ("exo_pair", {"beta": 0.5, "label_smoothing": 0.1}, 0.031139),  # 0.8176 * -0.096052 + 0.1824 * 0.601172
        ("nca_pair", {"beta": 0.5}, 1.206931),  # 0.313262 + (1.313262 + 0.474077) / 2
        ("bco_pair", {"beta": 0.5}, 0.787339),  # -log s(1) - log s(0.5) = 0.313262 + 0.474077
        ("bco_pair", {"beta": 0.5, "bco_delta": 1.0}, 0.894560),  # -log s(0) - log s(1.5) = 0.693147 + 0.201413
        ("sppo_hard", {"beta": 0.5}, 1.0),  # (2 - 1)^2 + (-1 + 1)^2
        ("apo_zero", {"beta": 0.5}, 0.646482),  # 1 - s(1) + s(-0.5) = 1 - 0.731059 + 0.377541
        ("apo_down", {"beta": 0.5}, 0.913485),  # s(1) + 1 - s(1.5) = 0.731059 + 0.182426
        ("discopop", {"beta": 0.5, "discopop_tau": 1.0}, 0.219168),  # 0.182426 * 0.201413 + 0.817574 * e^-1.5
        ("dpop", {"beta": 0.5}, 0.201413),  # c > 0: as sigmoid
        ("sft", {}, 2.5),  # 10 / 4
        ("simpo", {"beta": 0.1}, 0.693147),  # -10/4 + 15/2 = 5; -log s(0.5 - 0.5)
        ("naive", {"beta": 0.1}, 0.474077),  # -log s(0.1 * 5)
        ("aot", {"beta": 0.5}, 0.201413),  # one pair a step: its own margins, 5 - 2
        ("aot_unpaired", {"beta": 0.5}, 0.201413),
    ],
)
def test_values_by_hand(name, parameters, expected):
    """Policy -10/-15, reference -12/-14, 4 and 2 tokens: c = 2, r = -1, D = 3."""
    assert by_hand(name, **parameters) == pytest.approx(expected, abs=2e-6)


def test_dpop_charges_for_a_chosen_response_below_the_reference():
    """c = -1, r = -4, D = 3; lambda 2: 3 - 2 * 1 = 1, -log s(0.5 * 1) = 0.474077."""
    assert by_hand("dpop", policy=(-13.0, -18.0), beta=0.5, dpop_lambda=2.0) == pytest.approx(0.474077, abs=2e-6)


def test_discopop_begins_by_pulling_the_wrong_way():
    """At x = 0, w = 1/2: w'(1 - ln 2) - 1/4 - 1/2 with w' = 1 / (4 tau) = 5: 5 * 0.306853 - 0.75 = +0.784264."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1)
    preference_loss("discopop", x, zero, zero, zero, one, one, beta=1.0).sum().backward()
    assert float(x.grad) == pytest.approx(0.784264, abs=1e-6)


def test_aot_compares_sorted_margins_and_gives_each_loss_to_the_pair_of_that_rank():
    """Policy margins 5, 1, 4 and reference margins 2, -1, 0.5: sorted 1 - -1 = 2, 4 - 0.5 = 3.5, 5 - 2 = 3.

    By pair: -log s(1.5) = 0.201413, -log s(1) = 0.313262, -log s(1.75) = 0.160224.
    """
    zero = [0.0] * 3
    sums = [torch.tensor(v, dtype=torch.float64) for v in ([5.0, 1.0, 4.0], zero, [2.0, -1.0, 0.5], zero)]
    losses = preference_loss("aot", *sums, *[torch.ones(3)] * 2, beta=0.5)
    assert losses.tolist() == pytest.approx([0.201413, 0.313262, 0.160224], abs=2e-6)


def test_aot_unpaired_compares_sorted_log_ratios():
    """c = 2, 0 and r = -1, 0.5: ranks 0 - -1 = 1 and 2 - 0.5 = 1.5; -log s(0.75) = 0.386871, -log s(0.5)."""
    sums = [torch.tensor(v, dtype=torch.float64) for v in ([2.0, 0.0], [-1.0, 0.5], [0.0, 0.0], [0.0, 0.0])]
    losses = preference_loss("aot_unpaired", *sums, *[torch.ones(2)] * 2, beta=0.5)
    assert losses.tolist() == pytest.approx([0.386871, 0.474077], abs=2e-6)


def test_the_mean_of_sft_is_the_mean_over_tokens():
    """Two responses of 2 and 6 tokens at -1 and -2 a token: 14 nats over 8 tokens, not the mean of 1 and 2."""
    sums = [torch.tensor([-2.0, -12.0], dtype=torch.float64), *[torch.zeros(2, dtype=torch.float64)] * 3]
    losses = preference_loss("sft", *sums, torch.tensor([2, 6]), torch.ones(2))
    assert float(losses.mean()) == pytest.approx(14 / 8)


@pytest.mark.parametrize(("name", "parameters"), VARIANTS, ids=IDS)
def test_gradients_against_finite_differences_in_float64(name, parameters):
    sums, counts = random_pairs()
    assert torch.autograd.gradcheck(lambda *s: preference_loss(name, *s, *counts, beta=0.3, **parameters), sums)


@pytest.mark.parametrize(("name", "parameters"), VARIANTS, ids=IDS)
@pytest.mark.parametrize("log_ratios", [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4), (1e4, 0.0), (0.0, 1e4)])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_losses_and_gradients_stay_finite_in_fp32(name, parameters, log_ratios, beta):
    policy = [torch.tensor([value - 2e4], requires_grad=True) for value in log_ratios]
    reference, one = torch.tensor([-2e4]), torch.ones(1)
    losses = preference_loss(name, *policy, reference, reference, one, one, beta=beta, **parameters)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert all(side.grad is None or torch.isfinite(side.grad).all() for side in policy)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("sigmoid", LN2), ("robust", LN2), ("hinge", 1.0), ("sigmoid_norm", LN2), ("nca_pair", 2 * LN2),
     ("bco_pair", 2 * LN2), ("apo_zero", 1.0), ("apo_down", 1.0), ("dpop", LN2), ("aot", LN2), ("aot_unpaired", LN2),
     ("naive", LN2)],
)  # fmt: skip
def test_limits_as_beta_goes_to_0(name, limit):
    assert by_hand(name, beta=1e-12) == pytest.approx(limit, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "won", "lost"),
    [("sigmoid", 0.0, math.inf), ("hinge", 0.0, math.inf), ("apo_zero", 0.0, 2.0), ("bco_pair", 0.0, math.inf),
     ("dpop", 0.0, math.inf), ("discopop", 0.0, math.inf), ("exo_pair", -math.log(0.9), -math.log(0.1))],
)  # fmt: skip
def test_limits_as_the_pair_is_won_or_lost(name, won, lost):
    """At c, r = +-500, beta 1; what grows without end is above 400 there. exo_pair with e = 0.1: -log 0.9, -log 0.1."""
    own = {"label_smoothing": 0.1} if name == "exo_pair" else {}
    assert by_hand(name, policy=(500.0, -500.0), reference=(0.0, 0.0), beta=1.0, **own) == pytest.approx(won, abs=1e-9)
    loss = by_hand(name, policy=(-500.0, 500.0), reference=(0.0, 0.0), beta=1.0, **own)
    assert loss > 400 if math.isinf(lost) else loss == pytest.approx(lost, abs=1e-9)


def test_robust_without_noise_is_sigmoid():
    sums, counts = random_pairs()
    assert torch.equal(*(preference_loss(name, *sums, *counts) for name in ("robust", "sigmoid")))


def test_hinge_and_sigmoid_pull_the_same_way():
    def slopes(name):
        sums, counts = random_pairs(40)
        preference_loss(name, *sums, *counts, beta=0.2).sum().backward()
        return sums[0].grad

    hinge, sigmoid = slopes("hinge"), slopes("sigmoid")
    active = hinge != 0
    assert 5 < int(active.sum()) < 40
    assert torch.equal(hinge[active].sign(), sigmoid[active].sign())


def test_sigmoid_norm_of_equal_lengths_is_sigmoid_with_beta_over_the_length():
    sums, _ = random_pairs()
    eight = torch.full((7,), 8)
    normalised = preference_loss("sigmoid_norm", *sums, eight, eight, beta=5.0)
    assert normalised.tolist() == pytest.approx(preference_loss("sigmoid", *sums, eight, eight, beta=5 / 8).tolist())


def test_bco_is_symmetric_between_a_good_response_and_the_mirrored_bad_one():
    """(c, r, d) and (-r, -c, -d) cost the same: each side is a label of its own."""
    one = by_hand("bco_pair", policy=(2.0, -1.0), reference=(0.0, 0.0), bco_delta=0.3)
    assert one == pytest.approx(by_hand("bco_pair", policy=(1.0, -2.0), reference=(0.0, 0.0), bco_delta=-0.3))


def test_nca_treats_both_sides_alike_but_for_the_label():
    """Without -log s(bc), which only the chosen side has, c and r may change places."""

    def rest(c, r):
        return by_hand("nca_pair", policy=(c, r), reference=(0.0, 0.0), beta=1.0) + float(logsigmoid(torch.tensor(c)))

    assert rest(2.0, -1.0) == pytest.approx(rest(-1.0, 2.0), abs=1e-6)


def test_the_mean_of_robust_over_flipped_labels_is_the_clean_loss():
    """Monte Carlo over 200,000 flips, and exactly; the formula without its factors misses by far (docs/math.md)."""
    flips = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) < 0.2
    D = torch.where(flips, -3.0, 3.0).double()
    zero, one = torch.zeros_like(D), torch.ones_like(D)
    losses = preference_loss("robust", D, zero, zero, zero, one, one, beta=0.5, label_smoothing=0.2)
    clean = -float(logsigmoid(torch.tensor(1.5, dtype=torch.float64)))
    four_errors = 4 * float(losses.std()) / len(D) ** 0.5
    assert float(losses.mean()) == pytest.approx(clean, abs=four_errors) and four_errors < 0.02
    up, down = (
        by_hand("robust", policy=(x, 0.0), reference=(0.0, 0.0), beta=0.5, label_smoothing=0.2) for x in (3, -3)
    )
    assert 0.8 * up + 0.2 * down == pytest.approx(clean, abs=1e-12)
    without = (-logsigmoid(0.5 * D) + logsigmoid(-0.5 * D)) / (1 - 2 * 0.2)
    assert abs(float(without.mean()) - clean) > 1


def test_label_smoothing_is_the_mean_of_sigmoid_over_flipped_labels():
    smoothed = by_hand("sigmoid", beta=0.5, label_smoothing=0.2)
    flipped = by_hand("sigmoid", policy=(-15.0, -10.0), reference=(-14.0, -12.0), beta=0.5)
    assert smoothed == pytest.approx(0.8 * by_hand("sigmoid", beta=0.5) + 0.2 * flipped)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_takes_what_the_catalogue_says(name):
    objective, signature = OBJECTIVES[name], inspect.signature(LOSSES[name])
    kinds = {kind: [p.name for p in signature.parameters.values() if p.kind == kind] for kind in inspect._ParameterKind}
    assert kinds[inspect.Parameter.POSITIONAL_OR_KEYWORD] == list(objective.reads)
    assert kinds[inspect.Parameter.KEYWORD_ONLY] == [*(["beta"] if objective.takes_beta else []), *objective.parameters]
    assert LOSSES[name].__doc__


def test_every_objective_has_a_loss():
    assert list(LOSSES) == list(OBJECTIVES)
