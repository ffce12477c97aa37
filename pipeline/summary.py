"""A job's document as a few lines for people."""

from typing import Any

from pipeline.config_job import shown
from pipeline.doctor.findings import examined
from pipeline.evaluation_summary import evaluation_table
from pipeline.init.job import written
from pipeline.inspect_lines import inspected
from pipeline.ledger import in_words as told_ledger
from pipeline.models.table import leaderboard_summary
from pipeline.run_list import in_words as told_runs
from pipeline.sweep.table import sweep_summary
from pipeline.training_summary import training_table

_END = 300  # characters of a text that are shown at either end
_KINDS_OF_CHANGE = {
    "unchanged": "pairs unchanged",
    "added": "added",
    "removed": "removed",
    "flipped": "flipped",
    "reworded": "reworded",
    "retokenised": "in other tokens",
}
_FINDINGS = {
    "eval": ("metrics", "leaderboard"),
    "verify": ("references",),
    "run": ("jobs",),
    "sweep": ("settings",),
    "doctor": ("findings",),
}
"""What these jobs have to show although their exit code is not 0."""


def summary(document: dict[str, Any]) -> str:
    """The lines; empty where there is nothing to say."""
    if document["exit_code"] and not document.keys() & _FINDINGS.get(document["job"], ()):
        return ""
    if document["job"] == "run":
        return "\n".join(filter(None, (summary(job) for job in document["jobs"])))
    if document["job"] == "eval" and document.keys() & {"metrics", "leaderboard"}:
        return leaderboard_summary(document) if "leaderboard" in document else evaluation_table(document)
    if document["job"] == "validate":
        return _coverage(document["coverage"]) + _changes(document) + _example(document["example"])
    if document["job"] in ("export", "report"):
        return "\n".join(f"{split}: {path}" for split, path in document["outputs"].items())
    if document["job"] == "sweep" and "settings" in document:
        return sweep_summary(document)
    if document["job"] in _TOLD:
        return _TOLD[document["job"]](document)
    if document["status"] == "dry_run":
        return _plan(document)
    if document["status"] == "nothing_to_do":
        why = f" ({document['why']})" if "why" in document else ""
        return f"{document['job']}: nothing to do{why}"
    rate = f", {document['tokens'] / document['seconds']:,.0f} tokens/s" if document["seconds"] else ""
    where = document["outputs"].get("policy") or document["outputs"].get("store", "")
    done = f"{document['job']}: {document['pairs']} pairs, {document['seconds']:.1f} s{rate}; {where}"
    return done + training_table(document)


def _status(document: dict[str, Any]) -> str:
    reference = document["reference"]
    stored = reference["pairs_wanted"] - reference["pairs_missing"]
    lines = [f"store {document['store']}"]
    lines.append(
        f"* {reference['name']} ({reference['id'][:12]}), which the configuration names: {stored} of "
        f"{reference['pairs_wanted']} pairs wanted are stored; it holds {reference['pairs_stored']} in "
        f"{reference['parts']} parts"
    )
    if cost := reference["cost"]:
        jobs = "1 job" if cost["jobs"] == 1 else f"{cost['jobs']} jobs"
        lines.append(
            f"    {jobs} took {cost['seconds']:,.1f} device-seconds for "
            f"{cost['pairs']:,} pairs, the last {cost['last']['seconds']:,.1f} for {cost['last']['pairs']:,}: "
            f"{cost['last_share']:.1%} of a full pass over the pairs wanted"
        )
    if reference["quarantined"]:
        lines.append(f"    {reference['quarantined']} parts were set aside as damaged; `pipeline gc` drops them")
    if reference["why"]:
        lines.append(f"    {reference['why']}")
    for other in document["others"]:
        what = other.get("problem") or (
            f"{other['pairs_stored']} pairs, {other['pairs_wanted']} of those wanted; differs in "
            f"{'; '.join(other['differs'])}"
        )
        lines.append(f"  {other['name']} ({other['id'][:12]}): {what}")
    lines += [*told_ledger(document["ledger"]), *told_runs(document["runs"])]
    return "\n".join([*lines, f"next: {document['next'] or 'nothing, all of it is done'}"])


def _verified(document: dict[str, Any]) -> str:
    lines = [
        f"{each['name']} ({each['reference_id'][:12]}): {each['pairs']} pairs in {each['parts']} parts, tokens of "
        f"{each['responses_with_tokens']} responses: {'sound' if not each['problems'] else 'NOT SOUND'}"
        for each in document["references"]
    ]
    if found := document.get("rescored"):
        lines.append(
            f"{found['pairs']} pairs scored again: at most {found['max_abs']:.2g} nats apart. A sample of this size "
            f"finds, in 95 of 100 cases, damage to {found['detectable_share']:.1%} of the pairs or more"
        )
    return "\n".join(lines) or "the store is empty"


