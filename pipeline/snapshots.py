"""What was scored last, and how the data differ from it now: what a night is told before it spends anything."""

from datetime import UTC, datetime
from typing import Any

import polars as pl

from data.identity import document_key
from data.pairs.changes import SNAPSHOT_SCHEMA, changes, read_snapshot, snapshot_about, write_snapshot
from data.pairs.preparation import PreparedPairs
from pipeline.workspace import Workspace


def keep_snapshot(workspace: Workspace, prepared: PreparedPairs) -> None:
    """Remember these pairs as what was scored last."""
    made_of = _made_of(prepared)
    if (snapshot_about(workspace.scored) or {}).get("made_of") != made_of:
        write_snapshot(workspace.scored, _snapshot(prepared), {"made_of": made_of, "scored": _now()})


def since_last(workspace: Workspace, prepared: PreparedPairs) -> dict[str, Any]:
    """For a report: what became of the pairs that were scored last; nothing where none were."""
    found = read_snapshot(workspace.scored)
    if found is None:
        return {}
    before, about = found
    document: dict[str, Any] = {"since": about["scored"], **changes(before, _snapshot(prepared)).document()}
    last = workspace.last_job("precompute-ref")
    if last and last["tokens"]:
        document["seconds_to_score"] = round(document["tokens_to_score"] * last["seconds"] / last["tokens"], 1)
    return {"changes": document}


def _made_of(prepared: PreparedPairs) -> str:
    return document_key([part.path.name for part in prepared.parts])


def _snapshot(prepared: PreparedPairs) -> pl.DataFrame:
    tokens = [
        (pl.col("n_prompt") + pl.col(f"{side}_tokens")).alias(f"n_{side}_tokens") for side in ("chosen", "rejected")
    ]
    others = [name for name in SNAPSHOT_SCHEMA.names if not name.endswith("_tokens")]
    return prepared.all.select(*others, *tokens)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
