"""What docs/math.md says, shown: the optimum, the gradient, and the slips of the teaching material put right."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid

from stages.objectives.preference import preference_loss
from stages.scoring.scorer import Scorer
from tests.families import make_response
from tests.tiny import build_model

ONE = torch.ones(1)


def one_loss(name, policy, reference=(0.0, 0.0), tokens=(1, 1), **parameters):
    """The loss of one pair, (1,), from (2,) tensors or numbers."""
    policy, reference = (torch.as_tensor(sums, dtype=torch.float64) for sums in (policy, reference))
    sums = policy[:1], policy[1:], reference[:1], reference[1:]
    return preference_loss(name, *sums, *(torch.tensor([n]) for n in tokens), **parameters)


class Table:
    """Five responses to a prompt, rewards and reference; preferences by Bradley-Terry (arXiv 2305.18290, eq. 1)."""

    rewards = torch.tensor([1.0, -0.5, 0.3, 2.0, -1.2], dtype=torch.float64)
    ref = torch.log_softmax(torch.tensor([0.2, 1.0, -0.7, -2.0, 0.5], dtype=torch.float64), 0)

    def expected_loss(self, policy: torch.Tensor, beta: float) -> torch.Tensor:
        """Mean of the sigmoid loss over all ordered pairs, each as often as it is preferred so."""
        i, j = (~torch.eye(5, dtype=torch.bool)).nonzero(as_tuple=True)
        counts = torch.ones(len(i))
        losses = preference_loss("sigmoid", policy[i], policy[j], self.ref[i], self.ref[j], counts, counts, beta=beta)
        return ((self.rewards[i] - self.rewards[j]).sigmoid() * losses).sum() / len(i)

    def trained(self, beta: float) -> torch.Tensor:
        """Log-probs of the policy that minimises it."""
        logits = self.ref.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [logits], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            loss = self.expected_loss(torch.log_softmax(logits, 0), beta)
            loss.backward()
            return loss

        optimizer.step(closure)
        return torch.log_softmax(logits.detach(), 0)

    def optimum(self, beta: float) -> torch.Tensor:
        """Log of ref * exp(reward / beta) / Z: what maximises reward less beta KL (eq. 4)."""
        return torch.log_softmax(self.ref + self.rewards / beta, 0)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_the_optimum_of_the_loss_is_the_optimum_of_rlhf(beta):
    """The loss never sees Z, which is the same for both responses of a pair and cancels in D."""
    table = Table()
    assert float((table.trained(beta).exp() - table.optimum(beta).exp()).abs().max()) < 1e-6


def test_beta_is_the_brake():
    """The larger beta, the nearer the optimum stays to the reference: KL(pi || ref) falls."""
    table = Table()
    kls = [float((p.exp() * (p - table.ref)).sum()) for p in map(table.trained, (0.3, 1.0, 3.0, 10.0))]
    assert kls == sorted(kls, reverse=True) and kls[0] > 10 * kls[-1]


def test_the_slope_of_the_loss_by_z_is_minus_s_of_minus_z():
    z = torch.tensor([-3.0, -0.5, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    (-logsigmoid(z)).sum().backward()
    assert z.grad.tolist() == pytest.approx((-(-z).sigmoid()).tolist())
    assert (z.grad < 0).all()


def test_log_s_of_z_and_of_minus_z_do_not_cancel():
    """It is s that adds up to 1; the logarithms add up to at most -2 ln 2, at z = 0."""
    z = torch.linspace(-4, 4, 9, dtype=torch.float64)
    assert (z.sigmoid() + (-z).sigmoid()).tolist() == pytest.approx([1.0] * 9)
    logs = logsigmoid(z) + logsigmoid(-z)
    assert float(logs.max()) == pytest.approx(-2 * math.log(2)) and float(logs[0]) == pytest.approx(-4.0363, abs=1e-4)


def test_softplus_of_minus_x_is_the_loss():
    assert float(one_loss("sigmoid", (3.0, 0.0), beta=1.0)) == pytest.approx(math.log1p(math.exp(-3.0)))


def test_the_gradient_is_two_signed_and_weighted_cross_entropies():
    """By the logits: -b s(-bD) times the gradient of log pi(y+), which is minus a cross-entropy, and so for y-."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(11, (2, 6), generator=generator)
    sums = torch.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0].sum(-1)
    reference = torch.tensor([-15.0, -14.0], dtype=torch.float64)
    one_loss("sigmoid", sums, reference, beta=0.3).sum().backward()
    D = (sums[0] - reference[0] - sums[1] + reference[1]).detach()
    weight = 0.3 * torch.sigmoid(-0.3 * D)
    again = logits.detach().clone().requires_grad_()
    losses = [cross_entropy(again[side], targets[side], reduction="sum") for side in (0, 1)]
    (weight * losses[0] - weight * losses[1]).backward()
    torch.testing.assert_close(logits.grad, again.grad, rtol=1e-12, atol=1e-12)


def test_a_reference_changes_the_weight_of_a_pair_and_not_the_direction_of_its_gradient():
    """So it takes no length bias out of the direction: with any reference, or none, the gradients are parallel."""
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(20, generator=generator, dtype=torch.float64)
    features = torch.randn(2, 20, generator=generator, dtype=torch.float64)

    def gradient(name, reference):
        theta = parameters.clone().requires_grad_()
        one_loss(name, logsigmoid(features @ theta) * torch.tensor([7.0, 2.0]), reference, beta=0.5).sum().backward()
        return theta.grad

    naive = gradient("naive", (0.0, 0.0))
    for reference in ((0.0, 0.0), (-3.0, -9.0), (-20.0, -1.0)):
        own = gradient("sigmoid", reference)
        assert float(own @ naive / (own.norm() * naive.norm())) == pytest.approx(1.0, abs=1e-12)
    assert gradient("sigmoid", (-20.0, -1.0)).norm() < gradient("sigmoid", (-3.0, -9.0)).norm() * 0.1


def test_ipo_of_sums_and_of_means_are_two_losses():
    """c = 2 over 4 tokens, r = -1 over 2; beta 0.1: (3 - 5)^2 and (1 - 5)^2."""
    sums = {"policy": (-10.0, -15.0), "reference": (-12.0, -14.0), "tokens": (4, 2), "beta": 0.1}
    assert float(one_loss("ipo", **sums, average=False)) == pytest.approx(4.0)
    assert float(one_loss("ipo", **sums)) == pytest.approx(16.0)


def test_the_first_token_of_a_response_is_predicted_by_the_last_of_the_prompt():
    """Gathered one place later, as if the response's own positions predicted it, other tokens are scored."""
    response, model = make_response([5, 9, 17, 3], [40, 7, 8]), build_model()
    with torch.no_grad():
        logps = torch.log_softmax(model(torch.tensor([[5, 9, 17, 3, 40, 7, 8]])).logits[0].double(), -1)
        ours = Scorer(model, 64).token_logps([response])[0].tolist()
    right = [float(logps[3 + i, token]) for i, token in enumerate((40, 7, 8))]
    late = [float(logps[4 + i, token]) for i, token in enumerate((40, 7, 8))]
    assert ours == pytest.approx(right, abs=1e-4)
    assert sum(ours) != pytest.approx(sum(late), abs=0.5) and len(ours) == 3
