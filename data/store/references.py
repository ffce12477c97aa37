"""Which references a store holds: their identities and their names."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.errors import StoreError
from data.identity import document_key
from data.store.storage import Storage

logger = logging.getLogger(__name__)

SHORTEST_ID = 8  # hex digits that may stand for a whole id


@dataclass(frozen=True)
class StoredReference:
    """What reference.json says."""

    reference_id: str
    name: str
    identity: dict[str, Any]
    """The full preimage of the id."""
    source: dict[str, Any]
    """Where the model came from when it was first scored; no part of the identity."""


def describe(storage: Storage, reference: StoredReference) -> None:
    """Write reference.json, unless it is there."""
    if document_key(reference.identity) != reference.reference_id:
        raise ValueError("the identity is not the preimage of the id")
    if stored_reference(storage, reference.reference_id) is None:
        text = json.dumps(vars(reference), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        storage.write(f"{reference.reference_id}/reference.json", (text + "\n").encode())


def stored_reference(storage: Storage, reference_id: str) -> StoredReference | None:
    """The reference of this id; None where there is none, or its document is not what the id says."""
    place = f"{reference_id}/reference.json"
    try:
        document = json.loads(storage.read(place))
        identity: Mapping[str, Any] = document["identity"]
        found = StoredReference(
            reference_id, str(document.get("name", "")), dict(identity), dict(document.get("source", {}))
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        found = None
    if found is None or document_key(found.identity) != reference_id:
        logger.warning("%s/%s cannot be read or is another reference's; it is passed over", storage, place)
        return None
    return found


def stored_references(storage: Storage) -> list[StoredReference]:
    """All references in the store."""
    return [found for name in storage.folders() if (found := stored_reference(storage, name)) is not None]


def find_reference(storage: Storage, wanted: str) -> StoredReference:
    """The reference with this id (or its first digits) or this name.

    Raises:
        StoreError: there is none, or more than one.
    """
    every = stored_references(storage)
    found = [
        reference
        for reference in every
        if reference.name == wanted or (len(wanted) >= SHORTEST_ID and reference.reference_id.startswith(wanted))
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{reference.name} ({reference.reference_id[:12]})" for reference in found or every)
    problem = f"{len(found)} references" if found else "no reference"
    raise StoreError(
        f"The store {storage} has {problem} of the name or id {wanted}. It holds: {known or 'none'}. Give the id, or "
        f"its first {SHORTEST_ID} digits or more; `pipeline status` lists them."
    )
