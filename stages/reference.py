"""Which reference a configuration stands for: by the model's files, by the lock, or by a name in the store."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data.durable import write_json
from data.errors import StoreError
from data.field_diff import field_diff
from data.identity import DigestMemo, document_key
from data.settings import Settings
from data.store.references import find_reference, stored_reference
from data.store.storage import Storage
from stages.model_files import locate, model_identity, unreachable
from stages.scoring.config import Attention, Backend, Quantization

logger = logging.getLogger(__name__)


class ReferenceConfig(Settings):
    """Section `reference`: the frozen model that the policy is held to."""

    model: str
    """Hub id or folder of a causal language model (safetensors), or of a LoRA adapter to one, as peft writes it."""
    revision: str | None = None
    """Hub revision (branch, tag or commit); none: the default branch. Folders have none."""
    id: str | None = Field(default=None, coerce_numbers_to_str=True)
    """Name or id of a reference in the store whose rows are to be used, whatever `model` is; for imported rows."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Compute dtype of reference *and* policy in all three jobs; fp32 where exactness matters more than speed."""
    quantization: Quantization | None = None
    """Linear layers of reference *and* policy in 4 bits (`nf4`) or 8 (`int8`), for train.lora; none: as they are."""

    def section(self) -> dict[str, Any]:
        """What a lock is written for; without what is off and older locks do not know."""
        return self.model_dump(mode="json", exclude=None if self.quantization else {"quantization"})


@dataclass(frozen=True)
class BoundReference:
    """The reference that a configuration stands for."""

    config: ReferenceConfig
    reference_id: str
    identity: dict[str, Any]
    folder: Path | None
    """Where the configured model lies; None where it is out of reach."""
    settled: bool = True
    """False: nothing is stored yet, and only the model itself can show whether packs are right for it."""
    own: bool = True
    """False: `reference.id` names rows that the configured model did not make."""
    stored_name: str | None = None

    @property
    def model(self) -> str:
        """As the configuration names it."""
        return self.config.model

    @property
    def name(self) -> str:
        """What people call it; for messages, never for keys."""
        if self.stored_name is not None:
            return self.stored_name
        rows = "" if self.attention == "packs" else f"-{self.attention}"
        bits = f"-{self.config.quantization}" if self.config.quantization else ""
        return f"{Path(self.model).name}-{self.config.dtype}{bits}{rows}"

    @property
    def source(self) -> dict[str, Any]:
        """Where the model comes from; no part of its identity."""
        return {"model": self.model, "revision": self.config.revision}

    @property
    def attention(self) -> Attention:
        """How it is scored: in packs or in rows."""
        attention: Attention = self.identity.get("attention", "packs")
        return attention

    def settle(self, attention: Attention) -> "BoundReference":
        """The same reference, scored so."""
        identity = self.identity | {"attention": attention}
        return BoundReference(self.config, document_key(identity), identity, self.folder)


def bind(
    config: ReferenceConfig,
    backend: Backend,
    store: Storage,
    lock: Path,
    memo: DigestMemo,
    *,
    download: bool,
    hold_to_lock: bool,
) -> BoundReference:
    """The reference that `config` stands for: by its files where they are in reach, otherwise by the lock.

    The job that scores the reference downloads it and writes the lock; jobs that only read hold the files to the lock.
    With the back-end left open, a reference in `store` that agrees in all else says how it is scored.

    Raises:
        ConfigError: the model is out of reach and no lock vouches for it.
        StoreError: the model's files are not those that were locked, or `reference.id` names nothing in the store.
    """
    if config.id is not None:
        return _bound_by_id(config, config.id, store, memo, download=download)
    locked = _read_lock(lock)
    section = config.section()
    folder = locate(config.model, config.revision, download=download)
    if folder is not None:
        bound = _bound_by_files(config, backend, store, locked, folder, memo)
        if hold_to_lock and locked is not None and locked["section"] == section:
            _refuse_other(locked, bound)
        return bound
    if locked is None or locked["section"] != section:
        raise unreachable("reference.model", config.model)
    if download:
        logger.info("reference %s is out of reach; %s vouches for it", config.model, lock)
    return BoundReference(config, locked["reference_id"], locked["identity"], None)


def tokenizer_owner(config: ReferenceConfig, backend: Backend, lock: Path, *, download: bool) -> BoundReference:
    """The model that `config` names for the sake of its tokenizer: no weights are fetched or read, and no store is.

    It has no id. A lock for the same section says how policies are scored, so that they keep theirs.
    """
    locked = _read_lock(lock)
    known = (
        locked["identity"].get("attention", "packs") if locked and locked["section"] == config.section() else "packs"
    )
    attention = known if backend == "auto" else "rows" if backend == "rows" else "packs"
    folder = locate(config.model, config.revision, download=download, weights=False)
    return BoundReference(config, "", {"attention": attention}, folder, settled=False)


def _bound_by_id(
    config: ReferenceConfig, wanted: str, store: Storage, memo: DigestMemo, *, download: bool
) -> BoundReference:
    found = find_reference(store, wanted)
    folder = locate(config.model, config.revision, download=download)
    bound = BoundReference(config, found.reference_id, found.identity, folder, stored_name=found.name)
    own = folder is not None and bound.identity == _identity(config, folder, bound.attention, memo)
    return replace(bound, own=own)


def _bound_by_files(
    config: ReferenceConfig,
    backend: Backend,
    store: Storage,
    locked: dict[str, Any] | None,
    folder: Path,
    memo: DigestMemo,
) -> BoundReference:
    packs = _identity(config, folder, "packs", memo)
    unsettled = BoundReference(config, document_key(packs), packs, folder, settled=False)
    if backend != "auto":
        return unsettled.settle("rows" if backend == "rows" else "packs")
    either = [unsettled.settle("packs"), unsettled.settle("rows")]
    stored = [bound for bound in either if stored_reference(store, bound.reference_id) is not None]
    if locked is not None:
        stored = [bound for bound in either if bound.reference_id == locked["reference_id"]] + stored
    return stored[0] if stored else unsettled


def _identity(config: ReferenceConfig, folder: Path, attention: Attention, memo: DigestMemo) -> dict[str, Any]:
    return model_identity(folder, config.dtype, attention, memo, config.quantization)


def write_lock(lock: Path, config: ReferenceConfig, bound: BoundReference) -> None:
    """Record which reference this configuration stands for."""
    document = {
        "section": config.section(),
        "reference_id": bound.reference_id,
        "identity": bound.identity,
    }
    if _read_lock(lock) != document:
        write_json(lock, document)


def _refuse_other(locked: dict[str, Any], bound: BoundReference) -> None:
    if bound.reference_id != locked["reference_id"]:
        differences = "; ".join(field_diff(locked["identity"], bound.identity))
        raise StoreError(
            f"The reference {bound.model} is no longer the model that was scored: {differences}. Its stored log-probs "
            "belong to the old one. Run `pipeline precompute-ref` to score the new one, or restore the old files."
        )


def _read_lock(lock: Path) -> dict[str, Any] | None:
    try:
        locked = dict(json.loads(lock.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{lock} is not JSON ({error}). Delete it and run `pipeline precompute-ref`.") from error
    if document_key(locked.get("identity")) != locked.get("reference_id"):
        raise StoreError(
            f"{lock} is damaged: its reference_id is not that of the identity beside it. Delete it and run "
            "`pipeline precompute-ref`."
        )
    return locked
