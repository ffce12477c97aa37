"""Where things lie in the work folder. Names here are a contract: scripts outside the project rely on them."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.durable import replace_link, write_json
from data.identity import DigestMemo
from data.pairs.folder import PairsFolder
from data.store.reference_store import ReferenceStore, StoreConfig
from data.store.storage import LocalStorage, Storage, open_storage
from stages.run_folder import RunFolder


@dataclass(frozen=True)
class Workspace:
    """The work folder."""

    root: Path

    @property
    def pairs(self) -> PairsFolder:
        """Token pairs, rejected rows, tokenizer."""
        return PairsFolder(self.root / "pairs")

    @property
    def lock(self) -> Path:
        """Which reference the configuration stands for."""
        return self.root / "reference.lock"

    @property
    def scored(self) -> Path:
        """Which pairs were scored last."""
        return self.root / "scored.parquet"

    @property
    def runs(self) -> Path:
        """Folders of the runs."""
        return self.root / "runs"

    @property
    def sweeps(self) -> Path:
        """Folders of what grids came to."""
        return self.root / "sweep"

    @property
    def evaluations(self) -> Path:
        """Folders of evaluations of models that are no run's."""
        return self.root / "evaluations"

    @property
    def leaderboards(self) -> Path:
        """Folders of what several models come to beside one another."""
        return self.root / "leaderboard"

    @property
    def generations(self) -> Path:
        """What models have answered to held-out prompts."""
        return self.root / "generations"

    @property
    def digests(self) -> DigestMemo:
        """Remembered digests of files."""
        return DigestMemo(self.root / "digests.json")

    def store(self, config: StoreConfig, reference_id: str) -> ReferenceStore:
        """The rows of one reference in the configured store."""
        return ReferenceStore(self.storage(config), reference_id)

    def storage(self, config: StoreConfig) -> Storage:
        """Where the files of the configured store lie."""
        return LocalStorage(self.root / "store") if config.url is None else open_storage(config.url)

    def references_in_use(self) -> set[str]:
        """Ids of the references that the lock or a run of this work folder names."""
        found = set()
        for path in (self.lock, *self.runs.glob("*/run.json")):
            try:
                found.add(json.loads(path.read_bytes())["reference_id"])
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                continue
        return found - {None}  # runs that read no reference

    def kept_for_nobody(self) -> list[Path]:
        """Folders of answers of models that no evaluation of this work folder is about, and no reference is."""
        known = self.references_in_use()
        for path in (*self.runs.glob("*/eval/metrics.json"), *self.evaluations.glob("*/metrics.json")):
            with suppress(ValueError, KeyError, TypeError):
                known.add(json.loads(path.read_bytes())["policy"]["id"])
        return sorted(path for path in self.generations.glob("*") if path.name not in known)

    def all_runs(self) -> list[RunFolder]:
        """Every run there is, by name."""
        return [RunFolder(path.parent) for path in sorted(self.runs.glob("*/run.json"))]

    @property
    def latest(self) -> RunFolder:
        """The run that was trained last."""
        return RunFolder(self.root / "latest")

    @property
    def passed(self) -> RunFolder:
        """The newest run whose gates passed."""
        return RunFolder(self.root / "passed")

    def link(self, name: RunFolder, run: RunFolder) -> None:
        """Let `latest` or `passed` stand for this run, unless it stands for a newer one."""
        if not name.is_trained or name.trained_at <= run.trained_at:
            replace_link(name.path, run.path)

    @property
    def ledger(self) -> Path:
        """What jobs took of devices, a line each."""
        return self.root / "jobs" / "ledger.jsonl"

    def write_job(self, document: dict[str, Any]) -> None:
        """Keep the document of a job's last run that did something: dry runs tell time from its rate."""
        write_json(self.root / "jobs" / f"{document['job']}.json", document)

    def last_job(self, job: str) -> dict[str, Any] | None:
        """The document of the job's last run."""
        try:
            return dict(json.loads((self.root / "jobs" / f"{job}.json").read_bytes()))
        except (FileNotFoundError, ValueError):
            return None
