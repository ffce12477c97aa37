"""What may go from a store: references that nobody names, parts set aside, what killed writers left.

Single parts of a reference that stays never go.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from data.store.reference_store import ReferenceStore
from data.store.references import StoredReference, find_reference, stored_references
from data.store.storage import Storage

_FOLDERS = ("parts", "tokens", "costs", "quarantine", "")  # the last holds reference.json: it goes last


@dataclass
class Garbage:
    """What is to go."""

    references: list[StoredReference] = field(default_factory=list)
    kept: list[StoredReference] = field(default_factory=list)
    """References that nobody here names, in a store that others may use."""
    files: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """As `--json` prints it."""
        return {
            "references": [{"id": found.reference_id, "name": found.name} for found in self.references],
            "unnamed_but_kept": [{"id": found.reference_id, "name": found.name} for found in self.kept],
            "files": self.files,
        }


def find_garbage(storage: Storage, named: Collection[str], drop: Sequence[str], *, own: bool) -> Garbage:
    """What nobody needs: `named` are ids in use here, `drop` names or ids to go; `own`: nobody else uses the store.

    Raises:
        StoreError: a reference to drop is not there.
    """
    garbage = Garbage()
    dropped = {find_reference(storage, wanted).reference_id for wanted in drop}
    for found in stored_references(storage):
        if found.reference_id in dropped or (own and found.reference_id not in named):
            garbage.references.append(found)
        elif found.reference_id not in named:
            garbage.kept.append(found)
    gone = {found.reference_id for found in garbage.references}
    for folder in storage.folders():
        if folder not in gone:
            garbage.files += [f"{folder}/quarantine/{name}" for name in storage.names(f"{folder}/quarantine")]
    return garbage


def take_away(storage: Storage, garbage: Garbage) -> None:
    """Do it."""
    for name in garbage.files:
        storage.delete(name)
    for found in garbage.references:
        for folder in _FOLDERS:
            place = f"{found.reference_id}/{folder}".rstrip("/")
            storage.sweep(place)
            for name in storage.names(place):
                storage.delete(f"{place}/{name}")
    for folder in storage.folders():
        ReferenceStore(storage, folder).sweep()
