"""What every job needs before it starts: the bound reference, the prepared pairs, the run that is meant."""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.durable import write_bytes
from data.errors import Interrupted
from data.identity import document_key
from data.marked_text import marked_pair
from data.preparation import PREPARATION_VERSION, DataConfig, PreparedPairs, check_usable, prepare
from data.schema import TokenPair
from data.sources import Source, source_digest
from data.store import ReferenceStore
from data.tokenization import PairTokenizer, end_ids, load_tokenizer
from pipeline.config import PipelineConfig
from pipeline.workspace import Workspace
from stages.job import Control
from stages.model_files import locate, model_identity, tokenizer_digests, unreachable
from stages.reference import BoundReference, bind
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

    def bind(self, *, download: bool = False, hold_to_lock: bool = False) -> BoundReference:
        """The reference that the configuration stands for."""
        workspace, config = self.workspace, self.config
        places = workspace.storage(config.store), workspace.lock, workspace.digests
        return bind(config.reference, config.scoring.backend, *places, download=download, hold_to_lock=hold_to_lock)

    def numerics(self, bound: BoundReference) -> Numerics:
        """What all jobs compute with, given how the reference is stored."""
        scoring = self.config.scoring
        attention = bound.attention if bound.settled and bound.own else None
        return Numerics(self.config.reference.dtype, scoring.backend, scoring.pack_tokens, attention)

    def store(self, bound: BoundReference) -> ReferenceStore:
        """Its rows."""
        return self.workspace.store(self.config.store, bound.reference_id)

    def pairs(self, model_folder: Path | None) -> PreparedPairs:
        """The prepared pairs, once they are found fit to be trained on.

        Raises:
            DataError: they are not.
        """
        prepared = self.prepared(model_folder)
        check_usable(prepared, self.config.data.max_bad, strict=self.config.data.strict)
        return prepared

    def prepared(self, model_folder: Path | None) -> PreparedPairs:
        """The prepared pairs as they are: loaded where they were made from the same, made otherwise.

        `model_folder` holds the tokenizer; None takes the one that made the pairs before.
        """
        folder, data = self.workspace.pairs, self.config.data
        tokenization = self.tokenization(model_folder)
        origin = _origin(data, tokenization)

        def make() -> tuple[PreparedPairs, Any]:
            tokenizer = load_tokenizer(model_folder or folder.tokenizer)
            ends = end_ids(tokenizer, tokenization["generation_eos"])
            with self.control.bar("reading", 0) as bar:
                advance = partial(self._advance, bar)
                made = prepare(data, PairTokenizer(tokenizer, ends, data.max_length), advance)
            made.example = marked_pair(made.all[0], tokenizer) if made.all else None
            return made, tokenizer

        prepared = folder.load(origin)
        if prepared is None and self.dry_run:
            prepared, _ = make()
        elif prepared is None:
            with folder.only_writer():
                prepared = folder.load(origin)  # of several workers that started together, one has made them
                if prepared is None:
                    prepared, tokenizer = make()
                    folder.write(prepared, origin, tokenizer)
        return prepared

    def tokenization(self, model_folder: Path | None) -> dict[str, Any]:
        """What makes tokens of text: the files of the model's tokenizer, or those that made the pairs before."""
        if model_folder is not None:
            return {
                "tokenizer": tokenizer_digests(model_folder, self.workspace.digests),
                "generation_eos": _generation_eos(model_folder),
            }
        recorded = self.workspace.pairs.origin()
        if recorded is None:
            raise unreachable("reference.model", self.config.reference.model)
        return dict(recorded["tokenization"])

    def token_origin(self, bound: BoundReference) -> dict[str, Any]:
        """All that a change of which may change the tokens of a pair, bar the pair."""
        return self.tokenization(bound.folder) | {"max_length": self.config.data.max_length}

    def start_policy(self, bound: BoundReference, *, download: bool) -> tuple[str | None, Path | None]:
        """Identity and folder of the model that training starts from; None, None where it is out of reach."""
        if self.config.train.model is None and bound.own:
            return bound.reference_id, bound.folder
        model = self.config.train.model
        folder = bound.folder if model is None else locate(model, None, download=download)
        if folder is None:
            return None, None
        return self.model_id(folder, bound), folder

    def model_id(self, folder: Path, bound: BoundReference) -> str:
        """Identity of a model under the reference's numerics: the reference's, if it is the reference."""
        return document_key(
            model_identity(folder, self.config.reference.dtype, bound.attention, self.workspace.digests)
        )

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
    reading = source.model_dump(mode="json", include={"columns", "pairs"})
    return {"name": source.name, "digest": source_digest(source), **reading}


def _generation_eos(model_folder: Path) -> int | list[int] | None:
    path = model_folder / "generation_config.json"
    eos = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
    return eos if isinstance(eos, int | list) else None
