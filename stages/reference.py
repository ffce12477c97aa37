"""Which model the reference *is*: the folder it lies in, its identity, and the lock that binds a configuration to it.

Identity is content and numerics: digests of the weights, the configuration that shapes the forward pass, dtypes, and
how attention is computed. Paths, names, batch sizes, devices, beta and learning rates are not in it.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data.durable import write_json
from data.errors import ConfigError, StoreError, one_line
from data.identity import DigestMemo, document_key
from data.settings import Settings
from stages.scoring.config import Attention, Backend

logger = logging.getLogger(__name__)

SCORING_VERSION = 2  # raised by hand when scoring code changes results
ENGINE = "pipeline"

_IRRELEVANT = {"_name_or_path", "_model_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}
_TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model",
    "chat_template*", "additional_chat_templates/*", "generation_config.json",
)  # fmt: skip
_SMALL_HUB_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_WEIGHT_FILES = ["*.safetensors"]


class ReferenceConfig(Settings):
    """Section `reference`: the frozen model that the policy is held to."""

    model: str
    """Hub id or folder of a causal language model (safetensors)."""
    revision: str | None = None
    """Hub revision (branch, tag or commit); none: the default branch. Folders have none."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Compute dtype of reference *and* policy in all three jobs; fp32 where exactness matters more than speed."""


@dataclass(frozen=True)
class BoundReference:
    """The reference that a configuration stands for."""

    model: str
    """As the configuration names it."""
    reference_id: str
    identity: dict[str, Any]
    folder: Path | None
    """Where the model lies; None where it is out of reach and the lock vouches for it."""
    settled: bool = True
    """False: nothing is stored yet, and only the model itself can show whether packs are right for it."""

    @property
    def attention(self) -> Attention:
        """How it is scored: in packs or in rows."""
        attention: Attention = self.identity["attention"]
        return attention

    def settle(self, attention: Attention) -> "BoundReference":
        """The same reference, scored so."""
        identity = self.identity | {"attention": attention}
        return BoundReference(self.model, document_key(identity), identity, self.folder)


def locate(model: str, revision: str | None, *, download: bool, weights: bool = True) -> Path | None:
    """The local folder of a model, or None where it is out of reach; without `weights` all but these is fetched.

    Raises:
        ConfigError: the folder holds no usable model, or the download failed.
    """
    folder = Path(model)
    if folder.is_dir():
        _check_folder(folder)
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted = _SMALL_HUB_FILES + (_WEIGHT_FILES if weights else [])
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=wanted, local_files_only=not download))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    except Exception as error:  # the hub client raises network, permission and id errors of many classes
        raise ConfigError(
            f"The model {model} is not a folder here and cannot be fetched from the Hub: {one_line(error)} "
            f"Check the id, reference.revision, the network and your access."
        ) from error


def unreachable(key: str, model: str) -> ConfigError:
    """The error of a job that needs a model which is neither a folder nor to be had from the Hub."""
    return ConfigError(
        f"{key}: {model} is neither a folder on this machine nor a model that the Hub (or its local cache, offline) "
        f"has. Correct {key}, or make the model reachable, and run the same command again."
    )


def model_identity(folder: Path, config: ReferenceConfig, attention: Attention, memo: DigestMemo) -> dict[str, Any]:
    """The full preimage of the id of the model in `folder` under the numerics of `config`."""
    weights = sorted(memo.digest(path) for path in folder.glob("*.safetensors"))
    return {
        "engine": ENGINE,
        "scoring_version": SCORING_VERSION,
        "attention": attention,
        "compute_dtype": config.dtype,
        "head_dtype": "float32",
        "weights": weights,
        "config": _relevant(json.loads((folder / "config.json").read_bytes())),
        "adapter": None,
        "quantization": None,
    }


def tokenizer_digests(folder: Path, memo: DigestMemo) -> dict[str, str]:
    """Digests of the files that decide how text becomes tokens."""
    files = {path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): memo.digest(path) for path in sorted(files)}


def bind(
    config: ReferenceConfig, backend: Backend, store: Path, lock: Path, memo: DigestMemo, *, renew: bool
) -> BoundReference:
    """The reference that `config` stands for: by its files where they are in reach, otherwise by the lock.

    `renew` is for the job that scores the reference: it downloads and writes the lock. The other jobs hold the files
    to the lock. With the back-end left open, a reference in `store` that agrees in all else says how it is scored.

    Raises:
        ConfigError: the model is out of reach and no lock vouches for it.
        StoreError: the model's files are not those that were locked.
    """
    locked = _read_lock(lock)
    section = config.model_dump(mode="json")
    folder = locate(config.model, config.revision, download=renew)
    if folder is not None:
        bound = _bound_by_files(config, backend, store, locked, folder, memo)
        if not renew and locked is not None and locked["section"] == section:
            _refuse_other(locked, bound)
        return bound
    if locked is None or locked["section"] != section:
        raise unreachable("reference.model", config.model)
    if renew:
        logger.info("reference %s is out of reach; %s vouches for it", config.model, lock)
    return BoundReference(config.model, locked["reference_id"], locked["identity"], None)


def _bound_by_files(
    config: ReferenceConfig,
    backend: Backend,
    store: Path,
    locked: dict[str, Any] | None,
    folder: Path,
    memo: DigestMemo,
) -> BoundReference:
    packs = model_identity(folder, config, "packs", memo)
    unsettled = BoundReference(config.model, document_key(packs), packs, folder, settled=False)
    if backend != "auto":
        return unsettled.settle("rows" if backend == "rows" else "packs")
    either = [unsettled.settle("packs"), unsettled.settle("rows")]
    stored = [bound for bound in either if (store / bound.reference_id / "reference.json").is_file()]
    if locked is not None:
        stored = [bound for bound in either if bound.reference_id == locked["reference_id"]] + stored
    return stored[0] if stored else unsettled


def write_lock(lock: Path, config: ReferenceConfig, bound: BoundReference) -> None:
    """Record which reference this configuration stands for."""
    document = {
        "section": config.model_dump(mode="json"),
        "reference_id": bound.reference_id,
        "identity": bound.identity,
    }
    if _read_lock(lock) != document:
        write_json(lock, document)


def field_diff(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The fields in which two documents differ, one line each: `config.rope_theta: 10000 -> 500000`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in field_diff(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [f"{prefix.rstrip('.')}: {_shown(old)} -> {_shown(new)}"]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _refuse_other(locked: dict[str, Any], bound: BoundReference) -> None:
    if bound.reference_id != locked["reference_id"]:
        differences = "; ".join(field_diff(locked["identity"], bound.identity))
        raise StoreError(
            f"The reference {bound.model} is no longer the model that was scored: {differences}. Its stored log-probs "
            "belong to the old one. Run `pipeline precompute-ref` to score the new one, or restore the old files."
        )


def _read_lock(lock: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(lock.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{lock} is not JSON ({error}). Delete it and run `pipeline precompute-ref`.") from error


def _relevant(config: Any) -> Any:
    """A model configuration without what cannot change a log-prob; what is not known to be harmless stays."""
    if not isinstance(config, dict):
        return config
    return {
        key: _relevant(value)
        for key, value in config.items()
        if key not in _IRRELEVANT and not key.endswith("_token_id") and not key.startswith("output_")
    }


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is a folder but holds no config.json, so it is no Hugging Face model. Name the folder that "
            "`save_pretrained` wrote, or a Hub id."
        )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"{folder} holds no *.safetensors file. Only safetensors weights are read, because other "
            "formats can run code; convert them with `AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)`."
        )
