"""Scores units of pairs, one behind the other, and has each committed when its last response is read.

On a GPU that is while the first batch of the next unit is under way: neither planning nor writing keeps it waiting.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from data.errors import Interrupted, out_of_memory
from data.schema import Response, TokenPair
from data.store.reference_store import TokenLogps
from stages.job import Bar, Control, Laps
from stages.scoring.scorer import Batch, Scorer
from stages.scoring.transfer import ReadBehind

logger = logging.getLogger(__name__)


@dataclass
class ScoredUnit:
    """A unit of pairs, and what is scored for it."""

    pairs: list[TokenPair]
    responses: list[Response]
    """Those that have to be scored."""
    logps: dict[str, TokenLogps] = field(default_factory=dict)
    """Log-probs of their tokens, by response key, as far as they are read."""
    seconds: float = 0.0


class UnitScores:
    """The units of one job; `commit` is given each of them when it is scored."""

    def __init__(self, scorer: Scorer, control: Control, bar: Bar, commit: Callable[[ScoredUnit], None]) -> None:
        self._scorer, self._control, self._bar, self._commit = scorer, control, bar, commit
        self._reader = ReadBehind(behind=scorer.is_asynchronous)
        self._laps = Laps()

    def add(self, pairs: list[TokenPair], responses: list[Response]) -> None:
        """Score the responses of a unit; where memory runs out, all of them again in smaller passes.

        A part of the store has one pack length.

        Raises:
            Interrupted: a signal came; units before this one are committed.
        """
        while True:
            try:
                self._score(ScoredUnit(pairs, responses))
            except Interrupted:
                self._reader.finish()
                raise
            except (RuntimeError, MemoryError) as error:
                self._reader.finish()
                if not out_of_memory(error) or not self._scorer.shrink(responses):
                    raise
            else:
                return
            logger.warning("memory ran out; going on with packs of %s tokens", self._scorer.stack()["pack_tokens"])

    def finish(self) -> None:
        """Commit what is scored."""
        self._reader.finish()

    def _score(self, unit: ScoredUnit) -> None:
        if self._reader.is_idle:
            self._laps.lap()
        with torch.inference_mode():
            for batch in self._scorer.plan([[response] for response in unit.responses]):
                if self._control.stop_requested():
                    raise Interrupted(
                        "Stopped by a signal: the units that were finished are stored, the one under way was dropped. "
                        "Run the same command again to score the rest."
                    )
                self._reader.read(self._scorer.token_logps(batch.responses), partial(self._note, unit, batch))

    def _note(self, unit: ScoredUnit, batch: Batch, table: np.ndarray) -> None:
        """Keep what a batch came to: the table has a row a response."""
        unit.logps |= {r.key: table[i, : r.n_scored] for i, r in enumerate(batch.responses)}
        seconds = self._laps.lap()
        unit.seconds += seconds
        self._control.worked("reference", seconds, batch.n_tokens)
        self._bar.advance(len(unit.pairs) * len(batch.responses) / len(unit.responses), batch.n_tokens)
        if len(unit.logps) == len(unit.responses):
            self._commit(unit)
