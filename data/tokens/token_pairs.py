"""Token pairs in memory-mapped Arrow files: a million of them are a table of offsets until one is asked for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from data.parquet import as_frame
from data.schema import Response, TokenPair
from data.tokens.part_schema import PART_SCHEMA, token_columns

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where the rows of a part stand in their source, and among all pairs."""

    file: str
    first_number: int
    first_row: int

    def location(self, line: int, candidate: int) -> str:
        """`file:line`, for the second pair of a row `file:line#2`."""
        return f"{self.file}:{self.first_number + line}" + (f"#{candidate}" if candidate else "")


class PairPart:
    """The pairs of one part. Its columns are read when they are asked for; the tokens of single pairs are mapped."""

    def __init__(self, path: Path, place: Place, n_pairs: int) -> None:
        self.path = path
        self.place = place
        self._n_pairs = n_pairs

    def __len__(self) -> int:
        return self._n_pairs

    def columns(self, names: Sequence[str]) -> pa.RecordBatch:
        """These columns, copied out of the file: nothing else of it stays in memory."""
        mapped = open_batch(self.path).select(list(names))
        return pa.ipc.read_record_batch(mapped.serialize(), mapped.schema)

    def pair(self, i: int) -> TokenPair:
        """The pair in this place of the part."""
        line, candidate, ordinal, truncated, margin, weight = (values[i].item() for values in self._numbers)
        prompt = self._list("prompt_ids", i)
        chosen, rejected = (self._response(prompt, side, i) for side in ("chosen", "rejected"))
        location = self.place.location(line, candidate)
        row = self.place.first_row + ordinal
        pair = TokenPair(row, location, chosen, rejected, truncated, margin, weight)
        # The file's digest has been checked: to hash each pair again would find nothing.
        vars(pair).update(key=self._text("pair_key", i), prompt_key=self._text("prompt_key", i))
        return pair

    @cached_property
    def _batch(self) -> pa.RecordBatch:
        return open_batch(self.path)

    @cached_property
    def _numbers(self) -> list[npt.NDArray[Any]]:
        names = ("line", "candidate", "ordinal", "truncated", "margin", "pair_weight")
        return [self._batch[name].to_numpy() for name in names]

    @cached_property
    def _lists(self) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.int32]]]:
        names = ("prompt_ids", "chosen_ids", "chosen_mask", "rejected_ids", "rejected_mask")
        return {name: (self._batch[name].values.to_numpy(), self._batch[name].offsets.to_numpy()) for name in names}

    def _response(self, prompt: Any, side: str, i: int) -> Response:
        ids, mask = self._list(f"{side}_ids", i), self._list(f"{side}_mask", i)
        response = Response(prompt, ids, mask.view(np.bool_) if len(mask) else np.ones(len(ids), dtype=np.bool_))
        vars(response)["key"] = self._text(f"{side}_key", i)
        return response

    def _list(self, name: str, i: int) -> Any:
        values, offsets = self._lists[name]
        return values[offsets[i] : offsets[i + 1]]

    def _text(self, name: str, i: int) -> str:
        text: str = self._batch[name][i].as_py()
        return text


class TokenPairs(Sequence[TokenPair]):
    """Pairs by their positions in the parts, in any order and as often as wanted."""

    def __init__(self, parts: Sequence[PairPart], positions: Positions | None = None) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.positions = np.arange(self._starts[-1]) if positions is None else positions

    @classmethod
    def of(cls, pairs: Iterable[TokenPair]) -> "TokenPairs":
        """These pairs, in memory."""
        return cls([_MemoryPart(list(pairs))])

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, i: int) -> TokenPair: ...
    @overload
    def __getitem__(self, i: slice) -> "TokenPairs": ...
    def __getitem__(self, i: int | slice) -> "TokenPair | TokenPairs":
        if isinstance(i, slice):
            return TokenPairs(self.parts, self.positions[i])
        position = self.positions[i]
        part = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self.parts[part].pair(int(position - self._starts[part]))

    def __iter__(self) -> Iterator[TokenPair]:
        return (self[i] for i in range(len(self)))

    def take(self, places: npt.ArrayLike) -> "TokenPairs":
        """The pairs in these places."""
        return TokenPairs(self.parts, self.positions[np.asarray(places, dtype=np.int64)])

    def select(self, *columns: str | pl.Expr) -> pl.DataFrame:
        """Columns of PART_SCHEMA, or what is made of them, with a row for each pair; a part is read at a time."""
        wanted = [pl.col(column) if isinstance(column, str) else column for column in columns]
        names = list(dict.fromkeys(name for column in wanted for name in column.meta.root_names()))
        batches = [
            PART_SCHEMA.empty_table().select(names).to_batches(),
            *([part.columns(names)] for part in self.parts),
        ]
        frames = (as_frame(pa.Table.from_batches(batch, _schema(names))).select(wanted) for batch in batches)
        whole = pl.concat(frames)
        return whole if self._is_whole() else whole[self.positions]

    def column(self, name: str) -> pl.Series:
        """A column of PART_SCHEMA, a value for each pair."""
        return self.select(name)[name]

    def places(self) -> pl.DataFrame:
        """Where each pair stands: its part, by the place in `parts`; its row; and its line's number in the file."""
        part = np.searchsorted(self._starts, self.positions, side="right") - 1
        first = [(part.place.first_row, part.place.first_number) for part in self.parts]
        row, number = np.array(first, np.int64).reshape(-1, 2)[part].T
        within = self.select("ordinal", "line")
        return pl.DataFrame({"part": part, "row": row + within["ordinal"], "number": number + within["line"]})

    @property
    def keys(self) -> pl.Series:
        """The identity of each pair."""
        return self.column("pair_key")

    def responses(self) -> pl.DataFrame:
        """The chosen and then the rejected side of each pair: response_key, n_tokens (the prompt's too), n_scored."""
        sides = [
            (
                pl.col(f"{side}_key").alias("response_key"),
                (pl.col("n_prompt") + pl.col(f"{side}_tokens")).alias("n_tokens"),
                pl.col(f"n_{side}").alias("n_scored"),
            )
            for side in ("chosen", "rejected")
        ]
        return pl.concat(self.select(*columns) for columns in sides)

    @property
    def n_tokens(self) -> int:
        """Tokens the model reads of both sides of all pairs."""
        return int(
            self.select(2 * pl.col("n_prompt") + pl.col("chosen_tokens") + pl.col("rejected_tokens")).sum().item()
        )

    def _is_whole(self) -> bool:
        return len(self) == self._starts[-1] and bool((np.diff(self.positions) == 1).all())


class _MemoryPart(PairPart):
    """Pairs that were made in this process, each with a place of its own."""

    def __init__(self, pairs: Sequence[TokenPair]) -> None:
        super().__init__(Path(), Place("", 0, 0), len(pairs))
        self._pairs = pairs

    def columns(self, names: Sequence[str]) -> pa.RecordBatch:
        nothing = dict.fromkeys(PART_SCHEMA.names, [None] * len(self._pairs))
        return pa.record_batch(nothing | token_columns(self._pairs), schema=PART_SCHEMA).select(list(names))

    def pair(self, i: int) -> TokenPair:
        return self._pairs[i]


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([PART_SCHEMA.field(name) for name in names])


def open_batch(path: Path) -> pa.RecordBatch:
    """The one batch of an Arrow file, memory-mapped."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(0)
