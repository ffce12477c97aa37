"""What the stored scores alone say of the reference: whether it is the tuned model that it should be."""

from collections.abc import Mapping, Sequence
from typing import Any

from data.store.reference_store import ReferenceStore
from data.tokens.token_pairs import TokenPairs
from stages.reference_rows import ReferenceLogps


def reference_report(
    pairs: TokenPairs, reference: Mapping[str, ReferenceLogps], store: ReferenceStore, end_ids: Sequence[int]
) -> dict[str, Any]:
    """Figures of the reference on these pairs, and under `warnings` what is wrong with it, in plain words.

    n_pairs, chosen_nll, rejected_nll (nats a token, mean over pairs), chosen_nll_by_token, rejected_nll_by_token (the
    same over all tokens), ranking_accuracy, and where the store has single tokens: end_probability, n_ends.
    """
    raise NotImplementedError
