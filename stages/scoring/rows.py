"""Lays responses out as rows: prompt and response side by side, padded on the right.

No attention mask is passed. A causal model's real tokens never see what stands to their right, so the padding id is
of no consequence (it may well be the end token), and attention takes its plain causal path.
"""

from collections.abc import Sequence

import numpy as np
import torch

from data.schema import Response
from stages.scoring.layout import Layout, make_layout

_PADDING = 0


def lay_out_rows(responses: Sequence[Response], device: torch.device) -> Layout:
    """One row a response; rows as long as the longest."""
    longest = max(len(response) for response in responses)
    input_ids = np.full((len(responses), longest), _PADDING, dtype=np.int64)
    predicted_from = []
    for row, response in enumerate(responses):
        n_prompt = len(response.prompt_ids)
        input_ids[row, :n_prompt] = response.prompt_ids
        input_ids[row, n_prompt : len(response)] = response.ids
        start = row * longest + n_prompt - 1  # the position before a token predicts it
        predicted_from.append(np.arange(start, start + len(response.ids)))
    return make_layout(responses, predicted_from, input_ids, None, None, device)


def plan_rows(groups: Sequence[Sequence[Response]], budget: int) -> list[list[int]]:
    """Batches of whole groups (indices into `groups`), sorted by length, at most `budget` padded tokens each.

    Longest first: what does not fit into memory fails at once. A group larger than the budget stands alone.
    """
    longest = [max(len(response) for response in group) for group in groups]
    batches: list[list[int]] = []
    rows = width = 0
    for index in sorted(range(len(groups)), key=lambda i: (-longest[i], i)):
        if not batches or (rows + len(groups[index])) * width > budget:
            batches.append([])
            rows, width = 0, longest[index]
        batches[-1].append(index)
        rows += len(groups[index])
    return batches
