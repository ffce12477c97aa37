"""The commands that exchange log-probs with other programs: export, and import under an identity of their own."""

import logging
from pathlib import Path

from data.durable import write_bytes
from data.errors import ConfigError, DataError
from data.identity import document_key
from data.parquet import parquet_bytes
from data.schema import Rejection
from data.sources.source import Source, read_rows
from data.store.reference_store import ReferenceStore, missing_keys
from data.store.references import StoredReference, describe
from data.tokens.token_pairs import TokenPairs
from data.tokens.tokenization import PairTokenizer, end_ids, load_tokenizer
from pipeline.inputs import Inputs
from pipeline.records import recorded
from stages.agreement import require_agreement, spread
from stages.drift import SAMPLE, compare
from stages.import_rows import ImportedPair, imported_table, read_imported
from stages.job import JobReport
from stages.model_files import tokenizer_folder, unreachable
from stages.reference import BoundReference
from stages.reference_rows import reference_logps
from stages.trl_export import trl_table
from stages.units import cut_units, in_unit_order

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
        origin = inputs.token_origin(bound)
        reference = reference_logps(pairs.keys.to_list(), inputs.store(bound), bound, "pipeline precompute-ref", origin)
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


def run_import(inputs: Inputs, file: Path, name: str, accept_drift: bool = False) -> JobReport:
    """Rows that another program made, as the reference `name`; a sample is scored here and compared."""
    with recorded(inputs, "import", reference=name) as record:
        report = record.report = _import(record.inputs, file, name, accept_drift)
        record.facts["reference_id"] = report.details["reference_id"]
    return report


def _import(inputs: Inputs, file: Path, name: str, accept_drift: bool) -> JobReport:
    storage = inputs.workspace.storage(inputs.config.store)
    bound = inputs.bind(download=True)
    if bound.folder is None:
        raise unreachable("reference.model", bound.model)
    identity = bound.identity | {"engine": f"import:{name}"}
    store = ReferenceStore(storage, document_key(identity))
    tokenizer, tokenization = load_tokenizer(tokenizer_folder(bound.folder)), inputs.tokenization(bound.folder)
    max_length = inputs.config.data.max_length
    pair_tokenizer = PairTokenizer(tokenizer, end_ids(tokenizer, tokenization["generation_eos"]), max_length)
    source = Source(path=str(file))
    outcomes = list(read_imported(source, read_rows(source), pair_tokenizer, max_length))
    found = {each.pair.key: each for each in outcomes if isinstance(each, ImportedPair)}
    rejected = [each for each in outcomes if isinstance(each, Rejection)]
    _check_rejected(rejected, len(outcomes), inputs.config.data.max_bad, file)
    report = JobReport("import", pairs=len(found), outputs={"store": str(store)})
    report.details = {"rejected": len(rejected), "reference_id": store.reference_id, "reference": name}
    missing = missing_keys(list(found), store.rows(["pair_key"], damaged="skip"))
    report.pairs_stored_before = len(found) - len(missing)
    if inputs.dry_run or not missing:
        report.status = "dry_run" if missing else "nothing_to_do"
        return report
    new = in_unit_order(TokenPairs.of(found[key].pair for key in missing))
    report.details["compared"] = _compare(inputs, bound, [found[pair.key] for pair in new], accept_drift)
    describe(storage, StoredReference(store.reference_id, name, identity, bound.source))
    for unit in cut_units(new, inputs.config.store.unit_pairs):
        store.commit(imported_table([found[pair.key] for pair in unit]), {"engine": f"import:{name}"})
    return report


def _check_rejected(rejected: list[Rejection], n_rows: int, max_bad: float, file: Path) -> None:
    if rejected and len(rejected) > max_bad * n_rows:
        first = "; ".join(f"{each.location} {each.reason} ({each.detail})" for each in rejected[:5])
        raise DataError(
            f"{len(rejected)} of {n_rows} rows of {file} cannot be imported, more than data.max_bad = {max_bad:g} "
            f"allows. The first: {first}. Nothing was stored. Correct the rows, or raise data.max_bad."
        )


def _compare(inputs: Inputs, bound: BoundReference, imported: list[ImportedPair], accept: bool) -> dict[str, float]:
    """Score a sample here; another program's sums have to be this model's, as far as the dtype goes."""
    from stages.scoring.scorer import load_scorer

    stored = {}
    for pair, chosen, rejected in spread(imported, SAMPLE):
        stored[pair.chosen.key], stored[pair.rejected.key] = (pair.chosen, chosen), (pair.rejected, rejected)
    assert bound.folder is not None
    scorer = load_scorer(bound.folder, inputs.numerics(bound), [response for response, _ in stored.values()])
    figures = compare(scorer, list(stored.values()))
    finding = f"What is to be imported is not what {bound.model} gives here for {len(stored)} of its responses"
    advice = (
        "Nothing was stored. Check reference.model, reference.dtype, the chat template and data.max_length, or run the "
        "same command with --accept-drift."
    )
    require_agreement(figures, inputs.config.reference.dtype, finding, advice, accept=accept)
    return figures
