"""The runs of a grid: making them, and finding those that are finished, whoever made them."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from data.errors import PipelineError
from data.identity import document_key
from data.pairs.preparation import PreparedPairs
from pipeline.eval_job import evaluation_of, result_folder, subject_of
from pipeline.inputs import Inputs
from pipeline.records import recorded
from pipeline.start import Start, start_policy
from pipeline.sweep.comparison import RunResult, Score, setting_of
from pipeline.sweep.config import Metric
from pipeline.sweep.grid import GridPoint
from pipeline.train_job import train_policy
from stages.evaluate import evaluate
from stages.evaluation.evaluation import Evaluation
from stages.job import JobReport
from stages.metrics.paired import seed_variance
from stages.metrics.values import PAIR_VALUES, pair_values
from stages.reference import BoundReference
from stages.run_folder import RunFolder, visits_key

Split = Literal["dev", "eval"]


@dataclass
class GridRuns:
    """A run for each grid point, all over the same pairs and the same reference."""

    inputs: Inputs
    points: Sequence[GridPoint]
    metric: Metric
    bound: BoundReference
    prepared: PreparedPairs
    _finished: dict[int, RunResult] = field(default_factory=dict)
    """By grid point: they need not be looked at again."""

    @property
    def identity(self) -> str:
        """sha256 over the runs (train section, pairs, reference, start), and the pairs that they are compared on."""
        names = [run.path.name for run, _ in self._folders]
        splits = {split: visits_key(self.prepared.splits[split]) for split in ("dev", "eval")}
        return document_key({"runs": names, **splits})

    def is_trained(self, i: int) -> bool:
        """Whether the policy of a grid point is there."""
        run, document = self._folders[i]
        return run.is_trained and run.holds(document)

    def train(self, i: int) -> JobReport:
        """Train it unless that was done before; in a dry run, say what it takes."""
        return train_policy(self._inputs_of(i), self.bound, self.prepared, self._start)[1]

    def evaluate(self, i: int, split: Split) -> JobReport:
        """Score the pairs of a split with it unless that was done before; no gates."""
        inputs = self._inputs_of(i)
        evaluation = self._evaluation(i, split, read_store=True)
        with recorded(inputs, "eval", result_folder(evaluation), **subject_of(evaluation)) as record:
            record.report, _ = evaluate(evaluation, None, inputs.numerics(self.bound), record.inputs.control)
        return record.report

    def finished(self, i: int) -> RunResult | None:
        """Its figures; None before it is trained and evaluated on both splits."""
        if i not in self._finished:
            with suppress(PipelineError):  # told to whoever makes it; the other runs can be compared
                self._look(i)
        return self._finished.get(i)

    def pending(self, i: int) -> RunResult:
        """What is known of it before it is finished."""
        point = self.points[i]
        return RunResult(point.config.train, point.assignments, self._folders[i][0].path.name, "pending")

    def seed_sd_beyond_pairs(self) -> float | None:
        """What `eval.seed_sd` takes: the noise of seeds that flips of single held-out pairs do not explain.

        None where no two finished runs differ in the seed alone.
        """
        variances: list[float] = []
        finished = [i for i in range(len(self.points)) if self.finished(i) is not None]
        for _, alike in groupby(finished, key=lambda i: setting_of(self.points[i].config.train)):
            frames = [self._evaluation(i, "eval", read_store=False).scored() for i in alike]
            known = [frame.sort("pair_key", "row") for frame in frames if frame is not None]
            values = [pair_values(frame, self.metric) for frame in known]
            prompts = known[0]["prompt_key"].to_list() if known else []
            variances += seed_variance(values, prompts, share=PAIR_VALUES[self.metric].share)
        return math.sqrt(max(0.0, math.fsum(variances) / len(variances))) if variances else None

    def _look(self, i: int) -> None:
        if not self.is_trained(i):
            return
        dev, held_out = (self._evaluation(i, split, read_store=False).earlier() for split in ("dev", "eval"))
        if dev is not None and held_out is not None:
            scores = self._score(dev), self._score(held_out)
            self._finished[i] = replace(self.pending(i), status="done", dev=scores[0], held_out=scores[1])

    @cached_property
    def _folders(self) -> list[tuple[RunFolder, dict[str, Any]]]:
        """Where each run belongs, and what makes it that run."""
        splits = self.prepared.splits
        start_id = self._start.policy_id
        return [self._inputs_of(i).run(self.bound, splits, start_id) for i in range(len(self.points))]

    @cached_property
    def _start(self) -> Start:
        """What all runs start from: they are compared."""
        grid = [point.config.train for point in self.points]
        return start_policy(self.inputs, self.bound, self.prepared.splits, download=True, grid=grid)

    def _inputs_of(self, i: int) -> Inputs:
        """What a job of this grid point alone would have."""
        return replace(self.inputs, config=self.points[i].config)

    def _evaluation(self, i: int, split: Split, *, read_store: bool) -> Evaluation:
        run, _ = self._folders[i]
        return evaluation_of(self._inputs_of(i), self.bound, run, self.prepared, split, read_store=read_store)

    def _score(self, evaluated: dict[str, Any]) -> Score:
        metrics = evaluated["metrics"]
        value, low, high = (metrics[self.metric + end] for end in ("", "_low", "_high"))
        return Score(value, low, high, metrics.get("drift"))
