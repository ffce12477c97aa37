"""Identities: what a response, a pair, a set of pairs and a file *are*, as sha256.

A key is made from token ids and the mask alone. Tokenizer, chat template, truncation and clock act only through
them, and no version number goes in: a schema change must never score the world again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.durable import write_json

TokenIds = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_PROMPT_TAG = b"preference-prompt\x00"
_RESPONSE_TAG = b"preference-response\x00"
_PAIR_TAG = b"preference-pair\x00"


def prompt_key(prompt_ids: TokenIds) -> str:
    """Identity of a prompt: 64 hex digits over its token ids."""
    return hashlib.sha256(_PROMPT_TAG + _with_length(prompt_ids)).hexdigest()


def response_key(prompt_ids: TokenIds, response_ids: TokenIds, mask: Mask) -> str:
    """Identity of a response to a prompt: token ids of both, and which response tokens are scored."""
    if len(mask) != len(response_ids):
        raise ValueError(f"mask has {len(mask)} entries for {len(response_ids)} response tokens")
    body = _with_length(prompt_ids) + _with_length(response_ids) + mask.astype(np.bool_, copy=False).tobytes()
    return hashlib.sha256(_RESPONSE_TAG + body).hexdigest()


def pair_key(chosen_key: str, rejected_key: str) -> str:
    """Identity of the ordered pair (chosen, rejected)."""
    return hashlib.sha256(_PAIR_TAG + bytes.fromhex(chosen_key) + bytes.fromhex(rejected_key)).hexdigest()


def set_key(keys: Iterable[str]) -> str:
    """Identity of a multiset of keys, whatever their order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


def document_key(document: Any) -> str:
    """Identity of a JSON document, over its canonical form (sorted keys, no spaces)."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestMemo:
    """File digests, remembered by (path, inode, size, mtime_ns, ctime_ns) so that weights are read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = _read_memo(path)

    def digest(self, path: Path) -> str:
        """sha256 of the file, read only when it is not the file that was read before."""
        stamp = _stamp(path)
        if stamp not in self._known:
            self.note({path: file_digest(path)})
        return self._known[stamp]

    def note(self, digests: Mapping[Path, str]) -> None:
        """Remember the digests of files, all at once."""
        if digests:
            self._known = _read_memo(self._path) | {_stamp(path): digest for path, digest in digests.items()}
            write_json(self._path, self._known)

    def read(self, paths: Iterable[Path]) -> None:
        """Read those of the files that are not known, and remember them all at once."""
        self.note({path: file_digest(path) for path in paths if _stamp(path) not in self._known})


def _stamp(path: Path) -> str:
    """What changes with a file."""
    status = path.resolve().stat()
    return f"{path.resolve()}|{status.st_ino}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"


def _read_memo(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):  # a memo is a convenience: without it every file is read again
        return {}


def _with_length(ids: TokenIds) -> bytes:
    return len(ids).to_bytes(8, "little") + np.ascontiguousarray(ids, dtype="<i4").tobytes()
