"""The jobs under torchrun, by real processes and signals: the same run, whoever is killed, hangs or joins."""

import json
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.control import ProcessControl
from pipeline.ledger import read
from tests.stages.test_train import metrics, run_of, weights
from tests.torchrun import finish, start
from tests.warm import process_for

SETTINGS = ("train.checkpoint_every=4", "train.epochs=5", "run=night", "data.dev_fraction=0.2", "train.eval_every=12")


@pytest.fixture(scope="module")
def begin(commands):
    """Starts a command of the pipeline in so many processes."""

    def begin(work, processes, name, *settings):
        options = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
        return start(commands, processes, "pipeline", name, "--config", str(work.config), "--json", *options)

    return begin


def wait_for_steps(work, steps: int) -> None:
    log = work.root / "runs" / "night" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < steps:
        assert time.monotonic() < deadline, "no such step"
        time.sleep(0.02)


def process_of_rank(work, rank: int) -> int:
    """The number of the process that torchrun gave this rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments, environment = ((folder / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            if str(work.config).encode() in arguments and f"RANK={rank}".encode() in environment:
                return process_for(int(folder.name))
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture(scope="module")
def golden(tmp_path_factory, model_folder, begin):
    """Two processes that nobody disturbs, from the data to the verdict."""
    from tests.tiny import Work

    work = Work(tmp_path_factory.mktemp("golden"), model_folder)
    code, out, err = finish(begin(work, 2, "run"))
    assert code == 0, err
    (document,) = map(json.loads, out.splitlines())  # of the first process alone
    assert [part["job"] for part in document["jobs"]] == ["precompute-ref", "train", "eval"]
    return work.root / "runs" / "night"


def test_two_processes_train_the_run_of_one(work, golden):
    work.run("precompute-ref", *SETTINGS)
    alone = run_of(work, work.run("train", *SETTINGS))
    for one, two in zip(metrics(alone)[:20], metrics(golden)[:20], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["num_tokens"] == one["num_tokens"]
    looks = [
        [(line["step"], line["dev/loss"]) for line in metrics(run) if "dev/loss" in line] for run in (alone, golden)
    ]
    assert len(looks[0]) > 2 and looks[1][0] == pytest.approx(looks[0][0], rel=1e-3)
    ours, theirs = (load_file(run / "policy" / "model.safetensors") for run in (golden, alone))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-3


def test_two_processes_write_the_evaluation_of_one_to_the_last_byte(golden, model_folder):
    from tests.tiny import Work

    of_two = (golden / "eval/metrics.json").read_bytes()
    shutil.rmtree(golden / "eval")
    alone = Work(golden.parents[2], model_folder).run("eval", *SETTINGS)
    assert alone["pairs_scored"] == alone["pairs"] > 0
    assert (golden / "eval/metrics.json").read_bytes() == of_two


def test_two_processes_count_for_two(golden):
    """Those that score shares each for itself, those that work together once, and twice as long."""
    jobs = golden.parents[1] / "jobs"
    found = [entry for entry in read(jobs / "ledger.jsonl") if entry["status"] == "done"][:4]
    by_worker = sorted((entry["job"], entry["worker"]) for entry in found)
    assert by_worker == [("eval", "0/2"), ("precompute-ref", "0/2"), ("precompute-ref", "1/2"), ("train", "0/2")]
    (trained,) = (entry for entry in found if entry["job"] == "train")
    document = json.loads((jobs / "train.json").read_text())
    assert trained["device_seconds"]["training"] == pytest.approx(2 * document["seconds"], abs=3e-3)
    assert trained["tokens"]["training"] == document["tokens"] and trained["made_by"]["device"]["processes"] == 2


def test_a_killed_process_ends_the_others_and_costs_nothing(work, golden, begin):
    work.run("precompute-ref", *SETTINGS)
    launcher = begin(work, 2, "train")
    wait_for_steps(work, 10)
    os.kill(process_of_rank(work, 1), signal.SIGKILL)
    code, _, _ = finish(launcher, 60)
    assert code != 0 and not (work.root / "runs" / "night" / "policy").exists()
    code, out, err = finish(begin(work, 2, "train"))
    assert code == 0, err
    assert json.loads(out)["steps_before"] >= 4
    run = work.root / "runs" / "night"
    assert weights(run) == weights(golden) and metrics(run) == metrics(golden)


def test_a_process_that_hangs_is_not_waited_for_for_ever(work, begin):
    work.run("precompute-ref", *SETTINGS)
    launcher = begin(work, 2, "train", "train.ddp_timeout=8", "train.epochs=1000")
    wait_for_steps(work, 6)
    hung = process_of_rank(work, 1)
    os.kill(hung, signal.SIGSTOP)
    assert launcher.stdout is not None
    document = json.loads(launcher.stdout.readline())
    os.kill(hung, signal.SIGCONT)
    code, _, _ = finish(launcher, 60)
    assert code != 0 and document["exit_code"] == 6
    assert "has ended or did not answer in time (train.ddp_timeout)" in document["message"]
    assert "start all processes again to go on from there" in document["message"]
    assert list((work.root / "runs" / "night" / "checkpoints").glob("step-*"))


def test_a_sharded_run_goes_on_in_one_process_and_then_in_four(work, golden, begin, monkeypatch):
    """Two processes, one, four: what each leaves, the next takes up."""
    work.run("precompute-ref", *SETTINGS)
    launcher = begin(work, 2, "train", "train.fsdp=true")
    wait_for_steps(work, 6)
    launcher.send_signal(signal.SIGTERM)
    code, out, _ = finish(launcher)
    assert code != 0 and json.loads(out)["exit_code"] == 75
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 20)
        document = work.run("train", *SETTINGS, expect=75)
    reached = [
        int(step) for step in re.findall(r"after step (\d+) of", json.loads(out)["message"] + document["message"])
    ]
    assert 6 <= reached[0] < reached[1] < len(metrics(golden))
    (newest,) = (work.root / "runs" / "night" / "checkpoints").iterdir()
    assert newest.name == f"step-{reached[1]:08d}"
    code, out, err = finish(begin(work, 4, "train", "train.fsdp=true"))
    assert code == 0, err
    assert json.loads(out)["steps_before"] == reached[1]
    run = work.root / "runs" / "night"
    for ours, theirs in zip(metrics(run)[:20], metrics(golden)[:20], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
    assert work.run("eval", *SETTINGS)["metrics"]["reward_accuracy"] > 0.5