def _garbage(document: dict[str, Any]) -> str:
    would = "would go" if document["status"] == "dry_run" else "gone"
    lines = [f"{would}: reference {each['name']} ({each['id'][:12]})" for each in document["references"]]
    lines += [f"{would}: {name}" for name in document["files"]]
    lines += [
        f"{would}: checkpoints of the finished run {each['run']} ({each['bytes'] / 1e6:,.1f} MB)"
        for each in document["checkpoints"]
    ]
    lines += [f"{would}: what the model {each[:12]} answered to held-out prompts" for each in document["generations"]]
    if "parts_merged" in document:
        merged = "would be merged" if document["status"] == "dry_run" else "merged"
        lines.append(f"{merged}: {document['parts_merged']} parts into {document['parts_made']}")
    lines += [
        f"kept, though nothing in this work folder names it: {each['name']} ({each['id'][:12]}); others may use the "
        f"store, --drop {each['name']} drops it"
        for each in document["unnamed_but_kept"]
    ]
    if document["status"] == "dry_run" and (
        any(document[what] for what in ("references", "files", "checkpoints", "generations"))
        or document.get("parts_merged")
    ):
        lines.append("nothing was changed; --apply does it")
    return "\n".join(lines) or "nothing may go"


_TOLD = {
    "config": shown,
    "doctor": examined,
    "init": written,
    "inspect": inspected,
    "status": _status,
    "verify": _verified,
    "gc": _garbage,
}


def _plan(document: dict[str, Any]) -> str:
    lines = [f"{document['job']} would read {document['tokens']:,} tokens of {document['pairs']} pairs"]
    if document["job"] == "precompute-ref":
        lines[0] += (
            f": {document['pairs_stored_before']} pairs are stored, {document['pairs_scored']} are missing, "
            f"{document['responses_scored']} responses have to be scored"
        )
    if "steps_total" in document:
        done = f" ({document['steps_before']} are done)" if document.get("steps_before") else ""
        lines[0] += f" in {document['steps_total']} steps{done}"
    lines += [f"  {each['would']}: {each['what']}" for each in document.get("plan", ())]
    if "seconds_estimated" in document:
        lines.append(f"  about {document['seconds_estimated']:,.0f} s at the rate of the last run on this device")
    if "disk_bytes" in document:
        memory = f" and {document['memory_bytes'] / 1e9:,.2f} GB of memory" if "memory_bytes" in document else ""
        lines.append(f"  about {_bytes(document['disk_bytes'])} of disk{memory}")
    return "\n".join(lines) + _changes(document)


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _changes(document: dict[str, Any]) -> str:
    """How the data differ from those that were scored last."""
    found = document.get("changes")
    if found is None:
        return ""
    counts = [f"{found[name]:,} {said}" for name, said in _KINDS_OF_CHANGE.items() if found[name]]
    lines = ["", f"since precompute-ref at {found['since']}: {', '.join(counts) or 'nothing'}"]
    if found["to_score"]:
        seconds = f", about {found['seconds_to_score']:,.0f} s" if "seconds_to_score" in found else ""
        lines.append(f"  {found['to_score']:,} responses of {found['tokens_to_score']:,} tokens are new{seconds}")
    if found["not_compared"]:
        lines.append(
            f"  {found['not_compared']:,} of the rows added and removed share a prompt with too many others to look"
        )
        lines[-1] += " for rewordings"
    return "\n".join(lines)


def _coverage(coverage: dict[str, Any]) -> str:
    lines = [f"{source}: read as {form}" for source, form in coverage["forms"].items()]
    pairs = f" ({coverage['read']} pairs)" if coverage["read"] != coverage["rows"] else ""
    lines.append(
        f"read {coverage['rows']} rows{pairs}, used {coverage['used']}, rejected {sum(coverage['rejected'].values())}"
    )
    lines += [f"  {n:>6} {reason}" for reason, n in coverage["rejected"].items()]
    lines.append("splits: " + ", ".join(f"{n} {split}" for split, n in coverage["splits"].items()))
    if coverage["visits"]:
        lines.append("visits an epoch: " + ", ".join(f"{n} of {source}" for source, n in coverage["visits"].items()))
    several = {"multi_turn": "prompts of several turns", "several_messages": "responses of several messages"}
    if told := [f"{coverage[name]} pairs with {said}" for name, said in several.items() if coverage[name]]:
        lines.append(", ".join(told))
    if coverage["duplicates"] or coverage["contradictions"]:
        lines.append(f"{coverage['duplicates']} duplicates, {coverage['contradictions']} pairs both ways round")
    if coverage["truncated"]:
        lines.append(f"{coverage['truncated']} pairs truncated, by {coverage['truncated_tokens']} tokens")
    return "\n".join(lines)


def _example(example: dict[str, str] | None) -> str:
    """A pair as a model reads it."""
    if example is None:
        return ""
    parts = [f"--- {part}\n{_shortened(example[part])}" for part in ("prompt", "chosen", "rejected")]
    return "\n".join(
        ["", f"as the model reads {example['location']}, with what is scored between \u27e6 and \u27e7:", *parts]
    )


def _shortened(text: str) -> str:
    if len(text) <= 2 * _END:
        return text
    return f"{text[:_END]} ... ({len(text) - 2 * _END} characters) ... {text[-_END:]}"
