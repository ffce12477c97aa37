"""The flight recorder of a run: every visit of a pair with what it said, in runs/<run>/visits.parquet.

Parquet cannot be appended to, so a run that goes on leaves parts, visits/<first step>-<last step>.parquet, which its
end joins. Nothing is deleted before what replaces it is durable, so a kill may leave steps in two files; they say the
same, and whoever reads takes each step from one file.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.durable import fsync_folder, replacing, sweep_temporaries
from data.errors import StoreError, one_line
from data.schema import TokenPair
from stages.metrics.pairwise import PairScores

_NUMBERS = (
    "chosen_reward",
    "rejected_reward",
    "margin",
    "policy_chosen_logps",
    "policy_rejected_logps",
    "loss",
    "weight",
)
VISIT_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("pair_key", pa.string()),
        ("source", pa.string()),
        ("line", pa.string()),
        *((name, pa.float32()) for name in _NUMBERS),
    ]
)
"""A visit. `step` counts from 1 as in metrics.jsonl; `source:line` is the pair's location. Log-probs are sums in nats,
rewards and the margin beta times nats, null where there is no reference; all are from before the update of the step.
`weight` is what the pair itself pulls with: the mean of |d loss / d log pi| over chosen and rejected, per nat, before
the division by the pairs of the step (for sigmoid: beta * sigmoid(-margin)). float32, as the sums in the store."""
_TEXTS = ["pair_key", "source", "line"]
_FLUSH_SECONDS = 60.0
_ROWS = 65_536  # of a row group, and at most in memory while parts are joined


class VisitLog:
    """Every visit of a pair in a run: runs/<run>/visits.parquet."""

    def __init__(self, folder: Path, beta: float) -> None:
        self._folder = folder
        self._beta = beta
        self._pending: list[pa.RecordBatch] = []
        self._flushed_at = time.monotonic()

    def add(
        self,
        step: int,
        pairs: Sequence[TokenPair],
        scores: Sequence[PairScores],
        losses: Sequence[float],
        weights: Sequence[float],
    ) -> None:
        """Remember the visits of an optimiser step, counted from 1; nothing is written yet."""
        places = [pair.location.rpartition(":") for pair in pairs]
        policy_chosen, policy_rejected, ref_chosen, ref_rejected = np.array(scores, np.float64).reshape(-1, 4).T
        chosen, rejected = self._beta * (policy_chosen - ref_chosen), self._beta * (policy_rejected - ref_rejected)
        rewards = (chosen, rejected, chosen - rejected)
        columns = [
            pa.array([step] * len(pairs), pa.int32()),
            pa.array([pair.key for pair in pairs]),
            pa.array([source for source, _, _ in places]),
            pa.array([line for _, _, line in places]),
            *(pa.array(values, pa.float32(), mask=np.isnan(ref_chosen)) for values in rewards),
            *(pa.array(values, pa.float32()) for values in (policy_chosen, policy_rejected, losses, weights)),
        ]
        self._pending.append(pa.record_batch(columns, schema=VISIT_SCHEMA))

    def flush(self) -> None:
        """Make durable what was added since the last flush: before a checkpoint becomes visible, and at any end."""
        if self._pending:
            first, last = self._pending[0]["step"][0].as_py(), self._pending[-1]["step"][-1].as_py()
            _write(
                _part_path(self._folder, first, last),
                pa.Table.from_batches(self._pending).combine_chunks().to_batches(),
            )
            self._pending.clear()
        self._flushed_at = time.monotonic()

    def flush_if_due(self) -> None:
        """Flush once a minute, so that a run under way can be looked at."""
        if time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self.flush()

    def take_back(self, step: int) -> None:
        """Forget the visits of later steps: the run goes on from the end of this one."""
        self._pending = [batch for batch in self._pending if batch["step"][0].as_py() <= step]
        later = [part for part in _parts(self._folder) if part.last > step]
        for part in later:
            if part.first <= step:
                _write(_part_path(self._folder, part.first, step), part.batches(0, step))
        self._drop(part.path for part in later)

    def finish(self) -> None:
        """The run is complete: its parts become visits.parquet."""
        self.flush()
        whole = self._folder / "visits.parquet"
        parts = [part.path for part in _parts(self._folder) if part.path != whole]
        if parts:
            _write(whole, _visits(self._folder))
            self._drop(parts)

    def _drop(self, paths: Iterable[Path]) -> None:
        """Delete for good, and what a killed process left half written."""
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in (self._folder, self._folder / "visits"):
            if folder.is_dir():
                sweep_temporaries(folder)
                fsync_folder(folder)
        with suppress(OSError):
            (self._folder / "visits").rmdir()  # where nothing is left in it


def read_visits(folder: Path) -> pl.LazyFrame:
    """The visits of the run in `folder` that are durable by now, in the order of steps.

    Raises:
        StoreError: a file of them is damaged.
    """
    frames = [pl.scan_parquet(part.path).filter(pl.col("step") > after) for part, after in _in_turn(_parts(folder))]
    return pl.concat(frames) if frames else pl.LazyFrame(schema=_polars_schema())


def _polars_schema() -> pl.Schema:
    frame = pl.from_arrow(VISIT_SCHEMA.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame.schema


class _Part(NamedTuple):
    """A file of visits, and the steps that it reaches from and to."""

    first: int
    last: int
    path: Path

    def batches(self, after: int, until: int | None = None) -> Iterator[pa.RecordBatch]:
        """The visits of the steps after the one and up to the other."""
        with _readable(self.path) as file:
            for batch in file.iter_batches(_ROWS):
                wanted = pc.greater(batch["step"], after)
                if until is not None:
                    wanted = pc.and_(wanted, pc.less_equal(batch["step"], until))
                yield batch.filter(wanted)


def _part_path(folder: Path, first: int, last: int) -> Path:
    return folder / "visits" / f"{first:08d}-{last:08d}.parquet"


def _parts(folder: Path) -> list[_Part]:
    """The files of visits, by the steps that they begin and end with."""
    parts = []
    # The whole comes last: where a part went after it had been listed, the whole is there by then.
    for path in (*(folder / "visits").glob("*-*.parquet"), folder / "visits.parquet"):
        with suppress(FileNotFoundError), _readable(path) as file:
            groups = (file.metadata.row_group(i).column(0).statistics for i in range(file.metadata.num_row_groups))
            steps = [(group.min, group.max) for group in groups]
            parts.append(_Part(steps[0][0], steps[-1][1], path))
    return sorted(parts)


def _in_turn(parts: Iterable[_Part]) -> Iterator[tuple[_Part, int]]:
    """Each part that tells of steps which none before it does, and the last step that those tell of."""
    told = 0
    for part in parts:
        if part.last > told:
            yield part, told
            told = part.last


def _visits(folder: Path) -> Iterator[pa.RecordBatch]:
    """Every visit once."""
    for part, after in _in_turn(_parts(folder)):
        yield from part.batches(after)


@contextmanager
def _readable(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"{path}, which says what each step of the run made of its pairs, cannot be read ({one_line(error)}). "
            "Nothing else depends on it: move it away, and run the same command again."
        ) from error


def _write(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """The visits as one file, in row groups of the same size whatever they came in."""
    with (
        replacing(path) as file,
        pq.ParquetWriter(file, VISIT_SCHEMA, compression="zstd", use_dictionary=_TEXTS) as writer,
    ):
        waiting = VISIT_SCHEMA.empty_table()
        for batch in batches:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
            while waiting.num_rows >= _ROWS:
                writer.write_table(waiting.slice(0, _ROWS).combine_chunks())
                waiting = waiting.slice(_ROWS)
        if waiting.num_rows:
            writer.write_table(waiting.combine_chunks())
