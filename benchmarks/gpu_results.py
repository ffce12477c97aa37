"""What stands in a file of the GPU benchmark, cell by cell, over the rounds."""

import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Result(NamedTuple):
    """One cell. Figures are medians over its rounds."""

    task: str
    model: str
    mix: str
    contender: str
    runs: list[dict[str, Any]]
    """Reports of the rounds that ended well."""
    errors: list[str]
    """Of the others."""

    def median(self, of: Callable[[dict[str, Any]], float]) -> float:
        """Over the rounds."""
        return float(statistics.median(of(run) for run in self.runs))

    @property
    def pairs_per_second(self) -> float:
        """What it is about."""
        return self.median(lambda run: run["pairs"] / run["seconds"])

    @property
    def tokens_per_second(self) -> float:
        """Useful ones: each prompt and each response once."""
        return self.median(lambda run: run["useful_tokens"] / run["seconds"])

    @property
    def flops(self) -> float:
        """Useful operations a second."""
        return self.median(lambda run: run["useful_flops"] / run["seconds"])

    @property
    def share(self) -> float:
        """Of the rate of matrix products around it."""
        return self.median(lambda run: run["useful_flops"] / run["seconds"] / statistics.mean(run["rates"]))

    @property
    def peak(self) -> float:
        """Bytes: allocated on a GPU, resident otherwise."""
        return self.median(lambda run: run["peak_bytes"])


class Results:
    """All cells of a file."""

    def __init__(self, document: dict[str, Any]) -> None:
        found: dict[tuple[str, str, str, str], Result] = {}
        for entry in document["cells"]:
            cell = entry["cell"]
            key = (cell["task"], cell["model"], cell["mix"], cell["contender"])
            result = found.setdefault(key, Result(*key, [], []))
            if "error" in entry:
                result.errors.append(entry["error"])
            else:
                result.runs.append(entry)
        self._by_key = found

    def all(self) -> list[Result]:
        """Those with figures, as they stand in the file."""
        return [result for result in self._by_key.values() if result.runs]

    def failed(self) -> list[Result]:
        """Those without."""
        return [result for result in self._by_key.values() if not result.runs]

    def get(self, task: str, model: str, mix: str, contender: str) -> Result | None:
        """With figures, or None."""
        result = self._by_key.get((task, model, mix, contender))
        return result if result is not None and result.runs else None

    def rows(self) -> list[tuple[str, str, str]]:
        """Task, model and mix of all that have figures."""
        return list(dict.fromkeys((result.task, result.model, result.mix) for result in self.all()))

    def of_row(self, row: tuple[str, str, str]) -> list[Result]:
        """The contenders of a row."""
        return [result for result in self.all() if (result.task, result.model, result.mix) == row]

    def fastest(self, row: tuple[str, str, str], wanted: Callable[[str], bool]) -> Result | None:
        """Of the contenders whose name is wanted."""
        return fastest(result for result in self.of_row(row) if wanted(result.contender))


def fastest(results: Iterable[Result]) -> Result | None:
    """The one with most pairs a second."""
    return max(results, key=lambda result: result.pairs_per_second, default=None)


def is_ours(contender: str) -> bool:
    """Our own way, in any setting a user has: not the variants that show what a part of it is worth."""
    parts = set(contender.split("-"))
    return "ours" in parts and not parts & {"separate", "memory", "rows", "flex", "segments"}


def is_default_trl(contender: str) -> bool:
    """TRL as it comes, with 8-bit moments where nothing else fits; the reference precomputed."""
    return contender in ("trl-default", "trl-default-8bit")


def is_tuned_trl(contender: str) -> bool:
    """TRL in any other setting, the reference precomputed."""
    return contender.startswith("trl-") and not is_default_trl(contender) and "memory" not in contender.split("-")
