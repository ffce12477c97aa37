"""Source rows to token pairs: read, judge, split, tokenise, and account for every row."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count, islice
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from data.canonical import BadRow, canonical_pair
from data.errors import DataError
from data.form_readers import PROMPTS
from data.forms import DEFAULT_RULE, SAMPLE, candidates, tell_form
from data.schema import PreferencePair, Rejection, SourceRow, TokenPair
from data.settings import Settings
from data.sources import Column, Source, read_rows
from data.splits import Split, normalised, split_of
from data.tokenization import PairTokenizer

logger = logging.getLogger(__name__)

PREPARATION_VERSION = 2  # raised by hand when the same sources would give other pairs
FEW_BAD_ROWS = 5  # `max_bad` is a share, and a share says nothing about a handful of rows
SHOWN_REJECTS = 5
_ENOUGH, _ONE_SIDED = 20, 0.9  # pairs, and the share of them that makes a length bias


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


Sources = Annotated[list[Source], BeforeValidator(_as_list)]


class DataConfig(Settings):
    """Section `data`: which pairs, how they are split and cut."""

    train: Sources = Field(min_length=1)
    """File or Hub id with the preference pairs, or a list of them; a source is a name or {path, split}."""
    eval: Sources | None = Field(default=None, min_length=1)
    """Held-out pairs from their own file or split; none: `eval_fraction` cuts them from `train`."""
    eval_fraction: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Share of first user turns held out by hash; 0.1 unless `eval` names a source; 0 holds nothing out."""
    dev_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of first user turns kept for choices made during training; 0: none."""
    max_length: int = Field(default=1024, ge=2)
    """Most tokens of prompt and response together; longer responses lose their end."""
    max_bad: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of rejected rows above which a job stops (where more than five are); 1: never."""
    strict: bool = False
    """Stop where a single row is rejected."""

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> "DataConfig":
        if self.eval is not None and self.eval_fraction is not None:
            raise ValueError("eval and eval_fraction both say what is held out; keep one of the two")
        if self.held_out_fraction + self.dev_fraction >= 1.0:
            raise ValueError("eval_fraction and dev_fraction together leave nothing to train on")
        return self

    @property
    def held_out_fraction(self) -> float:
        """The share of `train` that is held out."""
        if self.eval is not None:
            return 0.0
        return 0.1 if self.eval_fraction is None else self.eval_fraction


@dataclass
class Coverage:
    """What became of every pair: read = used + rejected."""

    rows: int = 0
    """Rows of the sources."""
    forms: dict[str, str] = field(default_factory=dict)
    """How each source was read."""
    read: int = 0
    """Pairs in them: as many as its rule makes of a row of rated answers, otherwise one a row."""
    used: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    truncated: int = 0
    """Pairs that truncation shortened."""
    truncated_tokens: int = 0
    seams_split: int = 0
    """Responses tokenised apart from their prompt."""
    splits: dict[str, int] = field(default_factory=dict)
    overlap: int = 0
    """Held-out pairs whose first user turn stands among the training pairs."""
    duplicates: int = 0
    """Pairs that stand in their split already."""
    contradictions: int = 0
    """Pairs that also stand there the other way round."""
    chosen_longer: int = 0
    """Pairs whose chosen response has more tokens than the rejected one."""

    def document(self) -> dict[str, Any]:
        """As it stands in metrics.json and `--json`."""
        return asdict(self)


@dataclass
class PreparedPairs:
    """The pairs of each split, the rows that were refused, and the account of all rows."""

    splits: dict[Split, list[TokenPair]]
    rejections: list[Rejection]
    coverage: Coverage
    example: dict[str, str] | None = None
    """A pair as the model reads it, for people."""

    @property
    def all(self) -> list[TokenPair]:
        """The pairs of all splits."""
        return [pair for split in ("train", "dev", "eval") for pair in self.splits[split]]


def prepare(config: DataConfig, tokenizer: PairTokenizer, advance: Callable[[int], None]) -> PreparedPairs:
    """Read, judge, split and tokenise all rows; `advance(n)` is told of every n rows read.

    Raises:
        DataError: a source cannot be read.
    """
    splits: dict[Split, list[TokenPair]] = {"train": [], "dev": [], "eval": []}
    rejections: list[Rejection] = []
    trained_turns: set[str] = set()
    coverage = Coverage()
    numbers = count()
    for sources, held_out in ((config.train, False), (config.eval or [], True)):
        pairs = (_canonical_pairs(source, numbers, advance, rejections, coverage) for source in sources)
        for pair, outcome in tokenizer.tokenize(chain.from_iterable(pairs)):
            if isinstance(outcome, Rejection):
                rejections.append(outcome)
                continue
            turn = normalised(pair.first_user_turn)
            split = "eval" if held_out else split_of(turn, config.held_out_fraction, config.dev_fraction)
            splits[split].append(outcome)
            if split == "train":
                trained_turns.add(turn)
            elif split == "eval" and turn in trained_turns:
                coverage.overlap += 1
    coverage.read = next(numbers)
    coverage.seams_split = tokenizer.seams_split
    rejections.sort(key=lambda rejection: rejection.row)
    _account(coverage, splits, rejections)
    return PreparedPairs(splits, rejections, coverage)


