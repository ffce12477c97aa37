"""However often and wherever a run is interrupted, it ends as if it never was: bit for bit, optimiser and all."""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from itertools import count

import pytest

from pipeline.control import ProcessControl
from stages.processes import Processes
from stages.training.checkpoint import Checkpoints
from stages.training.run_log import RunLog
from stages.training.visits import VisitLog, read_visits
from tests.jobs import begin
from tests.stages.test_disk_full import small_disk  # noqa: F401 - a fixture
from tests.stages.test_train import metrics, run_of, weights

SETTINGS = (
    "train.checkpoint_every=2",
    "train.keep=20",
    "train.pairs_per_step=6",
    "scoring.pack_tokens=150",
    "train.warmup_steps=3",
)
"""34 pairs: 6 steps an epoch, of which the last has 4 pairs; 12 steps, the last checkpoint after the 10th."""
OPTIONS = {
    "plain": (),
    "bfloat16 and decay": ("reference.dtype=bfloat16", "train.weight_decay=0.1"),
    "8-bit": ("train.optim=adamw_8bit",),
    "lora": ("train.lora={r: 4}",),
    # The drift is least after the first evaluation: what a resumed run has forgotten of it shows.
    "dev pairs": ("data.dev_fraction=0.2", "train.eval_every=3", "train.metric_for_best_model=drift"),
    "aot": ("train.objective=aot",),
}


def state(run) -> bytes:
    """Masters and optimiser state after the 8th step."""
    return (run / "checkpoints" / "step-00000008" / "state.safetensors").read_bytes()


def outcome(run):
    """All that a run leaves."""
    policy = {path.name: path.read_bytes() for path in (run / "policy").glob("*.safetensors")}
    return policy, state(run), metrics(run), read_visits(run).drop("source").sort("step", "pair_key").collect().rows()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_stopped_at_every_step_boundary_and_in_the_middle_of_every_other_step(make_work, monkeypatch, options):
    """A stop after 1, 2, 3, ... looks at the signal, again and again in one run; a step looks before each batch."""
    straight, stopped = make_work(), make_work()
    for work in (straight, stopped):
        work.run("precompute-ref", *SETTINGS, *options)
    golden = run_of(straight, straight.run("train", *SETTINGS, *options))
    steps = []
    for checks in count(1):
        asked = count()
        with monkeypatch.context() as patch:
            patch.setattr(ProcessControl, "stop_requested", lambda self, n=checks, a=asked: next(a) >= n)
            document = stopped.run("train", *SETTINGS, *options, expect=None)
        steps.append(document.get("steps_before"))
        if document["status"] == "done":
            break
        assert document["exit_code"] == 75
    assert len(steps) > 6
    assert outcome(run_of(stopped, document)) == outcome(golden)


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.real)])
@pytest.mark.parametrize("options", [OPTIONS["plain"], OPTIONS["dev pairs"]], ids=["plain", "dev pairs"])
def test_killed_at_random_moments_it_ends_as_if_it_never_was(make_work, kills, options, capsys):
    """SIGKILL, SIGTERM, or both, at seeded moments; whenever a run has finished, it is begun anew."""
    chance, settings = random.Random(kills), (*SETTINGS, *options)
    straight, work = make_work(), make_work()
    for each in (straight, work):
        each.run("precompute-ref", *settings)
    begin(straight, "train", *settings).join()
    started = time.monotonic()
    begin(straight, "train", *settings, "train.seed=1").join()
    seconds = time.monotonic() - started
    golden = outcome(run_of(straight, straight.run("train", *settings)))
    killed = finished = terminated = 0
    while killed + terminated < kills:
        child = begin(work, "train", *settings)
        time.sleep(chance.uniform(0, seconds))
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        with suppress(ProcessLookupError):  # it had finished
            os.kill(child.pid, number)
        child.join()
        code = child.exitcode
        assert code in (0, 75, -signal.SIGKILL, -signal.SIGTERM)  # the last: before the job listened
        killed += code < 0
        terminated += code == 75
        if code == 0 or next(work.root.glob("runs/*/policy"), None):
            assert outcome(next((work.root / "runs").iterdir())) == golden
            shutil.rmtree(work.root / "runs")
            finished += 1
    assert outcome(run_of(work, work.run("train", *settings))) == golden
    if kills > 20:
        with capsys.disabled():
            print(f"\n{killed} killed, {terminated} asked to stop, {finished + 1} runs finished: all the same")  # noqa: T201


