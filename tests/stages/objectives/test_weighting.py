"""LD-DPO weighs tokens, WPO pairs: by hand."""

import math

import pytest
import torch

from stages.objectives.weighting import length_desensitized, wpo_weights


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, -10.0), (0.0, -4.0), (0.25, -5.5)])
def test_tokens_beyond_the_shorter_length_weigh_alpha(alpha, expected):
    """Whole -10, of which -4 over the shared length: -4 + 0.25 * -6 = -5.5."""
    assert float(length_desensitized(torch.tensor(-10.0), torch.tensor(-4.0), alpha)) == expected


def test_a_pair_weighs_the_product_of_what_its_sides_weigh():
    """Means of 0.1 and -0.3: e^-0.2; no gradient flows through a weight."""
    alignment = torch.tensor([0.1], requires_grad=True)
    weights = wpo_weights(alignment, torch.tensor([-0.3]))
    assert float(weights) == pytest.approx(math.exp(-0.2)) and not weights.requires_grad
