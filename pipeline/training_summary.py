"""How a run began and how it ended, as a table for people."""

from typing import Any

_COLUMNS = {
    "loss": ("loss", "{:.4f}"),
    "rewards/accuracies": ("accuracy", "{:.3f}"),
    "rewards/margins": ("margin", "{:+.3f}"),
}


def training_table(document: dict[str, Any]) -> str:
    """Lines to put behind a training job's own; empty where it did not train."""
    if "last_steps" not in document:
        return ""
    ends = {f"{end} {document[f'{end}_steps']['steps']} steps": document[f"{end}_steps"] for end in ("first", "last")}
    columns = {key: column for key, column in _COLUMNS.items() if all(key in means for means in ends.values())}
    width = max(map(len, ends))
    lines = ["  " + "mean of".ljust(width) + "".join(f"{title:>11}" for title, _ in columns.values())]
    for end, means in ends.items():
        cells = [form.format(means[key]) for key, (_, form) in columns.items()]
        lines.append("  " + end.ljust(width) + "".join(f"{cell:>11}" for cell in cells))
    return "\n" + "\n".join(lines + _choice(document))


def _choice(document: dict[str, Any]) -> list[str]:
    """Which step became the policy, where dev pairs chose it, and whether they ended the run."""
    if "best_step" not in document:
        return []
    last, total = document["last_step"], document["steps_total"]
    end = f"; training ended early, after step {last} of {total}" if last < total else ""
    return [f"  the policy is that of step {document['best_step']}, the best on dev pairs{end}"]