def test_a_checkpoint_that_is_there_is_not_written_again(work, monkeypatch):
    """A kill in the middle of replacing the only one would leave none."""
    work.run("precompute-ref", *SETTINGS)
    for looks in (16, 0):
        asked = count()
        with monkeypatch.context() as patch:
            patch.setattr(ProcessControl, "stop_requested", lambda self, n=looks, a=asked: next(a) >= n)
            work.run("train", *SETTINGS, "run=night", expect=75)
        folders = {path.name: path.stat().st_ino for path in (work.root / "runs/night/checkpoints").iterdir()}
        if looks:
            before = folders
    assert before and folders == before


def telling(calls, kind, name):
    """The method, which tells when it is called."""
    method = getattr(kind, name)

    def told(self, *more):
        calls.append(f"{kind.__name__}.{name}")
        return method(self, *more)

    return told


def test_what_a_checkpoint_vouches_for_is_durable_before_it(work, monkeypatch):
    """Metrics and visits of the steps that a run will not do again."""
    calls = []
    for kind, name in ((RunLog, "flush"), (VisitLog, "flush"), (Checkpoints, "save")):
        monkeypatch.setattr(kind, name, telling(calls, kind, name))
    work.run("precompute-ref", *SETTINGS)
    work.run("train", *SETTINGS, "train.epochs=1")
    saves = [i for i, call in enumerate(calls) if call == "Checkpoints.save"]
    assert len(saves) == 2
    assert all({*calls[i - 2 : i]} == {"RunLog.flush", "VisitLog.flush"} for i in saves)


def test_nobody_reads_a_checkpoint_or_leaves_before_the_first_process_has_written_it(work, monkeypatch):
    """Of whole models the first process writes; the others wait with it, and then look for the best step."""
    calls, settings = [], (*SETTINGS, *OPTIONS["dev pairs"])
    work.run("precompute-ref", *settings)
    for kind, name in ((Checkpoints, "wait"), (Checkpoints, "at"), (Processes, "wait_for_all")):
        monkeypatch.setattr(kind, name, telling(calls, kind, name))
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 8)
        work.run("train", *settings, expect=75)
    waited = ["Checkpoints.wait", "Processes.wait_for_all"]
    assert calls[-2:] == waited
    work.run("train", *settings)
    assert calls[-4:] == [*waited, "Checkpoints.at", "Processes.wait_for_all"]


def test_numbers_that_a_model_draws_are_those_of_the_step(make_work, monkeypatch):
    """A model may be random in eval mode, too: what it draws in a step is a function of the seed and the step."""
    import torch

    from stages.scoring.scorer import Scorer

    token_logps = Scorer.token_logps

    def noisy(scorer, responses):
        noise = 0.1 * torch.rand(()) if torch.is_grad_enabled() else 0.0
        return token_logps(scorer, responses) * (1 + noise)

    monkeypatch.setattr(Scorer, "token_logps", noisy)
    straight, stopped = make_work(), make_work()
    for work in (straight, stopped):
        work.run("precompute-ref", *SETTINGS)
    golden = run_of(straight, straight.run("train", *SETTINGS))
    before = torch.get_rng_state()
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 16)
        stopped.run("train", *SETTINGS, expect=75)
    assert outcome(run_of(stopped, stopped.run("train", *SETTINGS))) == outcome(golden)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_full_disk_keeps_the_checkpoint_before(work, small_disk, request):  # noqa: F811
    """A checkpoint of the tiny model takes 140 KB: the second one does not fit beside the first."""
    settings = (*SETTINGS, f"workdir={small_disk / 'work'}")
    work.run("precompute-ref", *SETTINGS)
    golden = outcome(run_of(work, work.run("train", *SETTINGS)))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    shutil.copytree(work.root, small_disk / "work", ignore=shutil.ignore_patterns("runs", "latest"))
    used = sum(path.stat().st_size for path in (small_disk / "work").rglob("*") if path.is_file())
    size = used // 1024 + 500
    subprocess.run(["mount", "-o", f"remount,size={size}k", small_disk], check=True)
    message = work.run("train", *settings, expect=6)["message"]
    assert "No space left on device" in message or "The disk is full" in message
    (run,) = (small_disk / "work" / "runs").iterdir()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert work.run("train", *settings)["steps_before"] == 2
    assert outcome(run) == golden
    assert weights(run)
