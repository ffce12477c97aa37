"""What the numbers say: results side by side with the reference, calibration, slices, lengths."""

from collections.abc import Sequence
from typing import Any

from pipeline.report.content import Block, Code, Column, Data, Mark, Paragraph, Pictures, Section, Table, Text
from pipeline.report.figures import margin_histogram, reliability_curve, reward_scatter
from pipeline.report.material import Material
from pipeline.report.numbers import count, interval, number, share, signed, signed_interval

MOST_SLICES = 200  # rows of a column that are shown

_SIDE_BY_SIDE = (
    ("ranking accuracy", "ref_ranking_accuracy", "ranking_accuracy"),
    ("ranking accuracy, length-normalised", "ref_ranking_accuracy_normalized", "ranking_accuracy_normalized"),
)
_NATS = (
    ("NLL a token, chosen", "ref_chosen_nll", "chosen_nll"),
    ("NLL a token, rejected", "ref_rejected_nll", "rejected_nll"),
)


def result_section(material: Material) -> Section:
    """The main results: the honest before and after first."""
    pictures = [*margin_histogram(material.pairs), *reward_scatter(material.pairs)]
    pictures += reliability_curve(material.document.get("reliability") or [])
    blocks = [*result_blocks(material), Pictures(pictures)]
    return Section("results", "Results", blocks, folded=False, in_summary=True)


def result_blocks(material: Material) -> list[Block]:
    """The same in words and numbers, without a picture."""
    metrics, pairs = material.metrics, material.document["n_pairs"]
    rows = [_side_by_side(metrics, *row) for row in _SIDE_BY_SIDE if row[2] in metrics]
    if "ranking_accuracy_gain" in metrics:
        gain, low, high = (metrics.get(f"ranking_accuracy_gain{end}") for end in ("", "_low", "_high"))
        told = "" if low is None or high is None else signed_interval(low, high)
        rows.append(["gain over the reference", "", signed(gain or 0.0), told, ""])
    if "reward_accuracy" in metrics:
        rows.append(["reward accuracy", "0.500", *_with_interval(metrics, "reward_accuracy")])
    rows += _single_rows(metrics)
    columns = [Column(f"{count(pairs)} held-out pairs", "text"), Column("reference"), Column("policy")]
    blocks: list[Block] = [Table([*columns, Column("95 % interval"), Column("0 to 1", "mark")], rows)]
    return blocks + [Paragraph(sentence) for sentence in _readings(metrics)]


def _side_by_side(metrics: dict[str, float], label: str, before: str, after: str) -> list[Text | Mark]:
    reference = metrics.get(before)
    value, told, mark = _with_interval(metrics, after, beside=reference)
    return [label, "" if reference is None else share(reference), value, told, mark]


def _with_interval(metrics: dict[str, float], name: str, beside: float | None = None) -> list[Any]:
    """Value, interval and mark of a share."""
    value, low, high = (metrics.get(name + end) for end in ("", "_low", "_high"))
    if value is None:
        return ["", "", ""]
    if low is None or high is None:
        return [share(value), "", ""]
    return [share(value), interval(low, high), Mark(value, low, high, line=0.5, beside=beside)]


def _single_rows(metrics: dict[str, float]) -> list[list[Text | Mark]]:
    rows: list[list[Text | Mark]] = []
    if "reward_margin" in metrics:
        ends = [metrics.get(name) for name in ("reward_margin_p10", "reward_margin_p90")]
        spread = "" if None in ends else signed_interval(ends[0] or 0.0, ends[1] or 0.0)
        rows.append(["reward margin (80 % of pairs)", "0.000", signed(metrics["reward_margin"]), spread, ""])
    for name in ("chosen_reward", "rejected_reward"):
        if name in metrics:
            rows.append([name.replace("_", " "), "0.000", signed(metrics[name]), "", ""])
    rows.append(["loss", "", share(metrics["loss"]), "", ""] if "loss" in metrics else [])
    for label, before, after in _NATS:
        if after in metrics:
            reference = "" if before not in metrics else share(metrics[before])
            rows.append([label, reference, share(metrics[after]), "", ""])
    for label, name in (("Brier score", "brier"), ("log loss", "log_loss"), ("calibration error", "ece")):
        if name in metrics:
            rows.append([label, "", share(metrics[name]), "", ""])
    return [row for row in rows if row]


def _readings(metrics: dict[str, float]) -> list[Text]:
    """What a reader has to know about the numbers."""
    told: list[Text] = []
    if "reward_accuracy" in metrics:
        told.append(
            "Ranking accuracy, without the reference in it, is the honest before and after. Reward accuracy is 0.5 by "
            "definition for an untrained policy, so its distance from 0.5 is no improvement over anything."
        )
    if metrics.get("chosen_reward", 0.0) < 0 and metrics.get("reward_margin", 0.0) > 0:
        told.append(
            "Chosen responses have become less likely than under the reference, rejected ones more so: look at what "
            "the policy writes (likelihood displacement)."
        )
    if ties := metrics.get("ties"):
        told.append(f"{count(int(ties))} pairs are ties; each counts one half.")
    return told


