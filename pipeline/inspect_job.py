"""`pipeline inspect`: single pairs token by token, found by key, by length or by what training saw; rejected rows."""

from functools import partial
from itertools import islice
from typing import Any

import polars as pl

from data.errors import ConfigError
from data.rows.bad_rows import REASONS
from data.tokens.marked_text import token_by_token
from data.tokens.token_pairs import TokenPairs
from data.tokens.tokenization import load_tokenizer
from pipeline.inputs import Inputs
from pipeline.inspect_visits import run_of, worst_first
from stages.job import JobReport
from stages.model_files import tokenizer_folder


def run_inspect(
    inputs: Inputs,
    key: str | None = None,
    reason: str | None = None,
    longer_than: int | None = None,
    step: int | None = None,
    worst: bool = False,
    limit: int = 3,
) -> JobReport:
    """The first pairs that `key` (the start of one) and `longer_than` leave over, or the rows rejected for `reason`.

    With `step` or `worst` the pairs of a step of the run, or of all of it, the worst first.
    """
    _check_alone(key=key, longer_than=longer_than, reason=reason, step=step, worst=worst or None)
    bound = inputs.bind()
    prepared = inputs.prepared(bound.folder)
    report = JobReport("inspect", pairs=prepared.coverage.used)
    if reason is not None:
        found = [vars(rejection) for rejection in prepared.rejections if rejection.reason == reason]
        report.details = {"found": len(found), "rejected": found[:limit], "shown": []}
        return report
    load = partial(load_tokenizer, tokenizer_folder(bound.folder or inputs.workspace.pairs.tokenizer))
    if step is not None or worst:
        run = run_of(inputs, bound, prepared)
        report.run = run.path.name
        report.details = worst_first(run, prepared.all, step, limit, load)
        return report
    tokenizer = load()
    matching = {split: _matching(pairs, key or "", longer_than or 0) for split, pairs in prepared.splits.items()}
    all_of_them = ((split, pair) for split, pairs in matching.items() for pair in pairs)
    shown = [token_by_token(pair, tokenizer) | {"split": split} for split, pair in islice(all_of_them, limit)]
    report.details = {"found": sum(map(len, matching.values())), "rejected": [], "shown": shown}
    return report


def _check_alone(**asked: Any) -> None:
    """`--key` and `--longer-than` go together; each of the others asks for something else."""
    reason, given = asked["reason"], [name for name, value in asked.items() if value is not None]
    if reason is not None and reason not in REASONS:
        raise ConfigError(f"--reason {reason}: known are {', '.join(REASONS)}.")
    if len(given) > 1 and not set(given) <= {"key", "longer_than"}:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"{options} ask for different rows; give one of them.")


def _matching(pairs: TokenPairs, key: str, longer_than: int) -> TokenPairs:
    """Those whose key begins so, and whose longer side has more tokens."""
    longest = pl.col("n_prompt") + pl.max_horizontal("chosen_tokens", "rejected_tokens")
    wanted = pairs.select((pl.col("pair_key").str.starts_with(key) & (longest > longer_than)).alias("wanted"))["wanted"]
    return pairs.take(wanted.arg_true())
