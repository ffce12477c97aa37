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
from data.tokens.sketches import SKETCH_BYTES

Positions = npt.NDArray[np.int64]

DIGEST = pa.binary(16)
TEXTS = ("prompt_text", "chosen_text", "rejected_text")
SKETCHES = ("chosen_sketch", "rejected_sketch")
_IDS, _MASK = pa.list_(pa.int32()), pa.list_(pa.uint8())
PART_SCHEMA = pa.schema(
    [
        ("line", pa.int32()),
        ("candidate", pa.int32()),
        ("ordinal", pa.int32()),
        ("pair_key", pa.string()),
        ("prompt_key", pa.string()),
        ("chosen_key", pa.string()),
        ("rejected_key", pa.string()),
        ("prompt_ids", _IDS),
        ("chosen_ids", _IDS),
        ("chosen_mask", _MASK),
        ("rejected_ids", _IDS),
        ("rejected_mask", _MASK),
        ("n_prompt", pa.int32()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
        ("n_chosen", pa.int32()),
        ("n_rejected", pa.int32()),
        ("truncated", pa.int32()),
        ("group", pa.uint64()),
        *((name, DIGEST) for name in TEXTS),
        *((name, pa.binary(SKETCH_BYTES)) for name in SKETCHES),
    ]
)
"""A pair of a part. `line` and `ordinal` count from the part's first line and first pair; of several pairs of a row
`candidate` says which it is (from 1, else 0). A mask is empty where every token is scored; n_chosen and n_rejected are
the numbers of scored tokens. The split is cut by `group`; texts and sketches are for comparing days (changes.py)."""


def token_columns(pairs: Sequence[TokenPair]) -> dict[str, list[Any]]:
    """The columns of PART_SCHEMA that tell tokens."""
    return {
        "pair_key": [pair.key for pair in pairs],
        "prompt_key": [pair.prompt_key for pair in pairs],
        "chosen_key": [pair.chosen.key for pair in pairs],
        "rejected_key": [pair.rejected.key for pair in pairs],
        "prompt_ids": [pair.chosen.prompt_ids for pair in pairs],
        "chosen_ids": [pair.chosen.ids for pair in pairs],
        "chosen_mask": [_mask(pair.chosen) for pair in pairs],
        "rejected_ids": [pair.rejected.ids for pair in pairs],
        "rejected_mask": [_mask(pair.rejected) for pair in pairs],
        "n_prompt": [len(pair.chosen.prompt_ids) for pair in pairs],
        "chosen_tokens": [len(pair.chosen.ids) for pair in pairs],
        "rejected_tokens": [len(pair.rejected.ids) for pair in pairs],
        "n_chosen": [pair.chosen.n_scored for pair in pairs],
        "n_rejected": [pair.rejected.n_scored for pair in pairs],
        "truncated": [pair.truncated for pair in pairs],
    }


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
        line, candidate, ordinal, truncated = (int(values[i]) for values in self._numbers)
        prompt = self._list("prompt_ids", i)
        chosen, rejected = (self._response(prompt, side, i) for side in ("chosen", "rejected"))
        location = self.place.location(line, candidate)
        pair = TokenPair(self.place.first_row + ordinal, location, chosen, rejected, truncated)
        # The file's digest has been checked: to hash each pair again would find nothing.
        vars(pair).update(key=self._text("pair_key", i), prompt_key=self._text("prompt_key", i))
        return pair

    @cached_property
    def _batch(self) -> pa.RecordBatch:
        return open_batch(self.path)

    @cached_property
    def _numbers(self) -> list[npt.NDArray[np.int32]]:
        return [self._batch[name].to_numpy() for name in ("line", "candidate", "ordinal", "truncated")]

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


def _mask(response: Response) -> Any:
    """The mask for the file: nothing where all is scored."""
    return [] if response.mask.all() else response.mask.view(np.uint8)
