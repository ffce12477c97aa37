"""Whether prepared pairs can be trained on, and what a person should know of them."""

import logging

from data.errors import DataError
from data.pairs.coverage import Coverage
from data.pairs.preparation import PreparedPairs

logger = logging.getLogger(__name__)

FEW_BAD_ROWS = 5  # `max_bad` is a share, and a share says nothing about a handful of rows
SHOWN_REJECTS = 5
_ENOUGH, _ONE_SIDED = 20, 0.9  # pairs, and the share of them that makes a length bias


def check_usable(prepared: PreparedPairs, max_bad: float, *, strict: bool = False) -> None:
    """Refuse data that nothing can be trained on, or of which too much is bad; warn of the rest.

    Raises:
        DataError: no training pairs, or more than `max_bad` of the rows (and more than five) rejected; if strict, any.
    """
    coverage, rejections = prepared.coverage, prepared.rejections
    n_bad = len(rejections)
    shown = "; ".join(f"{r.location} {r.reason} ({r.detail})" for r in rejections[:SHOWN_REJECTS])
    reasons = ", ".join(f"{n} {reason}" for reason, n in coverage.rejected.items())
    if (strict and n_bad) or (n_bad > FEW_BAD_ROWS and n_bad > max_bad * coverage.read):
        limit = "and data.strict allows none" if strict else f"more than data.max_bad = {max_bad:g} allows"
        remedy = "set data.strict: false" if strict else "raise data.max_bad"
        raise DataError(
            f"{n_bad} of {coverage.read} rows are rejected ({reasons}), {limit}. The first: {shown}. All of them stand "
            f"in pairs/rejects.parquet in the work folder. Correct the rows, or {remedy} to go on without them."
        )
    if not coverage.splits["train"]:
        raise DataError(
            f"No training pairs are left of {coverage.read} rows read ({reasons or 'none rejected'}). Check "
            f"data.train, data.eval_fraction and data.max_length.{' The first rejected: ' + shown if shown else ''}"
        )
    if n_bad:
        logger.warning("%d of %d rows rejected (%s). The first: %s", n_bad, coverage.read, reasons, shown)
    _warn(coverage)


def _warn(coverage: Coverage) -> None:
    """What is no reason to refuse data, and that a person should know."""
    if coverage.duplicates:
        logger.warning(
            "%d pairs stand in the data more than once; each counts as often as it does", coverage.duplicates
        )
    if coverage.contradictions:
        logger.warning(
            "%d pairs stand in the data both ways round: chosen here, rejected there", coverage.contradictions
        )
    if coverage.used >= _ENOUGH and coverage.chosen_longer >= _ONE_SIDED * coverage.used:
        share = coverage.chosen_longer / coverage.used
        logger.warning("chosen is the longer one in %.0f %% of the pairs: length alone may be learned", 100 * share)
    if coverage.truncated:
        logger.warning("%d pairs are cut to max_length, by %d tokens", coverage.truncated, coverage.truncated_tokens)
    if coverage.overlap:
        logger.warning("%d held-out pairs share their first user turn with training pairs", coverage.overlap)
