"""The folder of one training run: what run it holds, whether it is finished, and who may write into it.

run.json          what the run's identity is made of
start.json        with `train.model: passed`: the run whose policy this one was begun from, and when
reference.json    which parts of the store it reads, and a digest of the values in them
lock              held by the process that trains
config.yaml       the resolved configuration, without secrets (written by the caller, before work starts)
record.json       what made it, session by session (written by the caller)
metrics.jsonl     one JSON object an optimiser step, with the dev pairs' metrics where they were looked at
visits.parquet    every visit of a pair; while the run goes on, parts of it in visits/
checkpoints/      resumable state
policy/           the trained model; it appears complete, and its presence means that training is finished
eval/             metrics.json, pairs.parquet of the held-out pairs; scores/: their tokens under the policy
dev/              the same of the dev pairs, where a sweep looked at them
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.durable import write_json
from data.errors import ConfigError, EnvironmentProblem, StoreError
from data.field_diff import field_diff
from data.identity import document_key, set_key
from data.locks import only_process
from data.pairs.splits import Split
from data.tokens.token_pairs import TokenPairs
from stages.adapter_files import CONFIG, is_adapter
from stages.training.config import TrainConfig


def run_document(
    train: TrainConfig, splits: Mapping[Split, TokenPairs], reference_id: str, start_policy: str | None
) -> dict[str, Any]:
    """What a run is: training section, pairs, reference (None: not read), identity of the start policy.

    The dev pairs count where they choose the step.
    """
    pairs = splits["train"]
    choosing = {} if train.metric_for_best_model is None else {"dev_pairs": visits_key(splits["dev"])}
    return {
        "train": train.identity(),
        "pairs": visits_key(pairs),
        "n_pairs": len(pairs),
        "reference_id": reference_id if train.reads_reference else None,
        "start_policy": start_policy,
        **choosing,
    }


def visits_key(pairs: TokenPairs) -> str:
    """Identity of what is visited: the pairs' keys, with margin and weight where the data have such."""
    visits = pairs.select("pair_key", "margin", "pair_weight")
    if (visits["margin"] == 0).all() and (visits["pair_weight"] == 1).all():
        return set_key(visits["pair_key"])
    return set_key(f"{key} {margin!r} {weight!r}" for key, margin, weight in visits.iter_rows())


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @property
    def policy(self) -> Path:
        """The trained model."""
        return self.path / "policy"

    @property
    def is_trained(self) -> bool:
        """Whether training has finished."""
        return self._policy_config.is_file()

    @property
    def trained_at(self) -> int:
        """When training finished, in nanoseconds."""
        return self._policy_config.stat().st_mtime_ns

    @property
    def _policy_config(self) -> Path:
        return self.policy / (CONFIG if is_adapter(self.policy) else "config.json")

    @property
    def checkpointed_step(self) -> int:
        """The step of the newest checkpoint, sound or not; 0: there is none."""
        names = [path.name for path in (self.path / "checkpoints").glob("step-*")]
        return max((int(name.removeprefix("step-")) for name in names), default=0)

    @property
    def checkpoint_bytes(self) -> int:
        """What checkpoints take of the disk."""
        return sum(path.stat().st_size for path in (self.path / "checkpoints").rglob("*") if path.is_file())

    @property
    def is_begun(self) -> bool:
        """Whether a step of training has left anything here."""
        metrics = self.path / "metrics.jsonl"
        return self.is_trained or self.checkpointed_step > 0 or (metrics.is_file() and metrics.stat().st_size > 0)

    @property
    def identity(self) -> str:
        """sha256 of what the folder says it holds."""
        return document_key(self.document())

    def document(self) -> dict[str, Any] | None:
        """What run the folder holds, or None where it holds none."""
        try:
            return dict(json.loads((self.path / "run.json").read_bytes()))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(
                f"{self.path / 'run.json'} is not JSON ({error}), so it cannot be told which run this folder holds. "
                "Move the folder away and train again."
            ) from error

    def holds(self, document: dict[str, Any]) -> bool:
        """Whether the folder holds this run; a start policy that is out of reach is not compared."""
        held = self.document()
        if held is not None and document["start_policy"] is None:
            document = {**document, "start_policy": held["start_policy"]}
        return held == document

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Hold the folder while writing to it; the lock goes with the process, however that ends.

        Raises:
            EnvironmentProblem: another process holds it.
        """

        def refuse() -> None:
            raise EnvironmentProblem(
                f"Another process is training in {self.path} at this moment, so this one has not started. Let that "
                "one finish (the same command then finds the run done), or stop it first."
            )

        with only_process(self.path / "lock", busy=refuse):
            yield

    def claim(self, document: dict[str, Any]) -> None:
        """Take the folder for this run, or find that it is this run's already.

        A run that was refused before its first step does not hold its name.

        Raises:
            ConfigError: it holds another run.
        """
        held = self.document()
        if held is not None and self.holds(document):
            return
        if held is None or not self.is_begun:
            for left in ("reference.json", "start.json"):
                (self.path / left).unlink(missing_ok=True)
            write_json(self.path / "run.json", document)
        else:
            raise ConfigError(
                f"The run folder {self.path} holds another run, which differs in: "
                f"{'; '.join(field_diff(held, document))}. Name this one otherwise (--set run=NAME), or move "
                "the folder away."
            )

    def drop_checkpoints(self) -> None:
        """Remove what only a run that goes on has a use for."""
        shutil.rmtree(self.path / "checkpoints")

    def pinned_parts(self) -> list[str] | None:
        """The parts of the store that the run has read, or None before it has read any."""
        return None if (pin := self._pin()) is None else list(pin["parts"])

    def pin(self, parts: Sequence[str], values: str) -> None:
        """Keep which parts were read and the digest of their values; a run that goes on has to have the same values.

        Raises:
            StoreError: they are not the same.
        """
        pin = self._pin()
        if pin is None:
            write_json(self.path / "reference.json", {"parts": list(parts), "values": values})
        elif pin["values"] != values:
            raise StoreError(
                f"The reference log-probs of run {self.path.name} are no longer those that it was begun with: parts of "
                f"the store that {self.path / 'reference.json'} lists are gone, and those there now say otherwise. "
                "Nothing was trained. Restore the parts, or begin a new run (--set run=NAME)."
            )

    def _pin(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.path / "reference.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def find_run(runs: Path, name: str | None, document: dict[str, Any]) -> RunFolder:
    """The folder of this run: by the name given, otherwise by the first 12 hex digits of its identity.

    Where the start policy is out of reach (None in the document), a run that agrees in all else is this run.
    """
    if name is None and document["start_policy"] is None:
        for path in sorted(runs.glob("*/run.json")):
            run = RunFolder(path.parent)
            if run.holds(document):
                return run
    return RunFolder(runs / (name or document_key(document)[:12]))
