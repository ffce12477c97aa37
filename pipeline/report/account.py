"""What stands behind the numbers: the data, what the policy writes, other programs' metrics, identities, settings."""

from typing import Any

import yaml

from data.rows.bad_rows import REASONS
from pipeline.redaction import redacted
from pipeline.report.content import (
    Block,
    Code,
    Column,
    Data,
    Paragraph,
    Passage,
    Passages,
    Section,
    Sentence,
    Table,
    Text,
)
from pipeline.report.material import Material
from pipeline.report.numbers import count, interval, number, percent, share, signed
from pipeline.version import __version__
from pipeline.yaml_source import dump_yaml

_GENERATED = (
    ("tokens, mean", "generation_length"),
    ("ended by itself", "generation_ended"),
    ("repetition", "generation_repetition"),
    ("empty", "generation_empty"),
)


def data_section(material: Material) -> list[Section]:
    """Every row accounted for, and what held-out pairs share with training."""
    coverage = material.document.get("coverage") or {}
    if not coverage:
        return []
    blocks: list[Block] = []
    shared = _leakage(material.document.get("leakage") or {})
    blocks += [Paragraph(shared, warning=True)] if shared else [Paragraph("No held-out pair stands in training, too.")]
    rejected = sum(coverage["rejected"].values())
    splits = [(f"split {name}", n) for name, n in coverage["splits"].items()]
    facts = [("rows read", coverage["rows"]), ("pairs in them", coverage["read"]), ("rejected", rejected)]
    facts += [("used", coverage["used"]), *splits, ("shortened by truncation", coverage["truncated"])]
    told = {
        "duplicates": "duplicates within a split",
        "contradictions": "pairs that also stand the other way round",
        "multi_turn": "prompts of several turns",
        "several_messages": "responses of several messages",
        "chosen_longer": "chosen is longer",
    }
    facts += [(label, coverage[name]) for name, label in told.items() if name in coverage]
    rows: list[list[Text]] = [[label, count(n), percent(n, coverage["read"])] for label, n in facts]
    blocks.append(Table([Column("", "text"), Column(""), Column("of the pairs")], rows))
    if rejected:
        blocks.append(_rejects(coverage["rejected"]))
    if coverage.get("truncated"):
        blocks.append(Paragraph(f"Truncation took {count(coverage['truncated_tokens'])} tokens away."))
    if forms := coverage.get("forms"):
        rows = [[Data(source), Data(form)] for source, form in forms.items()]
        blocks.append(Table([Column("source", "text"), Column("read as", "text")], rows))
    gist = f"{count(coverage['used'])} of {count(coverage['read'])} pairs used" + (", leakage" if shared else "")
    return [Section("data", "Data", blocks, gist, in_summary=True)]


def _leakage(leakage: dict[str, int]) -> str:
    told = {"pairs": "pairs", "prompts": "prompts", "first_turns": "first user turns"}
    found = [f"{count(leakage[name])} {what}" for name, what in told.items() if leakage.get(name)]
    return f"Held-out pairs share with training: {', '.join(found)}." if found else ""


def _rejects(rejected: dict[str, int]) -> Table:
    meanings = {str(reason): meaning for reason, meaning in REASONS.items()}
    rows: list[list[Text]] = [
        [Code(reason), count(n), meanings.get(reason, "").replace("`", "")] for reason, n in rejected.items()
    ]
    return Table([Column("rejected because", "text"), Column("pairs"), Column("", "text")], rows)


def generation_section(material: Material) -> list[Section]:
    """What policy and reference answer, in figures and, where texts may be shown, side by side."""
    metrics = material.metrics
    if "generation_length" not in metrics:
        return []
    rows: list[list[Text]] = []
    for label, name in _GENERATED:
        sides = [_generated(metrics, prefix + name) for prefix in ("ref_", "")]
        rows.append([label, *sides])
    columns = [Column("greedy responses", "text"), Column("reference"), Column("policy")]
    blocks: list[Block] = [Table(columns, rows), *_samples(material)]
    ended = f"{share(metrics['generation_ended'])} ended by themselves" if "generation_ended" in metrics else ""
    return [Section("generation", "What it writes", blocks, ended, in_summary=True)]


