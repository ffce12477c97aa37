"""examples/cron, under the environment that cron gives: nearly none."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES
from tests.tiny import ROOT

CRON = EXAMPLES / "cron"
BARE = {"HOME": "/nonexistent", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}


def checks_crontabs():
    if shutil.which("crontab") is None:
        return False
    return "checks the syntax" in subprocess.run(["crontab", "-h"], capture_output=True, text=True).stderr


@pytest.fixture
def night(copied, commands):
    """A folder with the script, its `pipeline` where the script looks for it, and something to be notified with."""
    work = copied("cron")
    (work.folder / ".venv").mkdir()
    (work.folder / ".venv/bin").symlink_to(commands)
    notify = work.folder / "notify.sh"
    notify.write_text('#!/bin/sh\necho "$#: $1" >> "$(dirname "$0")/notified"\n')
    notify.chmod(0o755)
    return work


def start(work):
    environment = BARE | {"NOTIFY": str(work.folder / "notify.sh"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(["/bin/sh", str(work.folder / "nightly.sh")], cwd="/", env=environment)


def log(work):
    return "".join(path.read_text() for path in sorted((work.folder / "logs").glob("????-??-??.log")))


def notified(work):
    file = work.folder / "notified"
    return file.read_text() if file.exists() else ""


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)
    return found


def test_a_night_and_a_night_without_news(night):
    old = night.folder / "logs" / "2020-01-01.log"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (0, 0))
    assert start(night).wait(120) == 0, log(night)
    assert (night.root / "passed/policy/model.safetensors").is_file()
    assert not old.exists()
    # The program as it is installed, to see that the bare environment is enough for it.
    (night.folder / ".venv/bin").unlink()
    (night.folder / ".venv/bin").mkdir()
    installed = night.folder / ".venv/bin/pipeline"
    installed.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m pipeline "$@"\n')
    installed.chmod(0o755)
    first = log(night)
    assert start(night).wait(120) == 0, log(night)
    second = log(night).removeprefix(first)
    assert second.count("nothing to do") >= 2 and "ends with exit code 0" in second
    assert notified(night) == ""


def test_two_nights_never_overlap_and_an_interrupted_one_goes_on(night):
    night.config.write_text(night.config.read_text().replace("epochs: 2", "epochs: 8"))
    first = start(night)
    wait_for(lambda: any(file.read_text() for file in night.root.glob("runs/*/metrics.jsonl")))
    assert start(night).wait(60) == 0
    assert log(night).count("not started") == 1 and log(night).count("begins") == 1
    (job,) = map(int, Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
    os.kill(job, signal.SIGTERM)
    assert first.wait(120) == 0, log(night)
    assert "SIGTERM: saving and stopping" in log(night)
    assert log(night).count("ends with exit code 0") == 1
    assert (night.root / "passed").exists()


def test_a_gate_that_fails_is_told_and_keeps_its_exit_code(night):
    night.config.write_text(night.config.read_text() + "eval:\n  min: {reward_accuracy: 1.0}\n")
    assert start(night).wait(120) == 5
    assert "FAILED" in log(night)
    assert notified(night).startswith("1: nightly: a gate failed; work/passed stays where it was. See ")
    assert str(night.folder / "logs") in notified(night)
    assert not (night.root / "passed").exists()


def test_a_job_that_fails_ends_the_night(night):
    night.data.unlink()
    code = start(night).wait(120)
    assert code == 3
    assert notified(night).startswith("1: nightly: stopped with exit code 3. ")
    assert not list(night.root.glob("runs/*"))


def test_it_gives_up_after_three_interruptions(night):
    """A `pipeline` that is always interrupted; a real one is in the test above."""
    (night.folder / ".venv/bin").unlink()
    (night.folder / ".venv/bin").mkdir()
    (night.folder / ".venv/bin/pipeline").write_text('#!/bin/sh\necho called "$1"\nexit 75\n')
    (night.folder / ".venv/bin/pipeline").chmod(0o755)
    assert start(night).wait(60) == 75
    assert log(night).count("called precompute-ref") == 3 and "called train" not in log(night)
    assert "interrupted three times" in notified(night)


@pytest.mark.skipif(not checks_crontabs(), reason="no cron that checks a file (Debian's does)")
def test_cron_itself_takes_the_crontab(tmp_path):
    checked = subprocess.run(["crontab", "-n", CRON / "crontab"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    broken = tmp_path / "crontab"
    broken.write_text((CRON / "crontab").read_text().replace("30 1 ", "90 1 "))
    assert subprocess.run(["crontab", "-n", broken], capture_output=True).returncode == 1
