"""Real processes and real signals: whatever ends a job, the same command finishes it as if nothing had happened."""

import json
import signal
import time

import pytest

from tests.jobs import Command
from tests.tiny import Work

LONG = ("--set", "train.epochs=4", "--set", "train.pairs_per_step=2", "--set", "train.checkpoint_every=5")
TIMES = {"tokens_per_second", "peak_memory_bytes"}


def start(work, *arguments):
    return Command([*arguments, "-c", str(work.config), "--json"], work.folder)


def wait_for_steps(work, n, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.runs:
        for file in work.root.glob("runs/*/metrics.jsonl"):
            if file.read_text().count("\n") >= n:
                return
        time.sleep(0.01)
    raise AssertionError(f"no {n} steps: {process.finish()}")


def outcome(work):
    run = (work.root / "latest").resolve()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    return (run / "policy" / "model.safetensors").read_bytes(), steps


@pytest.fixture(scope="module")
def golden(tmp_path_factory, model_folder):
    """What an undisturbed process ends with."""
    work = Work(tmp_path_factory.mktemp("golden"), model_folder)
    work.run("precompute-ref")
    assert work.command("train", "-c", str(work.config), *LONG).returncode == 0
    return outcome(work)


def test_training_goes_on_exactly_after_a_signal(work, golden):
    """SIGKILL at random moments: tests/stages/test_exact_resume.py."""
    work.run("precompute-ref")
    process = start(work, "train", *LONG)
    wait_for_steps(work, 23, process)
    process.send_signal(signal.SIGTERM)
    stopped = process.finish()
    assert stopped.returncode == 75, stopped.stderr
    document = json.loads(stopped.stdout)
    assert document["status"] == "interrupted" and document["exit_code"] == 75
    assert "saving and stopping" in stopped.stderr
    resumed = start(work, "train", *LONG).finish()
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps_before"] >= 20
    assert outcome(work) == golden


def test_a_second_signal_ends_the_process_at_once_with_a_valid_state(work, golden):
    work.run("precompute-ref")
    process = start(work, "train", *LONG)
    wait_for_steps(work, 12, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert process.finish().returncode in (130, 75)  # 75 where the first was served before the second came
    assert work.command("train", "-c", str(work.config), *LONG).returncode == 0
    assert outcome(work) == golden
