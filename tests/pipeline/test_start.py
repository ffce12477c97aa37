"""`train.model: passed`, night by night: which policy a run starts from; the same command finds the same run again."""

import json
import shutil
from itertools import count

import pytest

from pipeline.control import ProcessControl
from tests.tiny import example_rows, save_model, write_jsonl

PASSED = ("train.model=passed", "train.epochs=1")


def night(work, n_rows, *settings, **keywords):
    """The three jobs on the first `n_rows` rows."""
    write_jsonl(work.data, example_rows(n_rows))
    return work.run("run", *PASSED, *settings, **keywords)


def begun(work, run):
    """What the folder of a run says about its start: run.json's id, start.json's run."""
    folder = work.root / "runs" / run
    return json.loads((folder / "run.json").read_text())["start_policy"], json.loads(
        (folder / "start.json").read_text()
    )["run"]


def passed(work):
    return (work.root / "passed").resolve().name


def runs(work):
    return {path.name for path in (work.root / "runs").iterdir()}


@pytest.fixture
def after_a_night(work):
    """A work folder after the first night, and its run."""
    return work, night(work, 40)["run"]


def test_the_first_night_starts_from_the_reference_and_says_so(work):
    options = ("--config", str(work.config), "--set", PASSED[0], "--set", PASSED[1])
    said = work.command("run", *options).stderr
    assert "train.model: passed: no run has passed yet, so the policy starts from the reference" in said
    (reference,) = (path.name for path in (work.root / "store").iterdir())
    (first,) = runs(work)
    assert begun(work, first) == (reference, None) and passed(work) == first
    plain = work.run("train", "train.epochs=1")  # the very run that the reference alone would have been
    assert (plain["status"], plain["run"]) == ("nothing_to_do", first)


def test_the_second_night_starts_from_the_policy_that_passed(after_a_night):
    work, first = after_a_night
    second = night(work, 44)["run"]
    assert begun(work, second)[1] == f"runs/{first}" and passed(work) == second != first
    metrics = [json.loads(line) for line in (work.root / "runs" / second / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["rewards/margins"] > 0.1  # against the reference, before the first update
    third = night(work, 48)["run"]
    assert begun(work, third)[1] == f"runs/{second}"


def test_the_same_command_again_finds_the_night_done(after_a_night):
    work, first = after_a_night
    second = night(work, 44)["run"]
    for job in ("run", "train", "eval", "precompute-ref"):
        document = work.run(job, *PASSED)
        assert document["status"] == "nothing_to_do" and document["run"] in (second, None)
    assert work.run("status", *PASSED)["run"] == second
    assert runs(work) == {first, second} and passed(work) == second


def test_a_run_that_does_not_pass_is_no_start(after_a_night):
    work, first = after_a_night
    failed = night(work, 44, "eval.min.reward_margin=1000", expect=5)["run"]
    again = work.run("run", *PASSED, "eval.min.reward_margin=1000", expect=5)
    assert again["run"] == failed and passed(work) == first
    assert begun(work, night(work, 48)["run"])[1] == f"runs/{first}"


def test_an_interrupted_night_goes_on_from_its_own_start(make_work, monkeypatch):
    """Though another configuration has passed meanwhile: as if it had never been interrupted, bit for bit."""
    straight, stopped = make_work(), make_work()
    night(straight, 40)
    golden = straight.root / "runs" / night(straight, 44)["run"]
    first = night(stopped, 40)["run"]
    write_jsonl(stopped.data, example_rows(44))
    stopped.run("precompute-ref", *PASSED)
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 5)
        stopped.run("train", *PASSED, expect=75)
    other = stopped.run("run", *PASSED, "train.beta=0.2")["run"]
    assert passed(stopped) == other and begun(stopped, other)[1] == f"runs/{first}"
    resumed = stopped.root / "runs" / stopped.run("train", *PASSED)["run"]
    assert resumed.name == golden.name
    one, two = ((run / "policy" / "model.safetensors").read_bytes() for run in (golden, resumed))
    assert one == two


def test_a_start_that_is_gone_stops_only_the_run_that_needs_it(after_a_night, monkeypatch):
    work, first = after_a_night
    write_jsonl(work.data, example_rows(44))
    work.run("precompute-ref", *PASSED)
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 5)
        interrupted = work.run("train", *PASSED, expect=75)
    (second,) = runs(work) - {first}
    assert interrupted["status"] == "interrupted"
    shutil.rmtree(work.root / "runs" / first)
    message = work.run("train", *PASSED, expect=4)["message"]
    assert message.startswith(f"Run {second} was begun from ") and "Put that model back, or move" in message


