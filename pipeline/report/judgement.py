"""The verdict, the gates one by one, and the comparisons with what they cannot see."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pipeline.report.content import (
    Block,
    Code,
    Column,
    Data,
    Judged,
    Judgements,
    Mark,
    Paragraph,
    Section,
    Table,
    Text,
    Verdict,
)
from pipeline.report.material import Material
from pipeline.report.numbers import chance, count, number, percent, share, signed, signed_interval

_ORDER: tuple[Verdict, ...] = ("failed", "inconclusive", "passed")
_AGAINST = {"baseline": "Against the baseline ", "anchor": "Against the anchor ", "reference": "Against the reference "}


def verdict_words(document: dict[str, Any]) -> str:
    """What the verdict means, in a sentence."""
    gates = document["gates"]
    undecided = sum(gate["verdict"] == "inconclusive" for gate in gates)
    failed = sum(gate["verdict"] == "failed" for gate in gates)
    all_of_them = "the gate" if len(gates) == 1 else f"all {len(gates)} gates"
    return {
        "passed": f"{all_of_them} passed" if gates else "no gate is set, so nothing was judged",
        "failed": f"{failed} of {len(gates)} gates failed",
        "inconclusive": f"no gate failed, but {undecided} of {len(gates)} cannot be decided on these pairs",
        None: "no gate was looked at",
    }[document["verdict"]]


def gate_section(material: Material) -> Section:
    """Each gate in a line, what failed first."""
    gates = sorted(material.document["gates"], key=lambda gate: _ORDER.index(gate["verdict"]))
    blocks: list[Block] = [Judgements([Judged(gate["verdict"], gate_sentence(gate)) for gate in gates])]
    if not gates:
        blocks = [
            Paragraph(
                ["Nothing decides whether this policy passes: set ", Code("eval.min"), " or ", Code("eval.max_drop")]
            )
        ]
    return Section("gates", "Gates", blocks, folded=False, in_summary=True)


def gate_sentence(gate: dict[str, Any]) -> Text:
    """The metric, what was measured, what is wanted."""
    metric, limit = Code(gate["metric"]), number(gate["limit"])
    if gate["kind"] in ("min", "max"):
        wanted, end = ("at least", "lower") if gate["kind"] == "min" else ("at most", "upper")
        point = gate.get("point")
        shown = share(gate["value"] if point is None else point)
        judged = "" if gate["measured_on"] == metric else f", the {end} end of its interval {share(gate['value'])}"
        return [metric, f" is {shown}{judged}; {wanted} {limit} is wanted"]
    moved = "drop" if gate["kind"] == "max_drop" else "rise"
    if gate.get("point") is None:
        return [metric, f": nothing to compare with yet; a {moved} of at most {limit} is allowed"]
    against = [" against the ", str(gate["against"]), " ", Data(gate.get("name") or "")]
    level = f"{100 * (gate.get('level') or 0.95):.4g} %"
    ends = f"between {signed(gate['low'])} and {signed(gate['high'])} ({level} interval)"
    reason = ": the interval holds the limit" if gate["verdict"] == "inconclusive" else ""
    return [
        metric,
        _moved(gate["point"], moved),
        *against,
        f"; the {moved} is {ends}, at most {limit} is allowed{reason}",
    ]


def _moved(by: float, direction: str) -> str:
    """A drop below 0 is a rise, and the other way round."""
    if share(abs(by)) == share(0.0):
        return " is as it was"
    return f" {'dropped' if (by > 0) == (direction == 'drop') else 'rose'} by {share(abs(by))}"


def comparison_section(material: Material) -> list[Section]:
    """Each evaluation that this one is held against, with what no test on these pairs can see."""
    comparisons = material.document.get("comparisons") or []
    if not comparisons:
        return []
    blocks: list[Block] = []
    ordered = sorted(comparisons, key=lambda row: [*_AGAINST].index(row["against"]))
    for (against, name), group in groupby(ordered, lambda row: (row["against"], row["name"] or "")):
        rows = list(group)
        blocks += [_compared_with(against, _name(material, against, name), rows[0]), _comparison_table(rows)]
    blocks.append(Paragraph(_unseen(ordered, material.document)))
    return [Section("comparisons", "Comparisons", blocks, folded=False, in_summary=True)]


def _name(material: Material, against: str, name: str) -> Data:
    reference = (material.document.get("reference") or {}).get("name")
    return Data(reference if against == "reference" and reference else name)


def _compared_with(against: str, name: Data, first: dict[str, Any]) -> Paragraph:
    pairs = f": {count(first['n'])} shared pairs of {count(first['n_prompts'])} prompts"
    overlap = first.get("overlap")
    shared = "" if overlap is None or overlap == 1 else f", {percent(overlap, 1.0)} of the larger side"
    return Paragraph([_AGAINST[against], name, pairs, shared])


def _comparison_table(rows: Sequence[dict[str, Any]]) -> Table:
    columns = [
        Column("", "text"),
        *(Column("before"), Column("after"), Column("difference"), Column("95 % interval")),
        Column("around 0", "mark"),
        Column("verdict"),
        *(Column("pairs up, down"), Column("McNemar p"), Column("seen in 80 %")),
    ]
    return Table(columns, [_comparison_row(row) for row in rows])


def _comparison_row(row: dict[str, Any]) -> list[Text | Mark]:
    p, low, high = row.get("mcnemar_p"), row["low"], row["high"]
    known = low is not None and high is not None
    most = max(abs(low), abs(high), abs(row["difference"])) or 1.0 if known else 1.0
    return [
        Code(row["metric"]),
        *(share(row["before"]), share(row["after"]), signed(row["difference"])),
        signed_interval(low, high) if known else "unknown",
        Mark(row["difference"], low, high, (-most, most), line=0.0) if known else "",
        str(row["verdict"]),
        f"{count(row['gained'])}, {count(row['lost'])}",
        "" if p is None else chance(p),
        "" if row["detectable"] is None else share(row["detectable"]),
    ]


def _unseen(comparisons: Sequence[dict[str, Any]], document: dict[str, Any]) -> Text:
    """In words: what a test of this size misses, and what no test of one pair of runs can know."""
    first = comparisons[0]
    told: list[str] = ["What this cannot see: "]
    if first["detectable"] is not None:
        told += [
            "with these pairs a true change of ",
            Code(first["metric"]),
            f" by {share(first['detectable'])} shows in ",
        ]
        told += ["80 of 100 cases, a smaller one less often. "]
    noise = document.get("seed_sd") or {}
    if not noise:
        told += [
            "The intervals are about the pairs alone: another training seed gives another policy, and that noise is "
        ]
        return [
            *told,
            "unknown here (",
            Code("pipeline sweep"),
            " over seeds measures it, ",
            Code("eval.seed_sd"),
            " takes it in).",
        ]
    told.append("The noise of the training seed is allowed for where it is known: ")
    for i, (metric, sd) in enumerate(sorted(noise.items())):
        told += [", " if i else "", Code(metric), f" {number(sd)}"]
    return [*told, " (standard deviations, ", Code("eval.seed_sd"), ")."]
