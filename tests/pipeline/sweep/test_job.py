"""The sweep on tiny models: the runs of single jobs, made once, whoever is interrupted, shares them out or fails."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.pairs.splits import SPLITS, group_number, split_of
from tests.jobs import Command
from tests.tiny import Work, example_rows

DATA = ("data.dev_fraction=0.2", "train.epochs=1")
GRID = (*DATA, "sweep.beta=[0.05, 0.5]", "sweep.seed=[0, 1]")
BLOCK_TORCH = "import sys; sys.modules['torch'] = None; from pipeline.__main__ import main; main()"


def folder(work: Work) -> Path:
    (found,) = (work.root / "sweep").iterdir()
    return found


def results(work: Work) -> dict[str, Any]:
    return json.loads((folder(work) / "sweep.json").read_bytes())


def options(assignments) -> list[str]:
    return [part for assignment in assignments for part in ("--set", assignment)]


def weights(work: Work) -> dict[str, tuple[bytes, int]]:
    """Content and time of each policy."""
    files = work.root.glob("runs/*/policy/model.safetensors")
    return {file.parts[-3]: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def times(work: Work) -> dict[Path, int]:
    """When each file of runs, store and sweep was written."""
    files = [path for name in ("runs", "store", "sweep") for path in (work.root / name).rglob("*")]
    return {path: path.stat().st_mtime_ns for path in files if path.name != "lock"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, model_folder):
    """A sweep that nothing disturbed, and its document."""
    work = Work(tmp_path_factory.mktemp("swept"), model_folder)
    return work, work.run("sweep", *GRID)


def test_every_run_is_there_and_one_is_chosen(swept):
    work, document = swept
    found = results(work)
    assert document["status"] == "done" and document["run"] == found["choice"]["run"]
    assert [(run["beta"], run["seed"]) for run in found["runs"]] == [(0.05, 0), (0.05, 1), (0.5, 0), (0.5, 1)]
    assert [setting["seeds"] for setting in found["settings"]] == [[0, 1], [0, 1]]
    assert found["schema_version"] == 2 and found["metric"] == "reward_accuracy" and found["seed_sd"] >= 0
    assert 0 <= found["seed_sd_beyond_pairs"] <= found["seed_sd"]
    assert folder(work).name == found["identity"][:12] and len({run["run"] for run in found["runs"]}) == 4
    for run in found["runs"]:
        assert run["status"] == "done" and run["message"] is None
        for split, name in (("dev", "dev"), ("eval", "held_out")):
            evaluated = json.loads((work.root / "runs" / run["run"] / split / "metrics.json").read_bytes())
            assert run[name]["value"] == evaluated["metrics"]["reward_accuracy"]
            assert run[name]["drift"] == evaluated["metrics"]["drift"] > 0
            assert evaluated["verdict"] is None and evaluated["gates"] == []
    assert document["outputs"]["table"] == str(folder(work) / "table.md")
    assert (found["n_dev_pairs"], found["n_held_out_pairs"]) == (8, 6)


def test_latest_and_passed_do_not_move(work, swept):
    assert not any((swept[0].root / name).is_symlink() for name in ("latest", "passed"))
    single = work.run("run", *DATA)["run"]
    work.run("sweep", *GRID)
    assert {(work.root / name).resolve().name for name in ("latest", "passed")} == {single}


def test_the_runs_are_those_of_single_jobs(make_work, swept):
    """One made before is taken as it is; one made alone has the same name, weights and configuration."""
    work, (_, document) = make_work(), swept
    second = document["runs"][2]
    work.run("precompute-ref", *DATA)
    assert work.run("train", *GRID, *second["assignments"])["run"] == second["run"]
    made = weights(work)
    assert made[second["run"]][0] == weights(swept[0])[second["run"]][0]
    configuration = Path("runs") / second["run"] / "config.yaml"
    alone, of_the_sweep = ((each.root / configuration).read_text() for each in (work, swept[0]))
    assert alone == of_the_sweep.replace(str(swept[0].folder), str(work.folder))
    work.run("sweep", *GRID)
    assert weights(work).items() >= made.items() and len(weights(work)) == 4
    again = work.run("run", *GRID, *document["choice"]["assignments"])
    assert [job["status"] for job in again["jobs"]] == ["nothing_to_do"] * 3 and again["run"] == document["run"]


def test_shards_come_to_the_same_as_one(work, swept):
    first = work.run("sweep", *GRID, arguments={"shard": "1/2"})
    assert [run["status"] for run in first["runs"]] == ["pending", "done", "pending", "done"]
    assert first["choice"] is None and first["shard"] == "1/2"
    second = work.run("sweep", *GRID, arguments={"shard": "0/2"})
    assert second["run"] == swept[1]["run"]
    for name in ("sweep.json", "table.md", "sweep.svg"):
        assert (folder(work) / name).read_bytes() == (folder(swept[0]) / name).read_bytes()


def test_a_sweep_that_was_interrupted_trains_nothing_twice(work, swept):
    process = Command(["sweep", "-c", str(work.config), "--json", *options(GRID)], work.folder)
    deadline = time.monotonic() + 60
    while len(weights(work)) < 2 and process.runs and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    done = process.finish()
    assert done.returncode == 75, done.stderr
    stopped = json.loads(done.stdout)
    assert stopped["status"] == "interrupted" and "Run the same command again" in stopped["message"]
    made = weights(work)
    assert 2 <= len(made) < 4
    document = work.run("sweep", *GRID)
    assert weights(work).items() >= made.items() and document["run"] == swept[1]["run"]
    assert results(work) == results(swept[0])


def test_a_finished_sweep_needs_no_torch_and_changes_nothing(swept):
    work, document = swept
    before = times(work)
    done = work.command("sweep", "-c", str(work.config), "--json", *options(GRID), module=BLOCK_TORCH)
    again = json.loads(done.stdout)
    assert again["status"] == "nothing_to_do" and again["runs"] == document["runs"], done.stderr
    assert times(work) == before and "is trained already" not in done.stderr  # looking is enough


def test_a_run_that_fails_keeps_no_other_from_being_made(work):
    axes = (*DATA, "sweep.learning_rate=[1e30, 1e-3]", "sweep.beta=[0.1]")
    document = work.run("sweep", *axes, expect=1)
    assert [run["status"] for run in document["runs"]] == ["failed", "done"]
    message = document["runs"][0]["message"]
    assert message.startswith("Training stopped at step ") and "A lower train.learning_rate" in message
    assert document["message"].startswith(
        "1 of 2 runs failed; the others of this worker are finished. The first, beta: 0.1, "
    )
    assert document["message"].endswith(f"{message} The same command tries the failed ones again.")
    assert document["choice"]["run"] == document["runs"][1]["run"] and document["status"] == "failed"
    assert results(work)["runs"] == document["runs"]
    made = weights(work)
    assert work.run("sweep", *axes, arguments={"shard": "1/2"})["runs"] == document["runs"]  # kept by other workers
    assert work.run("sweep", *axes, expect=1)["runs"] == document["runs"] and weights(work) == made


def test_a_run_folder_that_cannot_be_read_is_a_failure_of_this_run_alone(work):
    broken, whole = (run["run"] for run in work.run("sweep", *DATA, "sweep.beta=[0.1, 0.2]")["runs"])
    (work.root / "runs" / broken / "run.json").write_text("{")
    document = work.run("sweep", *DATA, "sweep.beta=[0.1, 0.2]", expect=4)
    assert "cannot be told which run this folder holds" in document["runs"][0]["message"]
    assert document["choice"]["run"] == whole


def test_gates_are_neither_applied_nor_lost(work):
    gated = (*DATA, "sweep.beta=[0.1, 0.2]", "eval.min.reward_margin=1000")
    single = work.run("run", *gated, "train.beta=0.1", expect=5)["run"]
    document = work.run("sweep", *gated)
    first, second = (work.root / "runs" / run["run"] / "eval" / "metrics.json" for run in document["runs"])
    assert document["runs"][0]["run"] == single and json.loads(first.read_bytes())["verdict"] == "failed"
    assert json.loads(second.read_bytes())["verdict"] is None
    judged = work.run("eval", *gated, "train.beta=0.2", expect=5)
    assert judged["pairs_scored"] == 0 and judged["verdict"] == "failed" == json.loads(second.read_bytes())["verdict"]


def test_without_a_reference_there_is_nothing_to_score_and_no_drift(work):
    document = work.run("sweep", *DATA, "sweep.objective=[naive, sft]")
    assert document["metric"] == "ranking_accuracy" and document["status"] == "done"
    assert [run["held_out"]["drift"] for run in document["runs"]] == [None, None]
    assert not (work.root / "store").exists() and "picture" not in document["outputs"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ((), "there are no dev pairs. Set data.dev_fraction (now 0) to a larger share, such as 0.1, and run the same"),
        (("data.dev_fraction=0.2", "data.eval_fraction=0"), "no held-out pairs. Set data.eval_fraction (now 0) to a"),
        (("data.eval_fraction=0",), "no dev and no held-out pairs. Set data.dev_fraction (now 0) and data.eval_fr"),
        (("data.dev_fraction=0.0001",), "there are no dev pairs. Set data.dev_fraction (now 0.0001) to a larger share"),
    ],
)  # fmt: skip
def test_pairs_to_choose_on_and_pairs_to_measure_on_are_needed(work, settings, text):
    assert text in work.run("sweep", "sweep.beta=[0.1]", *settings, expect=2)["message"]
    assert not (work.root / "store").exists()
    assert (work.root / "pairs").exists() == ("0.0001" in text)  # a share of 0 is refused before the data are read


def test_a_dry_run_tells_what_is_missing_and_writes_nothing(work):
    plan = work.run("sweep", "--dry-run", *GRID)
    assert [each["would"] for each in plan["plan"]] == ["score", "train", "train", "train", "train"]
    assert plan["plan"][:2] == [
        {"would": "score", "what": "40 pairs with the reference"},
        {"would": "train", "what": "beta: 0.05, seed: 0"},
    ]
    assert plan["steps_total"] == 4 * 7 and plan["disk_bytes"] > 0  # 26 pairs in steps of 4
    assert [path.name for path in work.root.iterdir()] == ["digests.json"]
    work.run("precompute-ref", *DATA)
    work.run("train", *DATA, "train.beta=0.5")
    half = work.run("sweep", "--dry-run", *GRID, arguments={"shard": "0/2"})
    assert [each["would"] for each in half["plan"]] == ["train", "evaluate"] and half["tokens"] < plan["tokens"]
    shown = work.command("sweep", "--dry-run", "-c", str(work.config), *options(GRID)).stdout
    assert "  evaluate: beta: 0.5, seed: 0\n" in shown and " tokens of 26 pairs in 21 steps\n" in shown
    work.run("sweep", *GRID)
    assert work.run("sweep", "--dry-run", *GRID)["status"] == "nothing_to_do"


@pytest.mark.parametrize("change", ["train.pairs_per_step=5", "sweep.seed=[1, 0]", "data.max_length=60"])
def test_other_values_or_other_pairs_are_another_grid(work, change):
    work.run("sweep", *GRID, "sweep.beta=[0.05]", change)
    work.run("sweep", *GRID, "sweep.beta=[0.05]")
    assert len(list((work.root / "sweep").iterdir())) == 2


@pytest.mark.parametrize("split", ["dev", "eval"])
def test_other_pairs_to_compare_on_are_another_grid_of_the_same_runs(work, split):
    first = work.run("sweep", *DATA, "sweep.beta=[0.05]")
    rows = example_rows(400, start=40)
    split_of_row = split_of(np.array([group_number(row["prompt"]) for row in rows], dtype=np.uint64), 0.25, 0.2)
    wanted = SPLITS.index(split)
    with work.data.open("a") as file:
        file.write(
            json.dumps(next(row for row, found in zip(rows, split_of_row, strict=True) if found == wanted)) + "\n"
        )
    second = work.run("sweep", *DATA, "sweep.beta=[0.05]")
    assert second["runs"][0]["run"] == first["runs"][0]["run"] and second["identity"] != first["identity"]
    assert len(list((work.root / "sweep").iterdir())) == 2


def test_a_person_gets_the_table_and_how_to_make_the_chosen_run(swept):
    work, document = swept
    lines = work.command("sweep", "-c", str(work.config), *options(GRID)).stdout.splitlines()
    assert lines[0] == "Sweep: reward accuracy on 8 dev pairs and 6 held-out pairs"
    assert lines[-1].endswith(f"pipeline run {' '.join(options(document['choice']['assignments']))}")


def test_what_a_sweep_would_ignore_is_refused(work):
    asked = ("data.dev_fraction=0.2", "eval.model=[elsewhere]", "eval.reference_free=true")
    message = work.run("sweep", "sweep.beta=[0.1]", *asked, expect=2)["message"]
    assert "eval.model and eval.reference_free would have no effect" in message
