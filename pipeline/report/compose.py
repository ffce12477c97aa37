"""The report of an evaluation, from what it is made of: the verdict first, what is wanted rarely at the end."""

from pipeline.report.account import (
    data_section,
    external_section,
    generation_section,
    identity_section,
    metrics_section,
    reference_section,
    wrong_section,
)
from pipeline.report.content import Data, Report, Text
from pipeline.report.judgement import comparison_section, gate_section, verdict_words
from pipeline.report.material import Material
from pipeline.report.numbers import count, number
from pipeline.report.results import length_section, result_section, slice_section
from pipeline.report.training import cost_section, training_section


def compose(material: Material) -> Report:
    """All sections that there is something to say in."""
    document = material.document
    return Report(
        title=Data((document.get("policy") or {}).get("name") or "a policy"),
        lead=_lead(material),
        verdict=document["verdict"] if document["gates"] else None,  # without gates there was nothing to pass
        verdict_words=verdict_words(document),
        sections=[
            gate_section(material),
            *comparison_section(material),
            result_section(material),
            *slice_section(material),
            *length_section(material),
            *generation_section(material),
            *external_section(material),
            *training_section(material),
            *wrong_section(material),
            *reference_section(material),
            *data_section(material),
            *cost_section(material),
            metrics_section(material),
            identity_section(material),
        ],
    )


def _lead(material: Material) -> Text:
    document = material.document
    prompts = f" of {count(document['n_prompts'])} prompts" if "n_prompts" in document else ""
    told: list[str] = [f"{count(document['n_pairs'])} held-out pairs{prompts}"]
    if document.get("objective"):
        told += ["; trained with ", Data(document["objective"])]
        told += [f", beta {number(document['beta'])}"] if document.get("beta") is not None else []
    if reference := document.get("reference"):
        told += ["; reference ", Data(reference.get("name") or "")]
    return told
