"""Two mixes of pair lengths, like UltraFeedback's and HH's, and how near they come to what is published of both.

Prompts and responses are log-normal around published medians, with one spread a mix; what is beyond the cap is cut, as
TRL cuts it. The spread is what brings two ratios nearest to those that the model of this engine was made with (`python
benchmarks/gpu.py --fit`): padded slots by real tokens in batches of 8 pairs, and all tokens with prompts counted twice
by all with prompts counted once. Tokens are random, and both sides of a pair share their prompt.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import pipeline  # noqa: F401 - finds our packages
from data.schema import Response, TokenPair

CAP = 1024  # tokens of prompt and response
BATCH = 8  # pairs, TRL's default
SPREADS = tuple(round(0.3 + 0.01 * step, 2) for step in range(71))

Lengths = npt.NDArray[np.int64]
"""(N, 3): of the prompt, of chosen, of rejected."""


class Mix(NamedTuple):
    """Medians in tokens before the cut, the spread, and the two published ratios."""

    prompt: int
    response: int
    spread: float
    padded: float
    once: float


MIXES = {
    "ultrafeedback": Mix(198, 341, 0.55, 1.84, 1.22),
    "hh": Mix(181, 82, 0.87, 2.24, 1.52),
}


def draw_lengths(mix: Mix, n: int, cap: int = CAP, seed: int = 0) -> Lengths:
    """Of `n` pairs; another cap than 1,024 shortens everything in proportion."""
    medians = np.array([mix.prompt, mix.response, mix.response]) * cap / CAP
    drawn = np.rint(medians * np.exp(mix.spread * np.random.default_rng(seed).standard_normal((n, 3))))
    prompt = np.clip(drawn[:, :1], 1, cap - 2)
    return np.hstack([prompt, np.clip(drawn[:, 1:], 2, cap - prompt)]).astype(np.int64)


def padded_ratio(lengths: Lengths) -> float:
    """Slots of batches of 8 pairs, all rows as long as the longest, by real tokens."""
    whole = lengths[: len(lengths) // BATCH * BATCH]
    rows = whole[:, :1] + whole[:, 1:]
    longest = rows.reshape(-1, 2 * BATCH).max(axis=1)
    return float(2 * BATCH * longest.sum() / rows.sum())


def once_ratio(lengths: Lengths) -> float:
    """Tokens with each pair's prompt counted twice, by counted once."""
    return float((lengths[:, :1] + lengths[:, 1:]).sum() / lengths.sum())


def misfit(mix: Mix, lengths: Lengths) -> float:
    """Squared distance of both ratios from the published ones, as shares of these."""
    return (padded_ratio(lengths) / mix.padded - 1) ** 2 + (once_ratio(lengths) / mix.once - 1) ** 2


def best_spread(mix: Mix, n: int) -> float:
    """Of those that are tried, the one that fits best."""
    return min(SPREADS, key=lambda spread: misfit(mix, draw_lengths(mix._replace(spread=spread), n)))


def fit_rows(n: int = 60_000) -> Iterator[list[str]]:
    """A row a mix: what comes out beside what is published."""
    for name, mix in MIXES.items():
        lengths = draw_lengths(mix, n)
        medians = np.median(lengths, axis=0)
        cut = float((lengths[:, 0] + lengths[:, 1:].max(axis=1) >= CAP).mean())
        yield [
            name,
            f"{mix.spread} ({best_spread(mix, n)})",
            f"{medians[0]:.0f} ({mix.prompt})",
            f"{np.median(lengths[:, 1:]):.0f} ({mix.response})",
            f"{padded_ratio(lengths):.2f} ({mix.padded})",
            f"{once_ratio(lengths):.2f} ({mix.once})",
            f"{lengths.sum(axis=1).mean():.0f}",
            f"{cut:.0%}",
        ]


FIT_COLUMNS = (
    "mix",
    "spread (best fit)",
    "median prompt (published)",
    "median response (published)",
    "padded / real (published)",
    "prompts twice / once (published)",
    "tokens a pair, prompt once",
    "pairs cut",
)


def random_pairs(mix: Mix, n: int, vocabulary: int, cap: int = CAP, seed: int = 0) -> list[TokenPair]:
    """Pairs of such lengths with random tokens, all of each response scored."""
    random = np.random.default_rng(seed)

    def tokens(length: int) -> npt.NDArray[np.int32]:
        return random.integers(3, vocabulary, length).astype(np.int32)

    pairs = []
    for row, (n_prompt, *n_responses) in enumerate(draw_lengths(mix, n, cap, seed).tolist()):
        prompt = tokens(n_prompt)
        chosen, rejected = (Response(prompt, tokens(m), np.ones(m, dtype=np.bool_)) for m in n_responses)
        pairs.append(TokenPair(row, f"random:{row}", chosen, rejected))
    return pairs


def with_own_prompts(pairs: Sequence[TokenPair]) -> list[TokenPair]:
    """The same pairs with a token of each rejected side's prompt changed: of the same length, and no longer shared."""
    apart = []
    for pair in pairs:
        prompt = pair.rejected.prompt_ids.copy()
        prompt[0] = 2  # no drawn token
        rejected = Response(prompt, pair.rejected.ids, pair.rejected.mask)
        apart.append(TokenPair(pair.row, pair.location, pair.chosen, rejected))
    return apart
