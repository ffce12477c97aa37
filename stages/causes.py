"""Why the store lacks pairs: what moved since others like them were scored, by the name of the field."""

from collections.abc import Sequence
from typing import Any

from data.errors import StoreError
from data.field_diff import field_diff
from data.store.reference_store import ReferenceStore, missing_keys
from data.store.references import stored_references
from stages.reference import BoundReference


def why_missing(
    missing: Sequence[str], store: ReferenceStore, bound: BoundReference, origin: dict[str, Any] | None
) -> str:
    """One sentence, or nothing where the pairs are simply new.

    Another reference in the store may have the pairs; or this one was scored on other tokens (`origin` is what makes
    tokens of text now).
    """
    for other in stored_references(store.storage):
        if other.reference_id == bound.reference_id:
            continue
        try:
            rows = ReferenceStore(store.storage, other.reference_id).rows(["pair_key"], damaged="skip")
        except StoreError:
            continue
        if covered := len(missing) - len(missing_keys(missing, rows)):
            differences = field_diff(other.identity, bound.identity)
            differences += field_diff(other.source, bound.source, "reference.")
            return (
                f" {covered} of them are stored under reference {other.name} ({other.reference_id[:12]}), which "
                f"differs from the configured one in: {'; '.join(differences)}."
            )
    costs = store.costs(last=1)
    if costs and origin is not None and (differences := field_diff(costs[0].get("origin"), origin)):
        return (
            " Text becomes other tokens than when this reference was scored last: "
            f"{'; '.join(differences)}. Pairs that came out the same are stored still."
        )
    return ""
