"""Data sets that other tools name, as entries of `data.train` and `data.eval`."""

from typing import Any

from data.sources.source import Source
from pipeline.init.translation import Translation

_BUILDERS = ("json", "csv", "parquet", "arrow")  # of `datasets`: the files stand beside them
_COLUMNS = {
    "field_prompt": "prompt", "field_messages": "prompt", "field_chosen": "chosen", "field_rejected": "rejected",
    "field_system": "system",
}  # fmt: skip
_TEMPLATE = "the tokenizer's chat template makes the text of messages"
_REASONS = {
    "type": "forms are told by their first rows; pipeline validate shows a pair as the model reads it",
    "name": "parts of a Hub data set: save that part to a file, and name that",
    "fraction": "give the entry a weight, visits an epoch of each of its pairs",
    "columns": "other columns are not read in any case",
    "ds_type": "told by the file's ending",
    "prompt_format": _TEMPLATE,
    "chosen_format": _TEMPLATE,
    "rejected_format": _TEMPLATE,
}
_OTHER = "no counterpart; forms are told by their first rows, and columns: names the rest"


def source(t: Translation, where: str, entry: Any) -> Any:
    """An entry of a list of data sets; keys of it that have no counterpart are told as `where.KEY`."""
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise t.problem(where.partition(".")[0], "has an entry without a path")
    kind = entry.get("type")
    left = {name: value for name, value in entry.items() if value not in (None, "", [], {})}
    if isinstance(kind, dict):  # the columns of a form of one's own
        left |= {name: value for name, value in kind.items() if value not in (None, "", [], {})}
        del left["type"]
    found: dict[str, Any] = {"path": _path(t, where, left)}
    if "revision" in left:
        found["path"] += f"@{left.pop('revision')}"
    if (split := left.pop("split", "train")) != "train":
        if Source(path=found["path"]).is_local:
            t.unmapped[f"{where}.split"] = "a file has no splits"
        else:
            found["split"] = split
    columns = {ours: str(left.pop(theirs)) for theirs, ours in _COLUMNS.items() if theirs in left}
    if columns := {ours: name for ours, name in columns.items() if ours != name}:
        found["columns"] = columns
    t.unmapped |= {f"{where}.{name}": _REASONS.get(name, _OTHER) for name in left}
    return found if len(found) > 1 else found["path"]


def _path(t: Translation, where: str, left: dict[str, Any]) -> str:
    """The file or Hub id of an entry; with a builder such as `json` the first file that it names."""
    path, files = str(left.pop("path")), left.pop("data_files", [])
    files = list(files.values()) if isinstance(files, dict) else files if isinstance(files, list) else [files]
    if path in _BUILDERS and files:
        path, *others = map(str, files)
        if others:
            t.unmapped[f"{where}.data_files"] = f"of {len(files)} files {path} is taken over; list the others, too"
    elif files:
        t.unmapped[f"{where}.data_files"] = "single files of a data set: save them, and name them"
    return path
