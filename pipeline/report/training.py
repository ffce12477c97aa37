"""How the policy came about: curves of its training, and what the three jobs took."""

from collections.abc import Sequence
from typing import Any

from pipeline.report.content import Block, Column, Data, Paragraph, Pictures, Section, Table, Text
from pipeline.report.figures import Series, curve
from pipeline.report.material import Material
from pipeline.report.numbers import count, duration, percent, share, signed

MOST_POINTS = 200  # of a curve; longer runs are shown by means over neighbouring steps

_CURVES = (
    ("loss", "Loss", "loss", (("training", "loss", "first"), ("dev pairs", "dev/loss", "dots"))),
    (
        *("accuracy", "Reward accuracy", "share"),
        (("training", "rewards/accuracies", "first"), ("dev pairs", "dev/reward_accuracy", "dots")),
    ),
    (
        *("margin", "Reward margin", "reward"),
        (("training", "rewards/margins", "first"), ("dev pairs", "dev/reward_margin", "dots")),
    ),
    (
        *("logps", "Log-probability of the responses", "nats"),
        (("chosen", "logps/chosen", "first"), ("rejected", "logps/rejected", "second")),
    ),
    ("norm", "Norm of the gradient", "norm", (("training", "grad_norm", "first"),)),
)
_JOBS = {"precompute-ref": "score the reference", "train": "train", "eval": "evaluate"}


def training_section(material: Material) -> list[Section]:
    """Curves over the steps of the run."""
    steps = material.steps
    if not steps:
        return []
    pictures = [
        picture
        for name, title, unit, lines in _CURVES
        for picture in curve(f"training-{name}", title, unit, [_series(steps, *line) for line in lines])
    ]
    first, last = _ends(steps)
    blocks: list[Block] = [_ends_table(first, last), Pictures(pictures)]
    if (group := _per_point(len(steps))) > 1:
        blocks.append(Paragraph(f"Each point of a curve is the mean of {group} steps."))
    loss = [_mean(part, "loss") for part in (first, last)]
    gist = f"{count(len(steps))} steps" + (f", loss {share(loss[0])} to {share(loss[1])}" if None not in loss else "")  # type: ignore[arg-type]
    return [Section("training", "Training", blocks, gist)]


def _series(steps: Sequence[dict[str, Any]], label: str, key: str, how: str) -> Series:
    points = [(step["step"], step[key]) for step in steps if isinstance(step.get(key), int | float) and "step" in step]
    group = 1 if how == "dots" else _per_point(len(points))
    parts = [points[i : i + group] for i in range(0, len(points), group)]
    middles = [part[len(part) // 2][0] for part in parts]
    return label, middles, [sum(value for _, value in part) / len(part) for part in parts], how


def _per_point(n: int) -> int:
    return -(-n // MOST_POINTS)


def _ends(steps: Sequence[dict[str, Any]]) -> tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
    """The first and the last 20 steps, or the halves of a shorter run."""
    n = min(20, max(1, len(steps) // 2))
    return steps[:n], steps[-n:]


def _ends_table(first: Sequence[dict[str, Any]], last: Sequence[dict[str, Any]]) -> Table:
    keys = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin", "grad_norm": "gradient norm"}
    rows = [[f"mean of the {end} {len(part)} steps", *(_said(_mean(part, key), key) for key in keys)]
            for end, part in (("first", first), ("last", last))]  # fmt: skip
    return Table([Column("", "text"), *(Column(title) for title in keys.values())], rows)


def _mean(steps: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [step[key] for step in steps if isinstance(step.get(key), int | float)]
    return sum(values) / len(values) if values else None


def _said(value: float | None, key: str) -> str:
    if value is None:
        return ""
    return signed(value) if key == "rewards/margins" else share(value)


def cost_section(material: Material) -> list[Section]:
    """What was scored, what was read again, and how long it took."""
    jobs = {name: material.jobs[name] for name in _JOBS if name in material.jobs}
    if not jobs and not material.costs:
        return []
    columns = [
        Column("job", "text"),
        *(Column(title) for title in ("pairs", "scored now", "stored before", "tokens", "time", "tokens/s", "spared")),
        Column("on", "text"),
    ]
    blocks: list[Block] = [Table(columns, [_job_row(name, job) for name, job in jobs.items()])] if jobs else []
    if costs := material.costs:
        last = percent(costs["last_share"], 1.0)
        blocks.append(
            Paragraph(
                f"Scoring this reference took {duration(costs['seconds'])} on its device so far, for "
                f"{count(costs['pairs'])} pairs; the last job was {last} of a full pass over the pairs wanted."
            )
        )
    saved = sum(job.get("seconds_saved", 0.0) for job in jobs.values())
    gist: Text = f"{duration(sum(job['seconds'] for job in jobs.values()))}, {duration(saved)} spared" if jobs else ""
    if saved:
        blocks.append(
            Paragraph(
                "Spared is an estimate: what scoring the reference again would have taken, at the rate of its last job."
            )
        )
    return [Section("cost", "Cost", blocks, gist)]


def _job_row(name: str, job: dict[str, Any]) -> list[Text]:
    seconds = job["seconds"]
    return [
        _JOBS[name],
        *(count(job[key]) for key in ("pairs", "pairs_scored", "pairs_stored_before", "tokens")),
        duration(seconds),
        count(round(job["tokens"] / seconds)) if seconds else "",
        duration(job["seconds_saved"]) if "seconds_saved" in job else "",
        Data(job.get("device", "")),
    ]
