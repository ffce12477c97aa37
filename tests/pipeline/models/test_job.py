"""`pipeline eval` of models that no run made."""

import gc
import json
import logging
import shutil
import warnings
import weakref
from pathlib import Path

import polars as pl
import pytest

from pipeline.control import ProcessControl
from pipeline.summary import summary
from tests.tiny import build_model, build_tokenizer, save_model


def names(*folders: Path) -> str:
    return f"eval.model={json.dumps([str(folder) for folder in folders])}"


@pytest.fixture
def told(caplog):
    """What is said of models' tokens."""
    logger = logging.getLogger("pipeline.models.tokens")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    yield lambda: caplog.messages
    logger.removeHandler(caplog.handler)
    logger.setLevel(logging.NOTSET)


def links(work):
    return {name: (work.root / name).readlink() for name in ("latest", "passed")}


def test_a_copy_of_a_runs_policy_has_the_runs_metrics_and_pairs(trained, models):
    own, before = json.loads((trained.root / "runs/own/eval/metrics.json").read_bytes()), links(trained)
    document = trained.run("eval", names(models["copy"]))
    folder = Path(document["outputs"]["metrics"]).parent
    assert folder.parent == trained.root / "evaluations" and folder.name.startswith("elsewhere-copy-")
    there = json.loads((folder / "metrics.json").read_bytes())
    assert there["policy"].pop("name") == str(models["copy"]) == document["run"] and own["policy"].pop("name") == "own"
    differing = [key for key in own if own[key] != there[key]]
    assert differing == [] and document["metrics"] == own["metrics"]
    found, expected = (pl.read_parquet(place / "pairs.parquet") for place in (folder, trained.root / "runs/own/eval"))
    assert found.equals(expected)
    assert links(trained) == before
    assert (folder / "config.yaml").is_file() and any((folder / "scores").glob("*/parts/*.parquet"))


def test_no_run_is_needed(work, models):
    work.run("precompute-ref")
    assert work.run("eval", names(models["other"]))["metrics"]["reward_accuracy_low"] >= 0
    assert not (work.root / "runs").exists() and not (work.root / "passed").is_symlink()


def test_an_adapter_is_its_base_with_the_adapter_merged(trained, models, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers under an old name
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trained.model), models["adapter"])
        adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    pairs = [trained.run("eval", names(each))["outputs"]["pairs"] for each in (models["adapter"], tmp_path / "merged")]
    found = [pl.read_parquet(each) for each in pairs]
    for column in ("policy_chosen_logps", "policy_rejected_logps"):
        assert found[0][column].to_list() == pytest.approx(found[1][column].to_list(), rel=1e-4)
    assert (found[0]["margin"].abs() > 0.01).all()


def test_a_second_time_no_model_is_loaded_and_nothing_changes(trained, models, loads):
    asked = names(models["other"], models["adapter"])
    first = trained.run("eval", asked)
    before = {path: path.read_bytes() for path in trained.root.glob("leaderboard/*/*")}
    loads.clear()
    again = trained.run("eval", asked)
    assert again["status"] == "nothing_to_do" and loads == [] and again["pairs_scored"] == 0
    assert again["leaderboard"] == first["leaderboard"]
    assert {path: path.read_bytes() for path in trained.root.glob("leaderboard/*/*")} == before
    alone = trained.run("eval", names(models["other"]))
    assert alone["status"] == "nothing_to_do" and loads == [] and alone["metrics"]


def test_the_order_of_models_is_of_no_consequence(trained, models):
    one = trained.run("eval", names(models["other"], models["copy"], models["adapter"]))["outputs"]["leaderboard"]
    content = Path(one).read_bytes()
    other = trained.run("eval", names(models["adapter"], models["other"], models["copy"]))["outputs"]["leaderboard"]
    assert other == one and Path(other).read_bytes() == content


def test_one_that_is_broken_loses_none_of_the_others(trained, models, tmp_path):
    foreign = save_model(tmp_path / "foreign", vocab_size=300)
    document = trained.run("eval", names(models["broken"], models["other"], foreign, models["copy"]), expect=2)
    assert document["status"] == "failed"
    assert document["message"].startswith(
        f"2 of 4 models cannot be evaluated; the others are finished. {models['broken']}: The model {models['broken']} "
        "cannot be loaded: "
    )
    board = document["leaderboard"]
    assert {model["name"] for model in board["models"]} == {str(models["other"]), str(models["copy"])}
    assert {each["name"]: each["exit_code"] for each in board["failed"]} == {str(models["broken"]): 2, str(foreign): 2}
    assert f"Not evaluated: {models['broken']}. The model " in summary(document).replace("\n", " ")
    assert not any((trained.root / "evaluations").glob("elsewhere-broken*/metrics.json"))


def test_all_that_are_broken_leave_no_leaderboard(trained, models, tmp_path):
    document = trained.run("eval", names(models["broken"], tmp_path / "nothing" / "here"), expect=2)
    assert "leaderboard" not in document and document["message"].count("neither a folder on this machine") == 1


def test_every_model_is_judged_and_those_that_fail_are_named(trained, models):
    limits = ("eval.point=true", "eval.min.reward_accuracy=0.9")
    document = trained.run("eval", names(models["other"], models["copy"]), *limits, expect=5)
    assert document["message"].startswith(f"The model {models['other']} does not pass: reward_accuracy is 0.6667")
    verdicts = {model["name"]: (model["verdict"], model["failed_gates"]) for model in document["leaderboard"]["models"]}
    assert verdicts == {str(models["other"]): ("failed", ["reward_accuracy"]), str(models["copy"]): ("passed", [])}
    assert "FAILED: reward_accuracy" in summary(document)
    alone = trained.run("eval", names(models["other"]), *limits, expect=5)
    assert alone["message"].startswith(f"The model {models['other']} does not pass: ") and alone["status"] == "failed"
    assert links(trained)["passed"].name == "own"


