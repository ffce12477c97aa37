"""All that a run writes and says of its steps: metrics.jsonl, visits, trackers, what people see, what has to be named.

Of several processes the first one records.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from stages.job import Bar
from stages.training.displacement import Displacement
from stages.training.figures import Figures, first_and_last
from stages.training.job import Training
from stages.training.run_log import RunLog
from stages.training.step import StepResult
from stages.training.trackers import open_trackers
from stages.training.visits import VisitLog

logger = logging.getLogger(__name__)


class Recorder:
    """Of a run that goes on after `step` steps: what was recorded of later ones is taken back."""

    def __init__(self, job: Training, step: int) -> None:
        folder, config = job.run.path, job.config
        self._lines = RunLog(folder / "metrics.jsonl", step)
        self._visits = VisitLog(folder, config.beta)
        self._visits.take_back(step)
        self._trackers = open_trackers(config.report_to, folder, job.run.identity, config.model_dump(mode="json"), step)
        self._figures = Figures()
        self._displacement = Displacement(config) if job.split.reference is not None else None
        self._all = self._lines.earlier
        for line in self._all:
            self._figures.add(line)
        if self._displacement is not None:
            self._displacement.replay(self._all)

    def add(self, result: StepResult, line: Mapping[str, Any], bar: Bar) -> None:
        """Take a step in: what it said of its pairs, and its line of metrics.jsonl."""
        step = line["step"]
        self._visits.add(step, result.pairs, result.scores, result.losses, result.weights)
        self._visits.flush_if_due()
        self._lines.append(line)
        self._all.append(dict(line))
        self._trackers.log(line, step)
        self._figures.add(line)
        bar.show(self._figures.shown())
        if self._displacement is not None and (sentence := self._displacement.observe(line)) is not None:
            logger.warning("%s", sentence)

    def flush(self) -> None:
        """Make durable what a checkpoint vouches for; before it is there."""
        self._lines.flush()
        self._visits.flush()

    def finish(self) -> None:
        """The run is complete."""
        self._visits.finish()

    def document(self) -> dict[str, Any]:
        """How the run began and how it ended, for its report."""
        return first_and_last(self._all)

    def close(self) -> None:
        """Whatever the end: keep what was recorded."""
        with ExitStack() as each:
            each.callback(self._trackers.finish)
            each.callback(self._lines.close)
            each.callback(self._visits.flush)


@contextmanager
def recording(job: Training, step: int, *, here: bool) -> Iterator[Recorder | None]:
    """A recorder; None in a process that does not record."""
    if not here:
        yield None
        return
    recorder = Recorder(job, step)
    try:
        yield recorder
    finally:
        recorder.close()
