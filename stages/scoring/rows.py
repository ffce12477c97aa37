"""Lays responses out as rows: prompt and response side by side, padded on the right.

No attention mask is passed. A causal model's real tokens never see what stands to their right, so the padding id is
of no consequence (it may well be the end token), and attention takes its plain causal path.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.schema import Response

_PADDING = 0


@dataclass(frozen=True)
class Layout:
    """A batch as the model sees it, and where in its output the scored tokens are predicted.

    `positions`, `targets`, `owners` and `places` have one entry for each of the M scored tokens, response by response:
    the flat position that predicts the token, the token, its response in the batch and its rank among that response's
    scored tokens.
    """

    input_ids: torch.Tensor  # (B, T)
    positions: torch.Tensor  # (M,) into B*T
    targets: torch.Tensor  # (M,)
    owners: torch.Tensor  # (M,) into N
    places: torch.Tensor  # (M,)
    n_responses: int
    most_scored: int  # scored tokens of the response that has most


def lay_out(responses: Sequence[Response], device: torch.device) -> Layout:
    """One row a response; rows as long as the longest."""
    longest = max(len(response) for response in responses)
    input_ids = np.full((len(responses), longest), _PADDING, dtype=np.int64)
    positions, targets = [], []
    for row, response in enumerate(responses):
        n_prompt = len(response.prompt_ids)
        input_ids[row, :n_prompt] = response.prompt_ids
        input_ids[row, n_prompt : len(response)] = response.ids
        scored = np.flatnonzero(response.mask)
        positions.append(row * longest + n_prompt + scored - 1)  # the position before a token predicts it
        targets.append(response.ids[scored].astype(np.int64))
    counts = [len(target) for target in targets]
    return Layout(
        torch.from_numpy(input_ids).to(device),
        torch.from_numpy(np.concatenate(positions)).to(device),
        torch.from_numpy(np.concatenate(targets)).to(device),
        torch.from_numpy(np.repeat(np.arange(len(responses)), counts)).to(device),
        torch.from_numpy(np.concatenate([np.arange(n) for n in counts])).to(device),
        len(responses),
        max(counts),
    )


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
