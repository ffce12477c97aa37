"""Rows: prompt and response side by side, and batches of them within the budget."""

import pytest
import torch

from stages.scoring.rows import lay_out_rows, plan_rows
from tests.families import make_response, random_responses


def test_rows_token_by_token():
    responses = [make_response([7, 8], [1, 2, 3], [1, 0, 1]), make_response([9], [5])]
    layout = lay_out_rows(responses, torch.device("cpu"))
    assert layout.input_ids.tolist() == [[7, 8, 1, 2, 3], [9, 5, 0, 0, 0]]
    assert layout.position_ids is None and layout.attention is None
    # The second row begins at 5: its prompt's only token predicts the response.
    assert layout.targets[:3].tolist() == [1, 3, 5]
    assert layout.positions[:3].tolist() == [1, 3, 5]
    assert layout.owners.tolist() == [0, 0, 1]
    assert layout.places.tolist() == [0, 1, 0]


@pytest.mark.parametrize("budget", [1, 60, 200, 100_000])
def test_batches_hold_every_group_once_longest_first_within_the_budget(budget):
    responses = random_responses(40)
    groups = [(responses[i], responses[i + 1]) for i in range(0, 40, 2)]
    plan = plan_rows(groups, budget)
    assert sorted(index for batch in plan for index in batch) == list(range(20))
    widths = [max(len(response) for i in batch for response in groups[i]) for batch in plan]
    assert widths == sorted(widths, reverse=True)
    for batch, width in zip(plan, widths, strict=True):
        assert len(batch) == 1 or 2 * len(batch) * width <= budget
    assert budget < 100_000 or len(plan) == 1
