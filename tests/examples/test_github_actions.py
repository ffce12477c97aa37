"""examples/github-actions: checked by actionlint, and run step by step, each job in a folder of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.examples.conftest import EXAMPLES
from tests.examples.workflow import Workflow

NIGHTLY = EXAMPLES / "github-actions" / "nightly.yml"
JOBS = ["precompute-ref", "train", "eval"]


@pytest.fixture
def workflow(tmp_path, copied, commands):
    """The workflow in a repository of its own: a configuration and data, and nothing that a job left."""
    repository = copied("github-actions").folder
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}"}
    values = {"vars.PIPELINE_PACKAGE": "what pip installs"}
    return Workflow(repository / NIGHTLY.name, repository, tmp_path / "kept", environment, values)


def summaries(workflow):
    return {path.stem: path.read_text() for path in workflow.kept.glob("*.md")}


def test_three_jobs_hand_on_what_the_next_one_needs(workflow):
    """And the next night goes on from there: nothing is scored or trained again."""
    assert workflow.run() == {"precompute-ref": 0, "train": 0, "eval": 0}, workflow.output
    assert set(summaries(workflow)) == {"1-eval"} and "reward accuracy" in summaries(workflow)["1-eval"].lower()
    assert (workflow.kept / "artifacts/report/report.html").is_file()
    work = workflow.kept / "cache/work-1-1"
    assert (work / "passed").is_symlink() and (work / "passed/policy/model.safetensors").is_file()
    workflow.output = ""
    assert workflow.run(night=2) == {"precompute-ref": 0, "train": 0, "eval": 0}, workflow.output
    assert workflow.output.count("nothing to do") >= 2


def test_a_gate_that_fails_makes_the_last_job_fail(workflow):
    """The report and the store are kept all the same."""
    config = workflow.repository / "pipeline.yaml"
    config.write_text(config.read_text() + "eval:\n  min: {reward_accuracy: 1.0}\n")
    assert workflow.run() == {"precompute-ref": 0, "train": 0, "eval": 5}, workflow.output
    assert "failed" in summaries(workflow)["1-eval"].lower()
    assert (workflow.kept / "artifacts/report/report.html").is_file()
    assert list((workflow.kept / "cache/work-1-1/store").glob("*/parts/*.parquet"))


def test_a_job_that_fails_is_the_last_one(workflow):
    (workflow.repository / "prefs.jsonl").unlink()
    assert workflow.run() == {"precompute-ref": 3, "train": "skipped", "eval": "skipped"}


@pytest.fixture
def stub(workflow, tmp_path):
    """A `pipeline` that writes down its calls and is interrupted $ALLOWED times in each job, or fails in one."""
    program = tmp_path / "stub" / "pipeline"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'mkdir -p work; echo "$1" >> work/calls\n'
        '[ "$1" != "$FAILS" ] || exit 4\n'
        '[ "$(grep -c "$1" work/calls)" -gt "$ALLOWED" ] || exit 75\n'
    )
    program.chmod(0o755)
    workflow.environment |= {"PATH": f"{program.parent}:{os.environ['PATH']}", "ALLOWED": "2", "FAILS": ""}
    (workflow.repository / "work/latest/eval").mkdir(parents=True)
    (workflow.repository / "work/latest/eval/report.html").touch()
    return workflow


def test_an_interrupted_job_goes_on(stub):
    """Twice in each job, and not for ever."""
    assert stub.run() == {"precompute-ref": 0, "train": 0, "eval": 0}
    stub.environment["ALLOWED"] = "20"
    shutil.rmtree(stub.kept / "cache")
    assert stub.run(night=2) == {"precompute-ref": 75, "train": "skipped", "eval": "skipped"}


@pytest.mark.parametrize("job", JOBS)
def test_what_was_done_is_kept_wherever_the_night_ends(stub, job):
    """The next one goes on from the work folder as that job left it."""
    stub.environment |= {"FAILS": job, "ALLOWED": "0"}
    place = JOBS.index(job)
    assert stub.run() == dict(zip(JOBS, [0] * place + [4] + ["skipped"] * (2 - place), strict=True))
    assert (stub.kept / "cache/work-1-1/calls").read_text().split() == JOBS[: place + 1]
    stub.environment["FAILS"] = ""
    assert set(stub.run(night=2).values()) == {0}
    assert (stub.kept / "cache/work-2-1/calls").read_text().split() == [*JOBS[: place + 1], *JOBS]


def with_the_store_on_s3(text):
    """The workflow with the lines that it has as a comment."""
    changed, lines = re.subn(r"^  # ((?:PIPELINE_STORE|AWS)_\w+: )", r"  \1", text, flags=re.MULTILINE)
    assert lines == 4
    return changed


@pytest.mark.parametrize("change", [str, with_the_store_on_s3])
def test_actionlint_finds_nothing(tmp_path, change):
    """With shellcheck over its scripts; and it does find what is wrong."""
    folder = Path(sys.executable).parent
    if not (folder / "actionlint").exists():
        pytest.skip("actionlint is not installed (`make lint` does it)")
    file = tmp_path / "nightly.yml"
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}

    def lint(text):
        file.write_text(text)
        return subprocess.run([folder / "actionlint", file], env=environment, capture_output=True, text=True).stdout

    text = change(NIGHTLY.read_text())
    assert lint(text) == ""
    assert "needs job" in lint(text.replace("needs: train", "needs: tain"))
    assert "SC2086" in lint(text.replace('exit "$code"', "exit $code"))


def test_the_workflow_may_do_little_and_runs_what_was_reviewed():
    text = NIGHTLY.read_text()
    document = yaml.safe_load(text)
    assert document["permissions"] == {"contents": "read"}
    assert document["concurrency"]["cancel-in-progress"] is False
    assert all("permissions" not in job and job["timeout-minutes"] < 360 for job in document["jobs"].values())
    used = re.findall(r"uses: (.*)", text)
    assert len(used) > 10
    assert [each for each in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", each)] == []
    checkouts = [
        step for job in document["jobs"].values() for step in job["steps"] if "checkout" in step.get("uses", "")
    ]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False] * 3


def test_the_lines_for_s3_are_a_store_on_s3(tmp_path, copied):
    from pipeline.config import load_config

    environment = yaml.safe_load(with_the_store_on_s3(NIGHTLY.read_text()))["env"]
    options = {name: value for name, value in environment.items() if name == "PIPELINE_STORE__URL"}
    assert load_config(copied("github-actions").config, environment=options).store.url == "s3://bucket/folder"
