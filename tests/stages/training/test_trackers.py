"""Trackers get what metrics.jsonl gets, go on with a run, and never stop one."""

import json
import logging
import os
import subprocess
import sys

import pytest

from data.errors import ConfigError
from stages.training.trackers import PROJECT, _Together, check_installed, open_trackers
from tests.tiny import ROOT

IDENTITY = "1a2b3c4d5e6f" + 52 * "0"
LINES = {step: {"step": step, "loss": 1 / step, "rewards/chosen": -step / 8} for step in range(1, 6)}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Nothing leaves this machine, and what trackers keep at home they keep here."""
    for name, value in {"WANDB_MODE": "offline", "TRACKIO_DIR": "trackio", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)


def track(names, folder, steps, done=0):
    folder.mkdir(exist_ok=True)
    tracker = open_trackers(names, folder, IDENTITY, {"beta": 0.1}, done)
    for step in steps:
        tracker.log(LINES[step], step)
    tracker.finish()


def events(folder):
    """The scalars of a run as TensorBoard reads them: (step, value) by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    track(["tensorboard"], tmp_path / "nightly", (1, 2, 4))
    assert events(tmp_path / "nightly") == {
        "loss": [(1, 1.0), (2, 0.5), (4, 0.25)],
        "rewards/chosen": [(1, -0.125), (2, -0.25), (4, -0.5)],
    }


def test_tensorboard_drops_the_steps_that_a_resumed_run_does_again(tmp_path):
    track(["tensorboard"], tmp_path / "nightly", (1, 2, 3, 4))
    tracker = open_trackers(["tensorboard"], tmp_path / "nightly", IDENTITY, {}, 2)
    tracker.log({"loss": 9.0}, 3)
    tracker.finish()
    assert events(tmp_path / "nightly")["loss"] == [(1, 1.0), (2, 0.5), (3, 9.0)]


def test_what_is_no_number_is_left_out(tmp_path):
    tracker = open_trackers(["tensorboard"], tmp_path, IDENTITY, {}, 0)
    tracker.log({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "skipped_steps": 1}, 1)
    tracker.finish()
    assert events(tmp_path) == {"skipped_steps": [(1, 1.0)]}


def test_without_names_nothing_is_imported_opened_or_written(tmp_path):
    code = (
        "t = open_trackers([], Path(), 'ab', {}, 0); t.log({'loss': 1.0}, 1); t.finish()\n"
        "import sys; print({'torch', 'wandb', 'trackio', 'tensorboard'} & set(sys.modules))"
    )
    done = in_its_own_process(code, tmp_path)
    assert (done.stdout, done.stderr) == ("set()\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr("stages.training.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        check_installed(["wandb"])
    assert str(error.value) == (
        "train.report_to names wandb, which is not installed. Run: pip install 'offline-preference-pipeline[wandb]', "
        "or leave it out: metrics.jsonl in the run's folder has every figure."
    )
    with pytest.raises(ConfigError, match=r"trackio and tensorboard, which are not .*pipeline\[trackio,tensorboard\]'"):
        check_installed(["trackio", "tensorboard"])


def test_a_folder_that_wandb_left_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "an_unknown_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="an_unknown_tracker, which is not installed"):
        check_installed(["an_unknown_tracker"])


class Failing:
    """Takes a few steps, and then the network is gone."""

    def __init__(self, steps):
        self.steps, self.calls = steps, 0

    def log(self, metrics, step):
        self.calls += 1
        if self.calls > self.steps:
            raise ConnectionError("no route\nto host")

    def finish(self):
        self.calls += 1
        raise ConnectionError("no route\nto host")


def test_one_that_fails_is_given_up_with_one_warning_and_the_others_go_on(tmp_path, caplog):
    broken, trackers = Failing(steps=2), _Together()
    trackers.open("broken", lambda: broken)
    trackers.open("sound", lambda: open_trackers(["tensorboard"], tmp_path, IDENTITY, {}, 0))
    for step, line in LINES.items():
        trackers.log(line, step)
    trackers.finish()
    assert broken.calls == 3
    (record,) = caplog.records
    assert record.getMessage() == (
        "broken has failed and gets no more figures of this run, which goes on; metrics.jsonl has them all "
        "(ConnectionError: no route to host)"
    )
    assert len(events(tmp_path)["loss"]) == 5


def test_one_that_cannot_be_opened_or_finished_stops_nothing(caplog):
    trackers = _Together()
    trackers.open("absent", lambda: 1 / 0)
    trackers.open("late", lambda: Failing(steps=9))
    trackers.log(LINES[1], 1)
    trackers.finish()
    assert [record.getMessage().split()[0] for record in caplog.records] == ["absent", "late"]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_what_a_tracker_prints_stays_out_of_the_jobs_document(capsys):
    trackers = _Together()
    trackers.open("loud", lambda: sys.stdout.write("* Run opened\n") and Failing(steps=9))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "* Run opened\n")


