"""The command that hands stored log-probs to another trainer."""

import logging
from pathlib import Path

from data.durable import write_bytes
from data.errors import ConfigError, DataError
from data.parquet import parquet_bytes
from data.tokenization import load_tokenizer
from pipeline.inputs import Inputs
from stages.job import JobReport
from stages.reference_rows import reference_logps
from stages.trl_export import trl_table

logger = logging.getLogger(__name__)

FORMATS = ("trl",)


def run_export(inputs: Inputs, out: Path, format: str = "trl") -> JobReport:  # noqa: A002 - the option's name
    """One Parquet file a split, with the columns that the other trainer names."""
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: known here: {', '.join(FORMATS)}.")
    bound = inputs.bind(hold_to_lock=True)
    prepared = inputs.pairs(bound.folder)
    tokenizer = load_tokenizer(inputs.workspace.pairs.tokenizer)
    report, left_out = JobReport("export"), {}
    for split, pairs in prepared.splits.items():
        if not pairs:
            continue
        keys, origin = (pair.key for pair in pairs), inputs.token_origin(bound)
        reference = reference_logps(keys, inputs.store(bound), bound, "pipeline precompute-ref", origin)
        table, left_out[split] = trl_table(pairs, reference, tokenizer)
        report.pairs += len(table)
        report.outputs[split] = str(out / f"{split}.parquet")
        if not inputs.dry_run:
            write_bytes(out / f"{split}.parquet", parquet_bytes(table))
    report.details = {"left_out": left_out, "reference_id": bound.reference_id}
    n_left_out = sum(n for reasons in left_out.values() for n in reasons.values())
    if n_left_out and not report.pairs:
        raise DataError(
            f"None of {n_left_out} pairs can be exported, because TRL would make other tokens of their text than were "
            f"scored ({left_out}). Its own tokens would have to be scored."
        )
    if n_left_out:
        logger.warning("%d pairs left out: TRL would make other tokens of their text than were scored", n_left_out)
    return report