def check_usable(prepared: PreparedPairs, max_bad: float, *, strict: bool = False) -> None:
    """Refuse data that nothing can be trained on, or of which too much is bad; warn of the rest.

    Raises:
        DataError: no training pairs, or more than `max_bad` of the rows (and more than five) rejected; if strict, any.
    """
    coverage, n_bad = prepared.coverage, len(prepared.rejections)
    shown = "; ".join(f"{r.location} {r.reason} ({r.detail})" for r in prepared.rejections[:SHOWN_REJECTS])
    reasons = ", ".join(f"{n} {reason}" for reason, n in coverage.rejected.items())
    if (strict and n_bad) or (n_bad > FEW_BAD_ROWS and n_bad > max_bad * coverage.read):
        limit = "and data.strict allows none" if strict else f"more than data.max_bad = {max_bad:g} allows"
        remedy = "set data.strict: false" if strict else "raise data.max_bad"
        raise DataError(
            f"{n_bad} of {coverage.read} rows are rejected ({reasons}), {limit}. The first: {shown}. All of them stand "
            f"in pairs/rejects.parquet in the work folder. Correct the rows, or {remedy} to go on without them."
        )
    if not prepared.splits["train"]:
        raise DataError(
            f"No training pairs are left of {coverage.read} rows read ({reasons or 'none rejected'}). Check "
            f"data.train, data.eval_fraction and data.max_length.{' The first rejected: ' + shown if shown else ''}"
        )
    if n_bad:
        logger.warning("%d of %d rows rejected (%s). The first: %s", n_bad, coverage.read, reasons, shown)
    _warn(coverage)


def _warn(coverage: Coverage) -> None:
    """What is no reason to refuse data, and that a person should know."""
    if coverage.duplicates:
        logger.warning(
            "%d pairs stand in the data more than once; each counts as often as it does", coverage.duplicates
        )
    if coverage.contradictions:
        logger.warning(
            "%d pairs stand in the data both ways round: chosen here, rejected there", coverage.contradictions
        )
    if coverage.used >= _ENOUGH and coverage.chosen_longer >= _ONE_SIDED * coverage.used:
        share = coverage.chosen_longer / coverage.used
        logger.warning("chosen is the longer one in %.0f %% of the pairs: length alone may be learned", 100 * share)
    if coverage.truncated:
        logger.warning("%d pairs are cut to max_length, by %d tokens", coverage.truncated, coverage.truncated_tokens)
    if coverage.overlap:
        logger.warning("%d held-out pairs share their first user turn with training pairs", coverage.overlap)


def _canonical_pairs(
    source: Source,
    numbers: Iterator[int],
    advance: Callable[[int], None],
    rejections: list[Rejection],
    coverage: Coverage,
) -> Iterator[PreferencePair]:
    """The pairs of a source that have a normal form, numbered through; the others are added to `rejections`."""
    rows = _named_columns(read_rows(source), source.columns)
    first = list(islice(rows, SAMPLE))
    form = tell_form(source.name, first)
    if source.pairs is not None and not form.rated:
        raise DataError(
            f"pairs: {source.pairs} has no effect on {source.name}, whose rows are of the form `{form.name}` and not "
            "rated answers. Remove it."
        )
    logger.info("%s is read as: %s (%s)", source.name, form.name, form.columns)
    coverage.forms[source.name] = form.name
    for row in chain(first, rows):
        advance(1)
        coverage.rows += 1
        for candidate, problem in candidates(row, form, source.pairs or DEFAULT_RULE):
            number = next(numbers)
            try:
                if problem is not None:
                    raise problem
                yield canonical_pair(replace(candidate, number=number))
            except BadRow as bad:
                rejections.append(bad.rejection(number, candidate.location))


def _named_columns(rows: Iterable[SourceRow], columns: Mapping[Column, str]) -> Iterator[SourceRow]:
    """The rows with their columns as forms know them; once the prompt is named, no other column can be it."""
    aside = {*columns, *columns.values(), *(PROMPTS if "prompt" in columns else ())}
    for row in rows:
        if columns and isinstance(row.content, dict):
            others = {name: value for name, value in row.content.items() if name not in aside}
            named = {name: row.content[column] for name, column in columns.items() if column in row.content}
            yield replace(row, content=others | named)
        else:
            yield row


def _account(coverage: Coverage, splits: dict[Split, list[TokenPair]], rejections: list[Rejection]) -> None:
    coverage.splits = {split: len(pairs) for split, pairs in splits.items()}
    coverage.used = sum(coverage.splits.values())
    coverage.rejected = dict(sorted(Counter(rejection.reason for rejection in rejections).items()))
    cut = [pair.truncated for pairs in splits.values() for pair in pairs if pair.truncated]
    coverage.truncated, coverage.truncated_tokens = len(cut), sum(cut)
    every = [pair for pairs in splits.values() for pair in pairs]
    coverage.duplicates = sum(len(pairs) - len({pair.key for pair in pairs}) for pairs in splits.values())
    ways = {(pair.chosen.key, pair.rejected.key) for pair in every}
    coverage.contradictions = sum((rejected, chosen) in ways for chosen, rejected in ways) // 2
    coverage.chosen_longer = sum(pair.chosen.n_scored > pair.rejected.n_scored for pair in every)
