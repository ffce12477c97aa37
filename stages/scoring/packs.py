"""Packs: one row of tokens that holds prompts once and, behind each, every response to it that has to be scored.

    tokens      p p p p | a a a | b b b b | q q | c c c c c | . . .
    position    0 1 2 3 | 4 5 6 | 4 5 6 7 | 0 1 | 2 3 4 5 6 | padding

A response reads its prompt and itself; it sees neither its siblings nor another prompt's tokens. What a response is
worth is therefore a function of the response alone, whatever else the pack holds.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from data.schema import Response
from stages.scoring.attention.contract import AttentionMaker, Segment
from stages.scoring.layout import Layout, make_layout


def plan_packs(groups: Sequence[Sequence[Response]], budget: int) -> list[list[int]]:
    """Packs of whole groups (indices into `groups`), at most `budget` tokens each: best fit, longest tree first.

    Groups of one prompt stay together as far as they fit. A group that is longer than the budget stands alone.
    """
    trees = sorted(_trees(groups, budget), key=lambda tree: -tree[1])
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, pack), ascending
    for members, tokens in trees:
        at = bisect_left(room, (tokens, -1))
        if at < len(room):
            left, pack = room.pop(at)
        else:
            left, pack = budget, len(packs)
            packs.append([])
        packs[pack].extend(members)
        if left > tokens:
            insort(room, (left - tokens, pack))
    return packs


def _trees(groups: Sequence[Sequence[Response]], budget: int) -> Iterator[tuple[list[int], int]]:
    """Groups that share a prompt, with the tokens they take together; split where they exceed the budget."""
    for indices in _by_prompt(group[0] for group in groups):
        members: list[int] = []
        parts: dict[bytes | str, int] = {}
        for index in indices:
            grown = parts | _parts(groups[index])
            if members and sum(grown.values()) > budget:
                yield members, sum(parts.values())
                members, grown = [], _parts(groups[index])
            members.append(index)
            parts = grown
        yield members, sum(parts.values())


def _by_prompt(responses: Iterable[Response]) -> list[list[int]]:
    """The indices of the responses to each prompt, in order of appearance."""
    by_prompt: dict[bytes, list[int]] = {}
    for index, response in enumerate(responses):
        by_prompt.setdefault(response.prompt_ids.tobytes(), []).append(index)
    return list(by_prompt.values())


def _parts(group: Sequence[Response]) -> dict[bytes | str, int]:
    """Tokens of each distinct prompt and response of a group."""
    prompts: dict[bytes | str, int] = {r.prompt_ids.tobytes(): len(r.prompt_ids) for r in group}
    return prompts | {r.key: len(r.ids) for r in group}


def lay_out_pack(
    responses: Sequence[Response],
    attention: AttentionMaker,
    device: torch.device,
    multiple: int,
    length: int | None = None,
) -> Layout:
    """The responses as one pack, with at least one token of padding: `length` tokens, or if they are more (or it is
    None) the next `multiple`.
    """
    tokens, positions, segments = [], [], []
    predicted_from = [np.empty(0)] * len(responses)
    at = 0
    for indices in _by_prompt(responses):
        prompt = responses[indices[0]].prompt_ids
        prompt_start, prompt_stop = at, at + len(prompt)
        tokens.append(prompt)
        positions.append(np.arange(len(prompt)))
        segments.append(Segment(prompt_start, prompt_stop, prompt_start, prompt_start))
        at = prompt_stop
        for index in indices:
            ids = responses[index].ids
            tokens.append(ids)
            positions.append(np.arange(len(prompt), len(prompt) + len(ids)))
            segments.append(Segment(at, at + len(ids), prompt_start, prompt_stop))
            # The first token is predicted by the end of the prompt, each other one by the token before it.
            predicted_from[index] = np.concatenate([[prompt_stop - 1], np.arange(at, at + len(ids) - 1)])
            at += len(ids)
    if length is None or length <= at:
        length = -(-(at + 1) // multiple) * multiple
    padding = np.zeros(length - at, dtype=np.int64)  # any id will do: nothing reads it, and nothing asks for its logits
    return make_layout(
        responses,
        predicted_from,
        np.concatenate([*tokens, padding])[None].astype(np.int64),
        np.concatenate([*positions, padding])[None].astype(np.int64),
        attention(segments, length, device),
        device,
    )
