"""`pipeline report` on what the jobs leave: one page and one summary, nothing else changed, no model loaded."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from data.errors import StoreError
from pipeline.config import load_config
from pipeline.control import ProcessControl
from pipeline.inputs import Inputs
from pipeline.report.write import write_report
from stages.run_folder import RunFolder
from tests.pipeline.report.documents import document, pairs_frame, write_evaluation, write_pairs
from tests.tiny import Work, save_model

BLOCK_TORCH = "import sys; sys.modules['torch'] = None; from pipeline.__main__ import main; main()"


@pytest.fixture(scope="module")
def done(tmp_path_factory, model_folder) -> Work:
    """The three jobs, done."""
    work = Work(tmp_path_factory.mktemp("work"), model_folder)
    work.run("run", "eval.min={reward_accuracy: 0.5}", "eval.point=true")
    return work


def inputs(work, *settings) -> Inputs:
    return Inputs(load_config(work.config, settings), ProcessControl(quiet=True))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_report_joins_the_three_jobs(done):
    report = done.run("report")
    assert report["status"] == "done" and report["exit_code"] == 0 and report["verdicts"] == {report["run"]: "passed"}
    assert set(report["outputs"]) == {"report", "summary"} and report["pairs"] == 6
    page, summary = (Path(report["outputs"][name]).read_text() for name in ("report", "summary"))
    said = ("Passed", "the gate passed", report["run"], "score the reference", "Norm of the gradient", "18 steps",
            "scored with torch", "learning_rate")  # fmt: skip
    assert [words for words in said if words not in page] == []
    assert summary.startswith(f"## Passed: `{report['run']}`")


def test_it_changes_nothing_else_and_gives_the_same_bytes(done):
    first = snapshot(done.root)
    outputs = done.run("report")["outputs"]
    for path in outputs.values():
        first.pop(path, None)
        Path(path).unlink()
    done.run("report")
    second = snapshot(done.root)
    written = {path: second.pop(path) for path in outputs.values()}
    assert second == first
    stamps = [Path(path).stat().st_mtime_ns for path in outputs.values()]
    done.run("report")
    assert {path: Path(path).read_bytes() for path in outputs.values()} == written
    assert stamps == [Path(path).stat().st_mtime_ns for path in outputs.values()]  # not even drawn again


def test_the_evaluation_has_written_the_very_report(done):
    """By its own account of itself, which stands in jobs/eval.json only afterwards."""
    gates = ("eval.min={reward_accuracy: 0.4}", "eval.point=true")
    shutil.rmtree((done.root / "latest" / "eval").resolve())
    outputs = done.run("eval", *gates)["outputs"]
    written = [Path(outputs[name]).read_bytes() for name in ("report", "summary")]
    done.run("report", *gates)
    assert [Path(outputs[name]).read_bytes() for name in ("report", "summary")] == written


def test_it_needs_no_torch(done):
    process = done.command("report", "-c", str(done.config), module=BLOCK_TORCH)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[0].startswith("report: ") and process.stdout.count("\n") == 2


def test_texts_of_wrong_pairs_stand_there_only_where_they_are_asked_for(done):
    run = RunFolder(done.root / "latest")
    pairs = pl.read_parquet(run.path / "eval" / "pairs.parquet").with_columns(margin=-pl.col("margin").abs() - 0.1)
    held_out = done.prepared().splits["eval"]
    folder = write_evaluation(done.folder / "wrong", document(pairs), pairs)
    page = folder / "report.html"
    write_report(inputs(done), folder, run, held_out)
    assert "how many times does the fox jump" not in page.read_text()
    write_report(inputs(done, "eval.show_pairs=2"), folder, run, held_out)
    text = page.read_text()
    worst = pairs.sort("margin", "pair_key").head(2)["pair_key"]
    assert text.count("how many times does the fox jump") == 2 and all(key[:12] in text for key in worst)
    assert "\u27e6It jumps" in text and "prefs.jsonl:" in text


def test_a_model_trained_elsewhere_has_a_report_of_its_evaluation_alone(work):
    folder = write_evaluation(work.folder / "elsewhere")
    outputs = write_report(inputs(work), folder, card=True)
    assert set(outputs) == {"report", "summary"}
    text = Path(outputs["report"]).read_text()
    assert "night-7" in text and "<h2>Training</h2>" not in text and "<h2>Cost</h2>" not in text


def test_a_card_leaves_the_evaluation_valid(done):
    run = RunFolder((done.root / "latest").resolve())
    outputs = write_report(inputs(done), run.path / "eval", run, card=True)
    assert outputs["card"] == str(run.policy / "README.md")
    assert "library_name: transformers" in Path(outputs["card"]).read_text()
    again = done.run("eval", "eval.min={reward_accuracy: 0.5}", "eval.point=true")
    assert again["status"] == "nothing_to_do" and again["pairs_scored"] == 0
    assert done.run("verify")["exit_code"] == 0 and done.run("run")["status"] == "nothing_to_do"


def test_the_latest_run_stands_in_for_one_that_is_not_evaluated(done, capsys):
    report = done.run("report", "train.beta=0.7")
    assert report["run"] == (done.root / "latest").resolve().name
    told = capsys.readouterr().err
    assert "the report is of the latest run" in told and "is not evaluated" in told


def test_without_an_evaluation_there_is_an_error(work):
    work.run("validate")
    message = work.run("report", expect=4)["message"]
    assert message.startswith("There is nothing to report on: neither the configured run nor")
    assert message.endswith("Run: pipeline eval (with the same --config and --set).")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "metrics.json").write_text("[1"), "There is no whole evaluation in"),
        (lambda folder: (folder / "pairs.parquet").unlink(), "(FileNotFoundError: "),
        (lambda folder: (folder / "pairs.parquet").write_bytes(b"PAR1"), "There is no whole evaluation in"),
        (
            lambda folder: (folder / "metrics.json").write_text(json.dumps({"schema_version": 1})),
            "has schema_version 1, and reports are made of 2",
        ),
        (lambda folder: write_pairs(folder, pairs_frame(), "ab" * 32), "has the scores of another evaluation"),
    ],
)
def test_an_evaluation_that_is_not_whole_is_an_error(work, spoil, said):
    folder = write_evaluation(work.folder / "spoiled")
    spoil(folder)
    with pytest.raises(StoreError) as caught:
        write_report(inputs(work), folder)
    assert said in str(caught.value) and "pipeline eval" in str(caught.value)


def test_responses_that_cannot_be_read_are_left_out_and_said(work, caplog):
    folder = write_evaluation(work.folder / "eval")
    (folder / "generations.parquet").write_bytes(b"PAR1")
    assert Path(write_report(inputs(work), folder)["report"]).is_file()
    assert "generations.parquet cannot be read" in caplog.text and "pipeline eval" in caplog.text


def test_the_summary_of_a_ci_step_is_written(work, monkeypatch):
    step = work.folder / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    folder = write_evaluation(work.folder / "eval", document(pairs_frame()))
    for _ in range(2):
        write_report(inputs(work), folder)
    assert step.read_text() == "\n" + (folder / "report.md").read_text()


def test_models_that_no_run_made_have_their_reports(done, tmp_path):
    models = [str(save_model(tmp_path / f"model{i}", seed=i + 5)) for i in range(2)]
    chosen = f"eval.model={models}"
    done.run("eval", chosen)
    pages = sorted(done.root.glob("evaluations/*/report.html"))
    before = snapshot(done.root)
    assert len(pages) == 2 and all("how many times" not in page.read_text() for page in pages)
    report = done.run("report", chosen)
    assert snapshot(done.root) == before and list(report["verdicts"]) == models
    assert sorted(path for what, path in report["outputs"].items() if what.startswith("report of ")) == [
        *map(str, pages)
    ]
    missing = done.run("report", f"eval.model={tmp_path / 'none'}", expect=2)["message"]
    assert "none is neither a folder on this machine nor a model" in missing