def slice_section(material: Material) -> list[Section]:
    """Accuracy by what the pairs are."""
    slices = {name: rows for name, rows in (material.document.get("slices") or {}).items() if rows}
    if not slices:
        return []
    blocks: list[Block] = []
    alike = [name for name, rows in slices.items() if len(rows) == 1]
    for name, rows in slices.items():
        if name in alike:
            continue
        blocks.append(_slice_table(name, rows[:MOST_SLICES]))
        if len(rows) > MOST_SLICES:
            blocks.append(Paragraph(f"{len(rows) - MOST_SLICES:,} more values are in metrics.json."))
    if any(row.get("small") for name, rows in slices.items() for row in rows if name not in alike):
        blocks.append(Paragraph("Rows marked few have so few pairs that nothing should be read into them."))
    if alike:
        names = [piece for name in alike for piece in (Code(name), ", ")][:-1]
        blocks.append(Paragraph(["Of one value only, so not shown: ", *names, "."]))
    return [Section("slices", "Accuracy by slice", blocks, _lowest(slices), in_summary=True)]


def _slice_table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    has_reward = any("reward_accuracy" in row for row in rows)
    main = "reward_accuracy" if has_reward else "ranking_accuracy"
    columns = [Column("", "text"), Column("pairs"), Column("prompts")]
    before = ["ref_ranking_accuracy"] * any("ref_ranking_accuracy" in row for row in rows)
    before += ["ranking_accuracy"] * has_reward
    titles = {"ref_ranking_accuracy": "ranking, reference", "ranking_accuracy": "ranking, policy"}
    columns += [Column(titles[each]) for each in before]
    columns += [Column(main.replace("_", " ")), Column("95 % interval"), Column("0 to 1", "mark"), Column("", "text")]
    table = [
        [
            _slice_value(row["value"]),
            *(count(row["n"]), count(row["n_prompts"]) if "n_prompts" in row else ""),
            *(share(row[each]) if each in row else "" for each in before),
            *_with_interval(row, main),
            "few" if row.get("small") else "",
        ]
        for row in rows
    ]
    small = frozenset(i for i, row in enumerate(rows) if row.get("small"))
    return Table(columns, table, small, ["by ", Code(name)])


def _slice_value(value: Any) -> str:
    return "none" if value is None else Data(value)


def _lowest(slices: dict[str, Sequence[dict[str, Any]]]) -> Text:
    """The lowest value among slices that are not small."""
    found = [
        (row.get("reward_accuracy", row.get("ranking_accuracy", 1.0)), name, row)
        for name, rows in slices.items()
        for row in rows
        if not row.get("small") and len(rows) > 1
    ]
    if not found:
        return ""
    value, name, row = min(found, key=lambda each: each[0])
    return ["lowest: ", Code(name), " ", _slice_value(row["value"]), f", {share(value)} of {count(row['n'])}"]


def length_section(material: Material) -> list[Section]:
    """How much of the accuracy is length."""
    metrics = material.metrics
    if "length_baseline" not in metrics:
        return []
    labels = {
        "reward_accuracy": "all pairs",
        "reward_accuracy_chosen_longer": "where chosen is longer",
        "reward_accuracy_chosen_shorter": "where chosen is shorter",
        "reward_accuracy_equal_length": "where both are equally long",
        "reward_accuracy_length_matched": "matched: lengths tell nothing",
    }
    rows = [[label, *_with_interval(metrics, name)] for name, label in labels.items() if name in metrics]
    columns = [Column("", "text"), Column("reward accuracy"), Column("95 % interval"), Column("0 to 1", "mark")]
    told = (
        f"A judge that always takes the longer response is right in {share(metrics['length_baseline'])} of the pairs."
    )
    if "margin_length_correlation" in metrics:
        told += (
            " Margins and differences of length have a rank correlation of "
            f"{signed(metrics['margin_length_correlation'])}."
        )
    blocks: list[Block] = [Table(columns, rows)] if rows else []
    blocks.append(Paragraph(told))
    strata = material.document.get("length_strata") or []
    if len(strata) > 1:
        table = [
            [f"{number(row['low'])} to {number(row['high'])}", count(row["n"]), *_with_interval(row, "reward_accuracy")]
            for row in strata
        ]
        ends = [Column("chosen less rejected, tokens", "text"), Column("pairs"), *columns[1:]]
        blocks.append(Table(ends, table))
    return [Section("lengths", "Length", blocks, _length_gist(metrics))]


def _length_gist(metrics: dict[str, float]) -> str:
    if "reward_accuracy_length_matched" in metrics:
        return f"matched for length: {share(metrics['reward_accuracy_length_matched'])}"
    return f"longer is chosen in {share(metrics['length_baseline'])}"
