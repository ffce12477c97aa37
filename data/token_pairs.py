"""Token pairs in memory-mapped Arrow files: a million of them are a table of offsets until one is asked for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from data.schema import Response, TokenPair
from data.sketches import SKETCH_BYTES

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
        ("n_chosen", pa.int32()),
        ("n_rejected", pa.int32()),
        ("truncated", pa.int32()),
        ("group", DIGEST),
        *((name, DIGEST) for name in TEXTS),
        *((name, pa.binary(SKETCH_BYTES)) for name in SKETCHES),
    ]
)
"""A pair of a part. `line` and `ordinal` count from the part's first line and first pair; of several pairs of a row
`candidate` says which it is (from 1, else 0). A mask is empty where every token is scored; n_* count scored tokens.
The split is cut by `group`; by texts and sketches a later day compares itself with this one (changes.py)."""


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
    """The pairs of one part."""

    def __init__(self, batch: pa.RecordBatch, place: Place) -> None:
        """`batch`: of PART_SCHEMA."""
        self.batch = batch
        self.place = place
        lists = [name for name in batch.schema.names if pa.types.is_list(batch.schema.field(name).type)]
        self._lists: dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.int32]]] = {
            name: (batch[name].values.to_numpy(), batch[name].offsets.to_numpy()) for name in lists
        }
        # `values` are of the whole batch, whatever slice of it this is; offsets say where a row's begin.
        self._numbers = {name: batch[name].to_numpy() for name in ("line", "candidate", "ordinal", "truncated")}

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def pair(self, i: int) -> TokenPair:
        """The pair in this place of the part."""
        line, candidate, ordinal, truncated = (int(self._numbers[name][i]) for name in self._numbers)
        prompt = self._list("prompt_ids", i)
        chosen, rejected = (self._response(prompt, side, i) for side in ("chosen", "rejected"))
        location = self.place.location(line, candidate)
        pair = TokenPair(self.place.first_row + ordinal, location, chosen, rejected, truncated)
        # The file's digest has been checked: to hash each pair again would find nothing.
        vars(pair).update(key=self._text("pair_key", i), prompt_key=self._text("prompt_key", i))
        return pair

    def lengths(self, name: str) -> npt.NDArray[np.int32]:
        """The length of each row of a column of lists."""
        offsets = self._lists[name][1]
        return offsets[1:] - offsets[:-1]

    def bytes_column(self, name: str) -> npt.NDArray[np.uint8]:
        """A column of byte strings of one width: (rows, width)."""
        column = self.batch[name]
        values = np.frombuffer(column.buffers()[1], np.uint8)
        return values.reshape(-1, column.type.byte_width)[column.offset : column.offset + len(column)]

    def _response(self, prompt: Any, side: str, i: int) -> Response:
        ids, mask = self._list(f"{side}_ids", i), self._list(f"{side}_mask", i)
        response = Response(prompt, ids, mask.view(np.bool_) if len(mask) else np.ones(len(ids), dtype=np.bool_))
        vars(response)["key"] = self._text(f"{side}_key", i)
        return response

    def _list(self, name: str, i: int) -> Any:
        values, offsets = self._lists[name]
        return values[offsets[i] : offsets[i + 1]]

    def _text(self, name: str, i: int) -> str:
        text: str = self.batch[name][i].as_py()
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

    def column(self, name: str) -> pl.Series:
        """A column of the parts, a value for each pair."""
        whole = pl.Series(
            name, pa.chunked_array([part.batch[name] for part in self.parts], PART_SCHEMA.field(name).type)
        )
        return whole if self._is_whole() else whole.gather(self.positions)

    @property
    def keys(self) -> pl.Series:
        """The identity of each pair."""
        return self.column("pair_key")

    def responses(self) -> pl.DataFrame:
        """The chosen and then the rejected side of each pair: response_key, n_tokens (the prompt's too), n_scored."""
        prompt = self.lengths("prompt_ids")
        return pl.concat(
            pl.DataFrame(
                {
                    "response_key": self.column(f"{side}_key"),
                    "n_tokens": prompt + self.lengths(f"{side}_ids"),
                    "n_scored": self.column(f"n_{side}"),
                }
            )
            for side in ("chosen", "rejected")
        )

    @property
    def n_tokens(self) -> int:
        """Tokens the model reads of both sides of all pairs."""
        return int(self.responses()["n_tokens"].sum())

    def lengths(self, name: str) -> pl.Series:
        """The length of each row of a column of lists."""
        whole = np.concatenate([np.empty(0, np.int32), *(part.lengths(name) for part in self.parts)])
        return pl.Series(whole[self.positions], dtype=pl.Int64)

    def _is_whole(self) -> bool:
        return len(self) == self._starts[-1] and bool((np.diff(self.positions) == 1).all())


class _MemoryPart(PairPart):
    """Pairs that were made in this process, each with a place of its own."""

    def __init__(self, pairs: Sequence[TokenPair]) -> None:
        zeros = [0] * len(pairs)
        columns: dict[str, list[Any]] = {"line": zeros, "candidate": zeros, "ordinal": zeros} | token_columns(pairs)
        unknown = dict.fromkeys(("group", *TEXTS, *SKETCHES), [None] * len(pairs))
        super().__init__(pa.record_batch(columns | unknown, schema=PART_SCHEMA), Place("", 0, 0))
        self._pairs = pairs

    def pair(self, i: int) -> TokenPair:
        return self._pairs[i]


def open_batch(path: Path) -> pa.RecordBatch:
    """The one batch of an Arrow file, memory-mapped."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(0)


def _mask(response: Response) -> Any:
    """The mask for the file: nothing where all is scored."""
    return [] if response.mask.all() else response.mask.view(np.uint8)