def test_a_run_reports_what_stands_in_its_metrics(work):
    work.run("precompute-ref")
    run = work.root / "runs" / work.run("train", "train.report_to=tensorboard")["run"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seen = events(run)
    assert seen.keys() == lines[0].keys() - {"step"}
    assert seen["loss"] == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in lines]


def test_whom_a_run_reports_to_is_no_part_of_it(work):
    work.run("precompute-ref")
    first = work.run("train")
    again = work.run("train", "train.report_to=[tensorboard]")
    assert (again["status"], again["run"]) == ("nothing_to_do", first["run"])


def test_a_missing_package_stops_the_job_before_any_work(work, monkeypatch):
    work.run("precompute-ref")
    monkeypatch.setattr("stages.training.trackers.find_spec", lambda name: None)
    document = work.run("train", "train.report_to=wandb", expect=2)
    assert "pip install 'offline-preference-pipeline[wandb]'" in document["message"]
    assert not (work.root / "runs").exists()


def in_its_own_process(code, folder, **environment):
    """These packages read the environment when they are first used, and keep what they read."""
    code = f"from pathlib import Path; from stages.training.trackers import open_trackers\n{code}"
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)


TWO_PROCESSES_OF_ONE_RUN = f"""
for steps in ((1, 2), (3,)):
    tracker = open_trackers([NAME], Path("nightly"), "{IDENTITY}", {{"beta": 0.1}}, steps[0] - 1)
    for step in steps:
        tracker.log({{"loss": 1 / step, "rewards/chosen": -1.0}}, step)
    tracker.finish()
"""


def test_wandb_offline_goes_on_with_the_run_it_began(tmp_path):
    pytest.importorskip("wandb")
    (tmp_path / "nightly").mkdir()
    done = in_its_own_process(f"NAME = 'wandb'{TWO_PROCESSES_OF_ONE_RUN}", tmp_path)
    assert done.stdout == "" and "has failed" not in done.stderr
    logs = sorted((tmp_path / "nightly" / "wandb").glob("offline-run-*/*.wandb"))
    assert {log.name for log in logs} == {"run-1a2b3c4d5e6f.wandb"}
    written = b"".join(log.read_bytes() for log in logs)
    assert all(part in written for part in (PROJECT.encode(), b"nightly-1a2b3c4d", b"rewards/chosen", b"beta"))


def test_wandb_that_is_not_logged_in_stops_nothing(tmp_path):
    pytest.importorskip("wandb")
    (tmp_path / "nightly").mkdir()
    code = f"NAME = 'wandb'{TWO_PROCESSES_OF_ONE_RUN}"
    done = in_its_own_process(code, tmp_path, WANDB_MODE="online", WANDB_API_KEY="")
    assert "wandb has failed" in done.stderr and "API key" in done.stderr


def test_trackio_goes_on_with_the_run_it_began(tmp_path):
    pytest.importorskip("trackio")
    code = f"""NAME = 'trackio'{TWO_PROCESSES_OF_ONE_RUN}
import json, trackio
from trackio.sqlite_storage import SQLiteStorage as Storage
runs = {{run.name: [line["step"] for line in Storage.get_logs("{PROJECT}", run.name)] for run in
        trackio.Api().runs("{PROJECT}")}}
print(json.dumps(runs))
"""
    done = in_its_own_process(code, tmp_path)
    assert json.loads(done.stdout) == {"nightly-1a2b3c4d": [1, 2, 3]}, done.stderr
