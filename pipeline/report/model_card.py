"""The card in the policy's folder: README.md as the Hub reads it, with the results of the evaluation.

A card is no part of what a model is (stages/model_files.py), so that writing one leaves every result valid. One that a
person has written is left alone: ours has a marker in it.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from data.durable import write_bytes
from data.sources.hub import is_hub_id
from pipeline.report.content import Code, Data, Section, Text
from pipeline.report.judgement import comparison_section, gate_section, verdict_words
from pipeline.report.markdown import code_span, md_text, section_lines
from pipeline.report.material import Material
from pipeline.report.numbers import count, number
from pipeline.report.results import result_blocks, slice_section
from stages.adapter_files import is_adapter
from stages.training.config import PASSED

MARKER = "<!-- Written by pipeline eval. Take this line out, and the card is yours: it is not written again. -->"
_RESULTS = ("ranking_accuracy", "reward_accuracy", "reward_margin", "loss")


def write_card(material: Material, policy: Path) -> Path | None:
    """Write the card of a policy, unless somebody else has written one; returns where it is, if it is ours."""
    path, content = policy / "README.md", model_card(material, adapter=is_adapter(policy))
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = None
    if before is not None and MARKER.encode() not in before:
        return None
    if before != content:
        write_bytes(path, content)
    return path


def model_card(material: Material, *, adapter: bool = False) -> bytes:
    """The card; the same evaluation gives the same bytes."""
    settings = _settings(material)
    head = yaml.safe_dump(_front_matter(material, settings, adapter), sort_keys=False, allow_unicode=False, width=1000)
    name = (material.document.get("policy") or {}).get("name") or "policy"
    lines = ["---", f"{head}---", MARKER, "", f"# {code_span(name)}", "", *_training(material, settings)]
    lines += ["", "## Results", "", f"{verdict_words(material.document).capitalize()}."]
    results = Section("results", "Results", result_blocks(material))  # a card has no pictures
    sections: list[Section] = [gate_section(material), *comparison_section(material), results]
    for section in [*sections, *slice_section(material)]:
        lines += section_lines(section)
    return "\n".join([*lines, *_limits(material), ""]).encode()


def _front_matter(material: Material, settings: dict[str, Any], adapter: bool) -> dict[str, Any]:
    document = material.document
    base, datasets = _base_model(settings), _datasets(settings)
    found: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if base is not None:
        found |= {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    found["tags"] = ["preference-optimization", *(["lora"] if adapter else []), *_objectives(document)]
    if datasets:
        found["datasets"] = datasets
    metrics = [
        {"type": name, "name": name.replace("_", " "), "value": round(document["metrics"][name], 6)}
        for name in _RESULTS
        if name in document["metrics"]
    ]
    tested = {"name": "held-out preference pairs", "type": datasets[0] if datasets else "preference-pairs"}
    result = {"task": {"type": "text-generation"}, "dataset": tested, "metrics": metrics}
    name = (document.get("policy") or {}).get("name") or "policy"
    return found | {"model-index": [{"name": str(name), "results": [result]}]}


def _objectives(document: dict[str, Any]) -> list[str]:
    """Names of the objectives as tags: `dpo` is what the world calls sigmoid."""
    names = re.findall(r"[a-z]\w*", str(document.get("objective") or ""))
    return list(dict.fromkeys("dpo" if name == "sigmoid" else name for name in names))


def _settings(material: Material) -> dict[str, Any]:
    """The run's configuration; nothing where there is none that can be read."""
    try:
        found = yaml.safe_load(material.configuration or "")
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _base_model(settings: dict[str, Any]) -> str | None:
    """What the policy was made from, if that is on the Hub."""
    start = (settings.get("train") or {}).get("model")
    model = (settings.get("reference") or {}).get("model") if start in (None, PASSED) else start
    return model if isinstance(model, str) and _is_public(model) else None


def _datasets(settings: dict[str, Any]) -> list[str]:
    """The sources that are on the Hub, without their revisions."""
    data = settings.get("data") or {}
    sources = [*(data.get("train") or []), *(data.get("eval") or [])]
    paths = [source.get("path") if isinstance(source, dict) else source for source in sources]
    return list(dict.fromkeys(path.partition("@")[0] for path in paths if isinstance(path, str) and _is_public(path)))


def _is_public(name: str) -> bool:
    """Whether it reads as an id of the Hub, and no folder of this machine is called so."""
    return is_hub_id(name) and name[0].isalnum() and not Path(name).exists()


def _training(material: Material, settings: dict[str, Any]) -> list[str]:
    """How the policy was made, in a sentence or two."""
    document, train = material.document, settings.get("train") or {}
    objective: list[str] = ["Trained with ", Data(document.get("objective") or "an unknown objective")]
    if document.get("beta") is not None:
        objective.append(f", beta {number(document['beta'])}")
    splits = (document.get("coverage") or {}).get("splits") or {}
    if "train" in splits and train:
        objective.append(f", on {count(splits['train'])} preference pairs")
    said = {"learning_rate": "peak learning rate {}", "epochs": "epochs: {}", "pairs_per_step": "{} pairs a step"}
    for key, form in said.items():
        if isinstance(train.get(key), int | float):
            objective.append(f", {form.format(number(train[key]))}")
    if train.get("lora"):
        objective.append(", as an adapter")
    lines = [f"{md_text(objective)}."]
    model = (settings.get("reference") or {}).get("model")
    if model:
        shown: Text = ["It started from, and was held to, ", Code(Path(str(model)).name), "."]
        if train.get("model"):
            shown = ["It was held to ", Code(Path(str(model)).name), " and started from another policy."]
        lines += ["", md_text(shown)]
    return lines


def _limits(material: Material) -> list[str]:
    n = count(material.document["n_pairs"])
    return [
        *("", "## Limits", ""),
        f"- The numbers are of {n} held-out pairs of the data that the policy was trained on; other prompts differ.",
        "- Preference pairs say which of two given responses is better, not what the policy writes by itself.",
        "- Intervals are about the pairs: how much another training seed would change is in them only with seed_sd.",
        "- Safety was not evaluated.",
    ]
