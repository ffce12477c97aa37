"""The policy's card: what the Hub reads, what a person reads, and that it changes nothing."""

import sys
from dataclasses import replace

import polars as pl
import pytest
import yaml

from pipeline.report.model_card import MARKER, model_card, write_card
from tests.pipeline.report.documents import HOSTILE, document, material

CONFIG = {
    "reference": {"model": "HuggingFaceTB/SmolLM2-135M-Instruct"},
    "data": {"train": [{"path": "trl-lib/ultrafeedback@main"}, {"path": "more.jsonl"}], "eval": None},
    "train": {"model": None, "learning_rate": 2.0e-05, "epochs": 1, "pairs_per_step": 16, "lora": None},
}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def card(text=None, adapter=False, config=CONFIG, **changes):
    """Front matter and body."""
    settings = yaml.safe_dump(config)
    content = model_card(material(text, configuration=settings, **changes), adapter=adapter).decode()
    empty, head, body = content.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(head), body


def test_the_front_matter_says_base_data_and_results():
    head, body = card()
    assert head["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct" and head["base_model_relation"] == "finetune"
    assert head["library_name"] == "transformers" and head["datasets"] == ["trl-lib/ultrafeedback"]
    assert head["tags"] == ["preference-optimization", "dpo"]
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert model["name"] == "night-7" and result["dataset"]["type"] == "trl-lib/ultrafeedback"
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["reward_accuracy"] == pytest.approx(64 / 77, abs=1e-6)
    assert body.startswith(f"{MARKER}\n")


def test_the_body_says_how_it_was_trained_what_came_of_it_and_what_is_not_known():
    _, body = card()
    parts = ("# `night-7`", "Trained with `sigmoid`, beta 0.1, on 123 preference pairs, peak learning rate 2e-05",
             "held to, `SmolLM2-135M-Instruct`", "## Results", "1 of 3 gates failed", "| ranking accuracy |",
             "0.538 to 0.747", "## Limits", "Safety was not evaluated")  # fmt: skip
    places = [body.index(part) for part in parts]
    assert places == sorted(places)


def test_a_card_is_written_without_a_look_at_the_pairs(monkeypatch):
    """Every evaluation makes one, also where nothing has changed: no figure is drawn that no card shows."""
    monkeypatch.delitem(sys.modules, "matplotlib")
    made = material(configuration="train: {}")
    assert model_card(replace(made, pairs=pl.DataFrame())) == model_card(made)


def test_a_folder_of_this_machine_is_no_base_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in ("/models/base", "./base/model", ".models/SmolLM2", "models/base/x"):
        head, body = card(config=CONFIG | {"reference": {"model": model}})
        assert "base_model" not in head and "/models" not in body and ".models" not in body
    (tmp_path / "owner" / "name").mkdir(parents=True)
    head, _ = card(config={"reference": {"model": "owner/name"}, "data": {"train": [{"path": "owner/name"}]}})
    assert "base_model" not in head and "datasets" not in head


def test_an_adapter_and_a_start_elsewhere_are_told():
    train = CONFIG["train"] | {"model": "owner/start", "lora": {"r": 8}}
    head, body = card(adapter=True, config=CONFIG | {"train": train})
    assert (head["library_name"], head["base_model"], head["base_model_relation"]) == ("peft", "owner/start", "adapter")
    assert ", as an adapter." in body and "started from another policy" in body
    passed, _ = card(config=CONFIG | {"train": CONFIG["train"] | {"model": "passed"}})
    assert passed["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_hostile_names_stay_values_and_code():
    config = {"reference": {"model": HOSTILE}, "data": {"train": [HOSTILE]}, "train": {"model": HOSTILE}}
    head, body = card(HOSTILE, config=config)
    assert set(head) == {"library_name", "pipeline_tag", "tags", "model-index"}
    assert head["model-index"][0]["name"].startswith("<script>")
    assert not [line for line in body.splitlines()[2:] if line.lstrip().startswith(("<", "::"))]


def test_without_a_configuration_there_is_a_card_still():
    head, body = card(config=None)
    assert "base_model" not in head and "## Results" in body
    assert model_card(material(configuration="{not: [yaml")) and model_card(material(configuration=None))


def test_a_card_is_written_once_and_never_over_a_persons(tmp_path):
    found = material(configuration=yaml.safe_dump(CONFIG))
    path = write_card(found, tmp_path)
    assert path == tmp_path / "README.md"
    first = path.stat().st_mtime_ns
    assert write_card(found, tmp_path) == path and path.stat().st_mtime_ns == first
    write_card(material(document=document(name="night-8"), configuration=None), tmp_path)
    assert "# `night-8`" in path.read_text()
    path.write_text("# My model\n")
    assert write_card(found, tmp_path) is None and path.read_text() == "# My model\n"
