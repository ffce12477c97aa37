"""What every job needs before it starts: the bound reference, the prepared pairs, the run that is meant."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.durable import write_bytes
from data.errors import Interrupted
from data.identity import document_key
from data.preparation import PREPARATION_VERSION, DataConfig, PreparedPairs, check_usable, prepare
from data.schema import TokenPair
from data.sources import Source, source_digest
from data.store import ReferenceStore
from data.tokenization import PairTokenizer, end_ids, load_tokenizer
from pipeline.config import PipelineConfig
from pipeline.workspace import Workspace
from stages.job import Control
from stages.reference import BoundReference, bind, locate, model_identity, tokenizer_digests, unreachable
from stages.run_folder import RunFolder, find_run, run_document
from stages.scoring.config import Numerics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """One configuration, its work folder, and the hands of the process."""

    config: PipelineConfig
    control: Control
    dry_run: bool = False

    @property
    def workspace(self) -> Workspace:
        """The work folder."""
        return Workspace(self.config.workdir)

    def write_config(self, folder: Path) -> None:
        """The resolved configuration, before work starts."""
        write_bytes(folder / "config.yaml", self.config.as_yaml().encode())

    def bind(self, *, renew: bool) -> BoundReference:
        """The reference that the configuration stands for."""
        workspace, config = self.workspace, self.config
        store = workspace.store_root(config.store)
        return bind(config.reference, config.scoring.backend, store, workspace.lock, workspace.digests, renew=renew)

    def numerics(self, bound: BoundReference) -> Numerics:
        """What all jobs compute with, given how the reference is stored."""
        scoring = self.config.scoring
        attention = bound.attention if bound.settled else None
        return Numerics(self.config.reference.dtype, scoring.backend, scoring.pack_tokens, attention)

    def store(self, bound: BoundReference) -> ReferenceStore:
        """Its rows."""
        return self.workspace.store(self.config.store, bound.reference_id)

    def pairs(self, model_folder: Path | None) -> PreparedPairs:
        """The prepared pairs: loaded where they were made from the same, made otherwise.

        `model_folder` holds the tokenizer; None takes the one that made the pairs before.
        """
        folder, data = self.workspace.pairs, self.config.data
        if model_folder is None:
            recorded = folder.origin()
            if recorded is None:
                raise unreachable("reference.model", self.config.reference.model)
            tokenization = recorded["tokenization"]
        else:
            tokenization = {
                "tokenizer": tokenizer_digests(model_folder, self.workspace.digests),
                "generation_eos": _generation_eos(model_folder),
            }
        origin = _origin(data, tokenization)
        prepared = folder.load(origin)
        if prepared is None:
            tokenizer = load_tokenizer(model_folder or folder.tokenizer)
            pair_tokenizer = PairTokenizer(
                tokenizer, end_ids(tokenizer, tokenization["generation_eos"]), data.max_length
            )
            with self.control.bar("reading", 0) as bar:
                prepared = prepare(data, pair_tokenizer, lambda rows: self._advance(bar, rows))
            if not self.dry_run:
                folder.write(prepared, origin, tokenizer)
        check_usable(prepared, data.max_bad)
        return prepared

    def start_policy(self, bound: BoundReference, *, download: bool) -> tuple[str | None, Path | None]:
        """Identity and folder of the model that training starts from; None, None where it is out of reach."""
        if self.config.train.model is None:
            return bound.reference_id, bound.folder
        folder = locate(self.config.train.model, None, download=download)
        if folder is None:
            return None, None
        return self.model_id(folder, bound), folder

    def model_id(self, folder: Path, bound: BoundReference) -> str:
        """Identity of a model under the reference's numerics: the reference's, if it is the reference."""
        return document_key(model_identity(folder, self.config.reference, bound.attention, self.workspace.digests))

    def run(
        self, bound: BoundReference, pairs: list[TokenPair], start_id: str | None
    ) -> tuple[RunFolder, dict[str, Any]]:
        """The run that this configuration stands for, and what makes it that run."""
        document = run_document(self.config.train, pairs, bound.reference_id, start_id)
        return find_run(self.workspace.runs, self.config.run, document), document

    def _advance(self, bar: Any, rows: int) -> None:
        if self.control.stop_requested():
            raise Interrupted("Stopped by a signal while reading the data; nothing was written. Run it again.")
        bar.advance(rows, 0)


def _origin(data: DataConfig, tokenization: dict[str, Any]) -> dict[str, Any]:
    """What prepared pairs depend on."""
    return {
        "version": PREPARATION_VERSION,
        "train": [_source(source) for source in data.train],
        "eval": [_source(source) for source in data.eval or []],
        "held_out_fraction": data.held_out_fraction,
        "dev_fraction": data.dev_fraction,
        "max_length": data.max_length,
        "tokenization": tokenization,
    }


def _source(source: Source) -> dict[str, Any]:
    return {"name": source.name, "digest": source_digest(source)}


def _generation_eos(model_folder: Path) -> int | list[int] | None:
    path = model_folder / "generation_config.json"
    eos = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
    return eos if isinstance(eos, int | list) else None
