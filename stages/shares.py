"""Which of the work each process does: shares of about as many tokens, a function of the pairs alone."""

from collections.abc import Iterator, Sequence

from data.schema import Response, TokenPair
from stages.processes import Processes
from stages.scoring.scorer import Batch, Scorer


def deal(lengths: Sequence[int], n_shares: int) -> list[list[int]]:
    """Places of the lengths in `n_shares` shares, in order; the longest first, each to the share that has least."""
    shares: list[list[int]] = [[] for _ in range(n_shares)]
    sizes = [0] * n_shares
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        least = min(range(n_shares), key=lambda share: (sizes[share], share))
        shares[least].append(place)
        sizes[least] += lengths[place]
    return [sorted(share) for share in shares]


def step_shares(pairs: Sequence[TokenPair], scorer: Scorer, n_shares: int) -> list[list[Batch]]:
    """The batches of each process in a training step; their groups are places in `pairs`."""
    sides = [[pair.chosen, pair.rejected] for pair in pairs]
    plans = []
    for share in deal([sum(map(len, both)) for both in sides], n_shares):
        batches = scorer.plan([sides[place] for place in share])
        plans.append([Batch(batch.responses, [share[group] for group in batch.groups]) for batch in batches])
    return plans


def response_shares(responses: Sequence[Response], scorer: Scorer, n_shares: int) -> list[list[Batch]]:
    """The batches of each process where responses are scored one by one; those to one prompt stay together."""
    by_prompt: dict[bytes, list[Response]] = {}
    for response in responses:
        by_prompt.setdefault(response.prompt_ids.tobytes(), []).append(response)
    prompts = list(by_prompt.values())
    dealt = deal([sum(map(len, siblings)) for siblings in prompts], n_shares)
    return [scorer.plan([[response] for place in share for response in prompts[place]]) for share in dealt]


def rounds(plans: Sequence[Sequence[Batch]], processes: Processes) -> Iterator[tuple[Batch, bool]]:
    """The batches of this process, then some (False) that go through the model for nothing: as many as any other has.

    The parts of a sharded model are gathered by all processes together, layer by layer.
    """
    own = plans[processes.rank]
    yield from ((batch, True) for batch in own)
    for _ in range(max(map(len, plans)) - len(own)):
        yield next(batch for plan in (own, *plans) for batch in plan), False
