"""The accuracies of parts of the pairs: by source, turns, length, score gap, and the columns of `eval.slices`."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.metrics.strata import named_share, strata
from stages.metrics.values import PAIR_VALUES, has_reference

PREFIX = "slice:"
"""Of the columns that hold the user's, so that these may be called as they like."""
SMALL = 30
"""A slice of fewer pairs is marked: its interval may be a third wide."""
_MOST_VALUES = 20  # of a column; those with fewer pairs are one slice together
_MOST_TURNS = 4
_QUARTILES = 4
_SHOWN = 200  # characters of a value
_OTHERS, _MISSING = "(other)", "(missing)"
_ACCURACIES = ("reward_accuracy", "ranking_accuracy", "ref_ranking_accuracy")


class _Cut(NamedTuple):
    """Pairs in slices."""

    labels: list[str]
    of: npt.NDArray[np.int64]
    """(N,) The slice of each pair, as a place in `labels`."""


def slices(frame: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Every slice of evaluated pairs with its accuracies, under the name of what they are cut by.

    `slice:NAME` is a column of the user's, called NAME here unless one of the others is called so. By what the pairs do
    not have (a score gap) there are no slices. The order of the pairs is of no consequence.
    """
    if frame.is_empty():
        return {}
    cuts: dict[str, Callable[[pl.Series], _Cut]] = {
        "source": _by_value,
        "turns": _by_turns,
        "length": lambda tokens: _by_quartile(tokens, " tokens"),
        "score_gap": _by_quartile,
    }
    if "n_prompt" in frame.columns:
        frame = frame.with_columns(length=pl.col("n_prompt").cast(pl.Int64) + pl.col("n_chosen"))
    found = {name: cut(frame[name]) for name, cut in cuts.items() if name in frame.columns and frame[name].count()}
    for column in frame.columns:
        name = column.removeprefix(PREFIX)
        if name != column:
            found[column if name in cuts else name] = _by_column(frame[column])
    values = _values(frame)
    return {name: _rows(values, cut) for name, cut in found.items()}


def _values(frame: pl.DataFrame) -> pl.DataFrame:
    """prompt_key and the accuracies of each pair that there are."""
    names = [name for name in _ACCURACIES if has_reference(frame) or not PAIR_VALUES[name].reference]
    return frame.select("prompt_key", **{name: PAIR_VALUES[name].of for name in names})


def _rows(values: pl.DataFrame, cut: _Cut) -> list[dict[str, Any]]:
    names = [name for name in values.columns if name != "prompt_key"]
    groups = values.with_columns(slice=cut.of).group_by("slice")
    told = groups.agg(pl.len().alias("n"), pl.col("prompt_key").n_unique().alias("n_prompts"), pl.col(names).mean())
    return [
        {"value": cut.labels[row["slice"]], "n": row["n"], "n_prompts": row["n_prompts"], "small": row["n"] < SMALL}
        | {key: number for name in names for key, number in named_share(name, row[name], row["n"]).items()}
        for row in told.sort("slice").iter_rows(named=True)
    ]


def _by_column(series: pl.Series) -> _Cut:
    """A column of the user's: numbers of many values in quartiles (also where they are written as texts)."""
    many = series.drop_nulls().n_unique() > _MOST_VALUES
    if series.dtype.is_numeric():
        numbers = series.fill_nan(None) if series.dtype.is_float() else series
        return _by_quartile(numbers) if many else _cut(numbers, sorted(numbers.drop_nulls().unique()))
    texts = series.cast(pl.String)
    if many and (numbers := texts.cast(pl.Float64, strict=False)).is_finite().sum() == texts.count():
        return _by_quartile(numbers)
    return _by_value(texts)


def _by_turns(turns: pl.Series) -> _Cut:
    numbers = range(_MOST_TURNS)
    of = turns.clip(upper_bound=_MOST_TURNS).fill_null(_MOST_TURNS + 1).to_numpy()
    return _Cut([*map(str, numbers), f"{_MOST_TURNS}+", _MISSING], of)


def _by_value(series: pl.Series) -> _Cut:
    """The values of most pairs first."""
    counts = Counter(series.drop_nulls().to_list())
    return _cut(series, sorted(counts, key=lambda value: (-counts[value], value)))


def _by_quartile(series: pl.Series, unit: str = "") -> _Cut:
    """Quartiles, labelled by the least and the greatest value in them."""
    numbers = series.drop_nulls()
    stratum = strata(numbers.cast(pl.Float64).to_numpy(), _QUARTILES)
    inside = [numbers.filter(stratum == i) for i in np.unique(stratum)]
    ends = [(values.min(), values.max()) for values in inside]
    labels = [_range(low, high, short=True) for low, high in ends]
    if len({*labels}) < len(labels):
        labels = [_range(low, high, short=False) for low, high in ends]
    of = np.full(len(series), len(labels))
    of[series.is_not_null().to_numpy()] = stratum
    return _Cut(_distinct([*(label + unit for label in labels), _MISSING]), of)


def _cut(series: pl.Series, ordered: Sequence[Any]) -> _Cut:
    """A slice for each of the first of the ordered values, one for all others, and one for the pairs without any."""
    shown, others = ordered[:_MOST_VALUES], ordered[_MOST_VALUES:]
    place: dict[Any, int] = {value: i for i, value in enumerate(shown)}
    place |= dict.fromkeys(others, len(shown))
    of = np.array([place.get(value, len(shown) + 1) for value in series.to_list()])
    return _Cut(_distinct([*(_cut_short(str(value)) for value in shown), _OTHERS, _MISSING]), of)


def _distinct(labels: Sequence[str]) -> list[str]:
    """Labels of which no two are the same: a value may be called as what has none."""
    found: list[str] = []
    for label in labels:
        while label in found:
            label = f"({label})"
        found.append(label)
    return found


def _cut_short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _range(low: Any, high: Any, *, short: bool) -> str:
    least, greatest = (f"{end:.4g}" if short and isinstance(end, float) else str(end) for end in (low, high))
    return least if low == high else f"{least} to {greatest}"