def _generated(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    value = number(metrics[name]) if name.endswith("length") else share(metrics[name])
    ends = _ends(metrics, name)
    return f"{value} ({ends})" if ends else value


def _samples(material: Material) -> list[Block]:
    frame, most = material.generations, int(material.settings.get("show_pairs") or 0)
    if frame is None or not most:
        return [
            Paragraph(
                ["Responses are in generations.parquet; some stand here where ", Code("eval.show_pairs"), " is set."]
            )
        ]
    names = ("prompt", "reference", "policy")
    shown = frame.head(most).select("location", *names)
    return [
        Passages(
            Data(location),
            [Passage(name, Data(text)) for name, text in zip(names, texts, strict=True) if text is not None],
            side_by_side=True,
        )
        for location, *texts in shown.iter_rows()
    ]


def external_section(material: Material) -> list[Section]:
    """Metrics of other programs."""
    external = material.document.get("external") or {}
    rows: list[list[Text]] = [
        [Code(name), Data(key), number(value)]
        for name, entry in external.items()
        for key, value in (entry.get("metrics") or {}).items()
    ]
    if not rows:
        return []
    columns = [Column("command", "text"), Column("metric", "text"), Column("value")]
    return [
        Section(
            "external", "Metrics of other programs", [Table(columns, rows)], _many(len(rows), "metric"), in_summary=True
        )
    ]


def reference_section(material: Material) -> list[Section]:
    """Whether the reference is the model that it should be."""
    found = material.document.get("reference_report")
    if not found:
        return []
    blocks: list[Block] = [Paragraph(Sentence(warning), warning=True) for warning in found.get("warnings") or []]
    rows: list[list[Text]] = [
        [Code(name), number(value)] for name, value in found.items() if isinstance(value, int | float)
    ]
    blocks.append(Table([Column("", "text"), Column("")], rows))
    gist = _many(len(found["warnings"]), "warning") if found.get("warnings") else "nothing unusual"
    return [Section("reference", "The reference", blocks, gist, in_summary=True)]


def wrong_section(material: Material) -> list[Section]:
    """The most wrong pairs, where their texts may be shown."""
    blocks: list[Block] = [
        Passages(
            ["margin ", signed(pair.margin), ", ", Data(pair.location), ", ", Code(pair.key[:12])],
            [Passage(name, Data(text)) for name, text in _texts(pair.prompt, pair.chosen, pair.rejected)],
        )
        for pair in material.wrong
    ]
    told = "What is scored stands between \u27e6 and \u27e7."
    return (
        [Section("wrong", "Most wrong pairs", [Paragraph(told), *blocks], _many(len(blocks), "pair"))] if blocks else []
    )


def _texts(prompt: str, chosen: str, rejected: str) -> list[tuple[str, str]]:
    return [("prompt", prompt), ("chosen", chosen), ("rejected", rejected)]


def metrics_section(material: Material) -> Section:
    """Every number by its name, with its interval beside it."""
    metrics = material.metrics
    ends = {name + end for name in metrics for end in ("_low", "_high") if f"{name}_low" in metrics}
    rows: list[list[Text]] = [
        [Code(name), number(value), _ends(metrics, name)] for name, value in sorted(metrics.items()) if name not in ends
    ]
    columns = [Column("metric", "text"), Column("value"), Column("95 % interval")]
    return Section("metrics", "All metrics", [Table(columns, rows)], _many(len(rows), "metric"))


def _ends(metrics: dict[str, float], name: str) -> str:
    low, high = (metrics.get(name + end) for end in ("_low", "_high"))
    return "" if low is None or high is None else interval(low, high)


def identity_section(material: Material) -> Section:
    """What exactly was evaluated, by which version, with which settings."""
    document = material.document
    policy, reference = document.get("policy") or {}, document.get("reference") or {}
    facts: list[tuple[str, Any]] = [
        *(("evaluation", document.get("identity")), ("policy", policy.get("name")), ("policy id", policy.get("id"))),
        *(("reference", reference.get("name")), ("reference id", reference.get("id"))),
        *(("objective", document.get("objective")), ("beta", document.get("beta"))),
        *(("report written by", f"pipeline {__version__}"), ("schema version", document.get("schema_version"))),
        *((f"scored with {name}", value) for name, value in sorted(material.stack.items())),
    ]
    rows: list[list[Text]] = [[label, Code(value)] for label, value in facts if value is not None]
    blocks: list[Block] = [Table([Column("", "text"), Column("", "text")], rows)]
    settings = dump_yaml({"eval": redacted(material.settings)})
    passages = [Passage("of this evaluation", Data(settings))] if material.settings else []
    if material.configuration is not None:
        passages.append(Passage("config.yaml, as it was begun", Data(_redacted_yaml(material.configuration))))
    if passages:
        blocks.append(Passages("Configuration; what looks like a secret is left out", passages))
    return Section("identity", "Identity and configuration", blocks)


def _redacted_yaml(text: str) -> str:
    """The file without secrets; one that is no YAML is not shown, since nobody knows what is in it."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return "(not YAML)"
    return dump_yaml(redacted(document))


def _many(n: int, what: str) -> str:
    return f"{count(n)} {what}{'' if n == 1 else 's'}"
