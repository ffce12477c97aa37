"""examples/slurm: on a real Slurm of one node where it is installed, and otherwise with the variables that it sets."""

import os
import re
import subprocess
import time

import pytest

from tests.examples.cluster import ask, cluster, why_not


@pytest.fixture
def without_slurm(tmp_path, copied, commands):
    """Starts a script as Slurm does: `srun` runs what follows it, `scontrol` writes down what it is told."""
    work = copied("slurm")
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (stubs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> "{work.folder}/told"\n')
    for stub in stubs.iterdir():
        stub.chmod(0o755)

    def start(script, **variables):
        environment = os.environ | {"PATH": f"{stubs}:{commands}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"} | variables
        command = ["bash", str(work.folder / script)]
        return subprocess.run(command, cwd=work.folder, env=environment, capture_output=True, text=True, timeout=120)

    start.work, start.stubs = work, stubs
    return start


def test_the_tasks_of_the_array_score_everything_between_them(without_slurm):
    work = without_slurm.work
    counts = []
    for task in range(2):
        done = without_slurm("score.sbatch", SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_TASK_COUNT="2")
        assert done.returncode == 0, done.stderr
        counts.append(len(work.stored_rows()))
    assert 0 < counts[0] < counts[1] == 40
    assert not (work.folder / "told").exists()


@pytest.mark.parametrize("script", ["score.sbatch", "train.sbatch", "eval.sbatch"])
@pytest.mark.parametrize("code", [75, 5, 0])
def test_only_an_interrupted_job_goes_back_to_the_queue(without_slurm, script, code):
    """A `pipeline` that ends as it is told; a real one is in the next test."""
    (without_slurm.stubs / "pipeline").write_text(f"#!/bin/sh\nexit {code}\n")
    (without_slurm.stubs / "pipeline").chmod(0o755)
    done = without_slurm(script, SLURM_ARRAY_TASK_ID="0", SLURM_ARRAY_TASK_COUNT="1")
    assert done.returncode == code
    told = without_slurm.work.folder / "told"
    assert (told.read_text() if told.exists() else "") == ("requeue 7\n" if code == 75 else "")


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_three_jobs_on_slurm_and_training_that_is_interrupted(tmp_path, copied, commands):
    """The signal is the one that --signal sends: to the steps of a job, not to its script."""
    work = copied("slurm")
    work.config.write_text(work.config.read_text().replace("epochs: 2", "epochs: 10"))
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as environment:
        environment["PATH"] = f"{commands}:{environment['PATH']}"
        printed = ask(environment, "sh", str(work.folder / "submit.sh"), "--chdir", str(work.folder))
        score, train, evaluation = re.findall(r"\d+", printed.replace("precompute-ref", ""))

        def state(job):
            return dict(re.findall(r"(\w+)=(\S+)", ask(environment, "scontrol", "show", "job", job)))

        def wait_until(condition):
            deadline = time.monotonic() + 30
            while not condition():
                logs = [path.read_text() for path in (work.folder / "logs").iterdir()]
                assert time.monotonic() < deadline, "\n".join(
                    map(str, (state(score), state(train), state(evaluation), *logs))
                )
                time.sleep(0.1)

        assert state(train)["Dependency"].startswith("afterok:")
        wait_until(lambda: any(file.read_text() for file in work.root.glob("runs/*/metrics.jsonl")))
        ask(environment, "scancel", "--signal=TERM", train)
        wait_until(lambda: state(train)["Restarts"] == "1")

        def requeued():
            return state(train)["JobState"] == "PENDING" and "idle" in ask(environment, "sinfo", "--format=%T")

        wait_until(requeued)  # and Slurm would wait two minutes before it starts again
        ask(environment, "scontrol", "update", f"JobId={train}", "StartTime=now+2")
        wait_until(lambda: state(evaluation)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"))
        assert state(evaluation)["JobState"] == state(train)["JobState"] == "COMPLETED"
    assert "SIGTERM: saving and stopping" in (work.folder / "logs" / f"train-{train}.log").read_text()
    assert len(list((work.folder / "logs").glob(f"precompute-ref-{score}-*.log"))) == 4
    assert len(work.stored_rows()) == 40
    assert (work.root / "passed/policy/model.safetensors").is_file()