def test_a_run_stands_for_its_policy(trained, models):
    board = trained.run("eval", f'eval.model=["own", "{models["copy"]}"]')["leaderboard"]
    own, copy = sorted(board["models"], key=lambda model: len(model["name"]))
    assert own["name"] == "own" and own["metrics"] == copy["metrics"] and own["policy_id"] == copy["policy_id"]
    assert (own["rank_low"], own["rank_high"]) == (copy["rank_low"], copy["rank_high"]) == (1, 2)
    assert board["tests"][0]["holm_p"] == 1.0 and board["tests"][0]["better"] is None


def test_one_model_is_in_memory_at_a_time(trained, models, tmp_path, monkeypatch):
    from stages.scoring import scorer

    load, seen = scorer.load_model, []

    def watched(*arguments):
        assert [model for model in seen if model() is not None] == []
        model = load(*arguments)
        seen.append(weakref.ref(model))
        return model

    monkeypatch.setattr(scorer, "load_model", watched)
    fresh = [save_model(tmp_path / str(seed), seed=seed) for seed in (11, 12)]
    gc.disable()  # what it would find by chance
    try:
        trained.run("eval", names(fresh[0], models["broken"], fresh[1]), expect=2)
    finally:
        gc.enable()
    assert len(seen) == 2


def test_a_dry_run_says_what_it_takes_and_writes_nothing(trained, models, tmp_path):
    fresh = save_model(tmp_path / "fresh", seed=13)
    before = sorted(trained.root.rglob("*"))
    document = trained.run("eval", "--dry-run", names(fresh), expect=0)
    assert document["status"] == "dry_run" and document["responses_scored"] == 12 and document["tokens"] > 0
    several = trained.run("eval", "--dry-run", names(fresh, tmp_path / "no" / "model"), expect=0)
    assert several["plan"] == [
        {"would": "evaluate", "what": str(fresh)},
        {"would": "fetch and evaluate", "what": str(tmp_path / "no" / "model")},
    ]
    assert "evaluate: " in summary(several) and sorted(trained.root.rglob("*")) == before


def test_a_signal_keeps_what_is_finished_and_nothing_of_the_rest(trained, tmp_path, monkeypatch):
    fresh = [save_model(tmp_path / str(seed), seed=seed) for seed in (14, 15)]
    done = trained.run("eval", names(fresh[0]))["outputs"]["metrics"]
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: True)
        document = trained.run("eval", names(*fresh), expect=75)
    assert document["status"] == "interrupted" and Path(done).is_file()
    assert len(list(trained.root.glob(f"evaluations/{tmp_path.name}-1[45]-*/metrics.json"))) == 1
    assert trained.run("eval", names(*fresh))["pairs_scored"] == 6


def test_names_of_models_do_nothing_in_the_table(trained, models):
    hostile = models["copy"].parent / "a|b`\n::error::\u202e<script>"
    shutil.copytree(models["copy"], hostile)
    document = trained.run("eval", names(hostile, models["other"]))
    table = Path(document["outputs"]["table"]).read_text()
    rows = [line for line in table.split("\n") if line.startswith("|")]
    assert len(rows) == 5 and {row.count("|") for row in rows} == {rows[0].count("|")}
    assert "\u202e" not in table and "`" + str(hostile.parent) in rows[2] + rows[3]
    shutil.rmtree(hostile)


def test_a_model_of_another_vocabulary_is_refused_before_it_is_loaded(trained, tmp_path, loads):
    foreign = save_model(tmp_path / "small", vocab_size=300)
    message = trained.run("eval", names(foreign), expect=2)["message"]
    assert f"The model {foreign} knows 300 tokens, and the held-out pairs have token 3" in message
    assert "It has another vocabulary; evaluate it with a configuration of its own" in message and loads == []


def test_a_model_of_another_tokenizer_is_refused_by_example(trained, tmp_path, loads):
    foreign = save_model(tmp_path / "foreign", seed=16)
    file = foreign / "tokenizer.json"
    document = json.loads(file.read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["u"], vocabulary["e"] = vocabulary["e"], vocabulary["u"]
    document["model"]["merges"] = []
    file.write_text(json.dumps(document))
    message = trained.run("eval", names(foreign), expect=2)["message"]
    assert message.startswith(f"The model {foreign} has another tokenizer than reference.model, whose tokens the pairs")
    assert " as '" in message or "are expected" in message
    assert "eval.reference_free: true needs no scores of that reference" in message
    assert loads == [] and not any((trained.root / "evaluations").glob("*foreign*"))


def test_a_tokenizer_in_other_files_is_the_same_and_another_template_is_told(trained, tmp_path, told):
    folder = save_model(tmp_path / "anew", seed=17)
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|endoftext|>"})
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", "assistant: ")
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    trained.run("eval", names(folder))
    assert any(
        f"the chat template of {folder} writes '" in each and "scored under the template of" in each for each in told()
    )
    assert any(f"{folder} ends its turns with '<|endoftext|>', and the responses of" in each for each in told())


def test_a_folder_without_a_tokenizer_is_told_and_evaluated(trained, tmp_path, told):
    build_model(seed=18).save_pretrained(tmp_path / "bare")
    assert trained.run("eval", names(tmp_path / "bare"))["n_pairs"] == 6
    assert told() == [f"{tmp_path / 'bare'} has no tokenizer of its own; only the size of its vocabulary was checked"]
