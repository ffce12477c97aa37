"""Promotion: what an evaluation has scored of a policy is what the same model would store as a reference.

An evaluation keeps its token log-probs as parts of a small store of its own, under the policy's identity:

    runs/<run>/eval/scores/<policy_id>/parts and tokens      as in a reference store, docs/store.md

When that policy becomes the reference, these parts are copied, byte for byte, with the stack that scored them.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import polars as pl

from data.errors import StoreError
from data.schema import unique_responses
from data.store.parts import BadLogps
from data.store.reference_store import PartFolder, ReferenceStore, TokenLogps, missing_keys
from data.store.references import StoredReference, describe
from data.store.storage import LocalStorage
from data.tokens.token_pairs import TokenPairs
from stages.reference import BoundReference
from stages.scoring.config import Attention
from stages.units import cut_units, in_unit_order, pair_table, response_table

UNIT_PAIRS = 256  # of a part
_FOLDERS: tuple[PartFolder, ...] = ("tokens", "parts")  # as the store has it: where the pairs are, their tokens are

logger = logging.getLogger(__name__)


def keep_scores(
    folder: Path, policy_id: str, pairs: TokenPairs, logps: Mapping[str, TokenLogps], stack: Mapping[str, str]
) -> None:
    """Write what was scored of these pairs, by response key, in the place of what an earlier evaluation has kept."""
    shutil.rmtree(folder, ignore_errors=True)
    store = ReferenceStore(LocalStorage(folder), policy_id)
    once = pl.DataFrame({"key": pairs.keys}).with_row_index("place").unique("key", keep="first")["place"]
    try:
        for unit in cut_units(in_unit_order(pairs.take(once.to_numpy())), UNIT_PAIRS):
            store.commit(pair_table(unit, logps), stack, response_table(unique_responses(unit), logps))
    except BadLogps as bad:
        logger.warning("the policy gave values that are no log-probs (%s); no reference can be made of it", bad)


def settle_by_evaluation(bound: BoundReference, runs: Path) -> BoundReference:
    """The reference with the attention that an evaluation scored it with; as it is where none did."""
    if not bound.settled:
        for attention in get_args(Attention):
            settled = bound.settle(attention)
            if _evaluations(settled, runs):
                return settled
    return bound


def promotable(store: ReferenceStore, bound: BoundReference, runs: Path) -> dict[Path, list[str]]:
    """The evaluations in these runs that scored the reference when it was a policy, and what the store lacks of them.

    Of the keys of two evaluations of the same pairs only the first has them.
    """
    places, found = _evaluations(bound, runs), {}
    stored = store.rows(["pair_key"], damaged="skip").select("pair_key") if places else pl.DataFrame()
    for place in places:
        keys = _sound_keys(ReferenceStore(LocalStorage(place), bound.reference_id))
        if missing := missing_keys(keys, stored):
            found[place] = missing
            stored = pl.concat([stored, pl.DataFrame({"pair_key": missing})])
    return found


def promote(store: ReferenceStore, bound: BoundReference, places: Mapping[Path, Sequence[str]]) -> None:
    """Copy the parts of these evaluations into the store."""
    for place, keys in places.items():
        describe(store.storage, StoredReference(bound.reference_id, bound.name, bound.identity, bound.source))
        evaluated = LocalStorage(place)
        for folder in _FOLDERS:
            for name in evaluated.names(f"{bound.reference_id}/{folder}"):
                path = f"{bound.reference_id}/{folder}/{name}"
                store.storage.write(path, evaluated.read(path))
        logger.info("took over what %s has scored of this model: %d pairs", place.parent, len(keys))


def _evaluations(bound: BoundReference, runs: Path) -> list[Path]:
    """Stores of evaluations of the model that the reference is."""
    found = (runs.glob(f"*/{split}/scores/{bound.reference_id}") for split in ("eval", "dev"))
    return sorted(path.parent for paths in found for path in paths)


def _sound_keys(evaluated: ReferenceStore) -> list[str]:
    """The pairs that an evaluation has scored; none where one of its parts is not what its name says."""
    keys: list[str] = []
    for folder in _FOLDERS:
        for name, part in evaluated.checked_parts(folder):
            if isinstance(part, StoreError):
                logger.warning("%s/%s/%s is damaged, so nothing is taken over from there", evaluated, folder, name)
                return []
            keys += part.table["pair_key"].to_pylist() if folder == "parts" else []
    return keys
