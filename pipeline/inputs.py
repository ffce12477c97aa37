"""What every job needs before it starts: the bound reference, the prepared pairs, the run that is meant."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from data.durable import write_bytes
from data.errors import Interrupted
from data.identity import document_key
from data.pairs.pair_parts import named_digest
from data.pairs.part_maker import PartMaker, TokenizerRecipe
from data.pairs.preparation import PREPARATION_VERSION, PreparedPairs, prepare
from data.pairs.splits import Split
from data.pairs.usable import check_usable
from data.sources.source import Source, source_digest
from data.store.reference_store import ReferenceStore
from data.tokens.marked_text import marked_pair
from data.tokens.token_pairs import TokenPairs
from pipeline.config import PipelineConfig
from pipeline.workspace import Workspace
from stages.job import Control
from stages.model_files import (
    model_identity,
    tokenizer_digests,
    tokenizer_folder,
    unreachable,
    weights_folder,
)
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
    file: Path | None = None
    """Of the configuration."""

    @property
    def workspace(self) -> Workspace:
        """The work folder."""
        return Workspace(self.config.workdir)

    def write_config(self, folder: Path) -> None:
        """The resolved configuration, before work starts; secrets are left out of it."""
        write_bytes(folder / "config.yaml", self.config.without_secrets().encode())

    def bind(self, *, download: bool = False, hold_to_lock: bool = False) -> BoundReference:
        """The reference that the configuration stands for."""
        workspace, config = self.workspace, self.config
        places = workspace.storage(config.store), workspace.lock, workspace.digests
        return bind(config.reference, config.scoring.backend, *places, download=download, hold_to_lock=hold_to_lock)

    def numerics(self, bound: BoundReference) -> Numerics:
        """What all jobs compute with, given how the reference is stored."""
        scoring = self.config.scoring
        attention = bound.attention if bound.settled and bound.own else None
        dtype, quantization = self.config.reference.dtype, self.config.reference.quantization
        return Numerics(dtype, scoring.backend, scoring.pack_tokens, attention, quantization, scoring.compile)

    def store(self, bound: BoundReference) -> ReferenceStore:
        """Its rows."""
        return self.workspace.store(self.config.store, bound.reference_id)

    def pairs(self, model_folder: Path | None) -> PreparedPairs:
        """The prepared pairs, once they are found fit to be trained on.

        Raises:
            DataError: they are not.
        """
        prepared, data = self.prepared(model_folder), self.config.data
        check_usable(prepared, data.max_bad, strict=data.strict)
        return prepared

    def prepared(self, model_folder: Path | None) -> PreparedPairs:
        """The prepared pairs as they are: loaded where they were made from the same, made otherwise.

        `model_folder` holds the tokenizer; None takes the one that made the pairs before.
        """
        folder, data, digests = self.workspace.pairs, self.config.data, self.workspace.digests
        tokenization = self.tokenization(model_folder)
        origin = self._origin(tokenization)
        digests.read(sorted(folder.parts.glob("*.arrow")))
        prepared = folder.load(origin, data, digests.digest)
        if prepared is not None:
            return prepared
        if self.dry_run:
            aside = Path(mkdtemp())
            finalize(self, shutil.rmtree, aside, ignore_errors=True)  # with the job that reads them
            return self._prepare(model_folder, tokenization, [folder.parts, aside])[0]
        with folder.only_writer():
            prepared = folder.load(origin, data, digests.digest)  # of several workers that started together, one did
            if prepared is None:
                prepared, tokenizer = self._prepare(model_folder, tokenization, [folder.parts])
                folder.write(prepared, origin, tokenizer)
                digests.note({part.path: named_digest(part.path) for part in prepared.parts})
        return prepared

    def _prepare(
        self, model_folder: Path | None, tokenization: dict[str, Any], folders: list[Path]
    ) -> tuple[PreparedPairs, Any]:
        """The pairs, made into the last of the folders as far as they are in none; and the tokenizer."""
        data, place = self.config.data, tokenizer_folder(model_folder or self.workspace.pairs.tokenizer)
        eos = tokenization["generation_eos"]
        recipe = TokenizerRecipe(place, tuple(eos) if isinstance(eos, list) else eos, data.max_length)
        maker = PartMaker(recipe, folders, data.workers, self.workspace.digests.digest)
        made_by = {"version": PREPARATION_VERSION, "max_length": data.max_length, "tokenization": tokenization}
        with self.control.bar("reading", 0) as bar:
            prepared = prepare(data, maker, made_by, partial(self._advance, bar))
        tokenizer = maker.tokenizer.tokenizer
        prepared.example = marked_pair(prepared.all[0], tokenizer) if prepared.all else None
        return prepared, tokenizer

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

    def model_id(self, folder: Path, bound: BoundReference) -> str:
        """Identity of a model under the reference's numerics: the reference's, if it is the reference."""
        dtype, quantization = self.config.reference.dtype, self.config.reference.quantization
        return document_key(model_identity(folder, dtype, bound.attention, self.workspace.digests, quantization))

    def run(
        self, bound: BoundReference, splits: Mapping[Split, TokenPairs], start_id: str | None
    ) -> tuple[RunFolder, dict[str, Any]]:
        """The run that this configuration stands for, and what makes it that run."""
        document = run_document(self.config.train, splits, bound.reference_id, start_id)
        return find_run(self.workspace.runs, self.config.run, document), document

    def _origin(self, tokenization: dict[str, Any]) -> dict[str, Any]:
        """What prepared pairs depend on."""
        data = self.config.data
        cut = data.model_dump(mode="json", include={"dev_fraction", "group_by", "max_length"})
        return cut | {
            "version": PREPARATION_VERSION,
            "sources": [[self._source(source), held_out] for source, held_out in data.sources],
            "held_out_fraction": data.held_out_fraction,
            "tokenization": tokenization,
        }

    def _source(self, source: Source) -> dict[str, Any]:
        reading = source.model_dump(mode="json", include={"columns", "pairs", "weight"})
        return {"name": source.name, "digest": source_digest(source, self.workspace.digests.digest), **reading}

    def _advance(self, bar: Any, rows: int) -> None:
        if self.control.stop_requested():
            raise Interrupted(
                "Stopped by a signal while reading the data; what was made of it is kept. Run the same command again."
            )
        bar.advance(rows, 0)


def _generation_eos(model_folder: Path) -> int | list[int] | None:
    path = weights_folder(model_folder) / "generation_config.json"
    eos = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
    return eos if isinstance(eos, int | list) else None