def test_a_passed_run_that_was_deleted_is_named(after_a_night):
    work, first = after_a_night
    second = night(work, 44)["run"]
    shutil.rmtree(work.root / "runs" / second)
    message = night(work, 48, expect=4)["message"]
    assert f"passed leads to {work.root / 'runs' / second}, and there is no trained policy" in message
    assert "remove it: the next run then starts from the reference" in message
    write_jsonl(work.data, example_rows(40))
    assert work.run("train", *PASSED)["run"] == first  # a night that is done needs no start
    (work.root / "passed").unlink()
    assert begun(work, night(work, 48)["run"])[1] is None


def test_a_work_folder_that_was_moved_knows_its_nights(after_a_night, monkeypatch):
    work, first = after_a_night
    work.root.rename(work.folder / "moved")
    monkeypatch.chdir(work.folder)
    document = work.run("run", *PASSED, "workdir=moved")
    assert (document["status"], document["run"]) == ("nothing_to_do", first)
    write_jsonl(work.data, example_rows(44))
    second = work.run("run", *PASSED, "workdir=moved")["run"]
    start = json.loads((work.folder / "moved" / "runs" / second / "start.json").read_text())
    assert start["run"] == f"runs/{first}"


def test_passed_is_never_a_folder_of_that_name(work, monkeypatch):
    own = save_model(work.folder / "passed", seed=5)
    monkeypatch.chdir(own.parent)
    first = night(work, 40)["run"]
    assert begun(work, first)[1] is None
    other = work.run("train", "train.model=./passed", "train.epochs=1")["run"]
    assert other != first and not (work.root / "runs" / other / "start.json").exists()


def test_a_run_with_a_name_keeps_its_start_too(after_a_night):
    work, first = after_a_night
    night(work, 44, "run=tuesday")
    assert begun(work, "tuesday")[1] == f"runs/{first}" and passed(work) == "tuesday"
    assert work.run("run", *PASSED, "run=tuesday")["status"] == "nothing_to_do"
    message = night(work, 48, "run=tuesday", expect=2)["message"]
    assert "holds another run, which differs in: n_pairs:" in message


def test_a_run_that_was_there_before_the_loop_is_the_first_night(work):
    """It is found, passes, and stays what the command means."""
    work.run("precompute-ref", "train.epochs=1")
    first = work.run("train", "train.epochs=1")["run"]
    for _ in range(2):
        assert work.run("eval", *PASSED)["run"] == first == passed(work)
        assert work.run("train", *PASSED)["status"] == "nothing_to_do"
    assert runs(work) == {first}


def test_a_dry_run_writes_down_no_start(work):
    work.run("precompute-ref", *PASSED)
    assert work.run("train", *PASSED, "--dry-run")["status"] == "dry_run"
    assert not (work.root / "runs").exists()


def test_all_runs_of_a_sweep_start_from_the_same_policy(after_a_night):
    work, first = after_a_night
    write_jsonl(work.data, example_rows(60))
    settings = (*PASSED, "data.dev_fraction=0.2", "sweep.metric=ranking_accuracy")
    one = work.run("run", *settings, "train.beta=0.2")["run"]  # begun from the first night's, and passed since
    sweep = (*settings, "sweep.beta=[0.1, 0.2, 0.3]")
    assert work.run("sweep", *sweep)["status"] == "done"
    grid = runs(work) - {first}
    assert len(grid) == 3 and one in grid and {begun(work, run)[1] for run in grid} == {f"runs/{first}"}
    assert work.run("run", *settings, "train.beta=0.5")["run"] == passed(work)
    again = work.run("sweep", *sweep)
    assert again["status"] == "nothing_to_do" and len(runs(work)) == 5
