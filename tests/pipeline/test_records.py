"""What made a result stands beside it, without secrets; `pipeline status` lists the runs."""

import json
import os

import pytest

from pipeline.control import ProcessControl
from pipeline.redaction import REDACTED
from pipeline.run_list import in_words, run_list
from pipeline.version import __version__
from pipeline.workspace import Workspace
from tests.pipeline.test_revision import git


def test_a_runs_record_says_what_made_it_session_by_session(work, monkeypatch):
    git(work.folder, "init", "-q")
    git(work.folder, "add", "pipeline.yaml", "prefs.jsonl")
    git(work.folder, "commit", "-q", "-m", "pairs")
    monkeypatch.setattr("sys.argv", ["/usr/bin/pipeline", "train", "--set", "store.url=s3://key:hunter2@bucket"])
    stored = work.run("precompute-ref")
    asked = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 6)
        work.run("train", expect=75)
    work.run("train")
    evaluated = work.run("eval", "eval.max.reward_accuracy=0.1", expect=5)
    folder = work.root / "runs" / evaluated["run"]
    record = json.loads((folder / "record.json").read_text())
    jobs = record["jobs"]
    assert [(each["job"], each["status"], each["exit_code"]) for each in jobs] == [
        *(("train", "interrupted", 75), ("train", "done", 0), ("eval", "done", 5)),
    ]
    assert record["interruptions"] == 1 and "Stopped by a signal" in jobs[0]["message"]
    assert record["device_seconds"]["training"] == pytest.approx(
        sum(each["device_seconds"].get("training", 0) for each in jobs), abs=1e-3
    )
    assert {each["reference_id"] for each in jobs} == {stored["reference_id"]} == {jobs[0]["start_policy"]}
    assert jobs[2]["verdict"] == "failed" and jobs[2]["policy_id"] != stored["reference_id"]
    made_by = jobs[1]["made_by"]
    assert made_by["command"] == f"pipeline train --set store.url=s3://{REDACTED}@bucket"
    assert (
        made_by["versions"]["pipeline"] == __version__ and {"python", "torch", "polars"} <= made_by["versions"].keys()
    )
    assert made_by["device"]["processes"] == 1 and made_by["device"]["name"]
    head = git(work.folder, "rev-parse", "HEAD")
    assert made_by["revisions"]["project"] == {"revision": head, "dirty": True}  # the work folder is in it
    (source,) = made_by["data"]
    assert source["name"] == str(work.data) and len(source["digest"]) == 64 and source["held_out"] is False
    digests = [each["made_by"]["config_digest"] for each in jobs]
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 64  # other limits
    work.run("eval")  # by other limits, and nothing is scored for it
    judged = (folder / "record.json").read_bytes()
    last = json.loads(judged)["jobs"][3:]
    assert [(each["verdict"], each["device_seconds"], each["exit_code"]) for each in last] == [("passed", {}, 0)]
    work.run("eval")
    assert (folder / "record.json").read_bytes() == judged
    (run,) = work.run("status", "--dry-run")["runs"]["newest"]
    assert (run["run"], run["steps"], run["trained"], run["verdict"]) == (evaluated["run"], 18, True, "passed")
    names = ("made_by", "device_seconds", "hunter2")  # its bytes are the same wherever it is made
    assert not [name for name in names if name in (folder / "eval" / "metrics.json").read_text()]


def test_a_record_that_cannot_be_written_costs_no_result(work, capsys):
    work.run("precompute-ref")
    ledger = work.root / "jobs" / "ledger.jsonl"
    ledger.unlink()
    ledger.mkdir()
    assert work.run("train")["status"] == "done"
    assert "ledger.jsonl cannot be written (Is a directory)" in capsys.readouterr().err


def test_secrets_are_not_in_the_saved_configuration(work):
    settings = "eval.external={judge: 'judge.py --api-key hunter2 --max-tokens 512'}"
    work.run("precompute-ref", settings)
    saved = (work.root / "config.yaml").read_text()
    assert saved.startswith(f"# Put back what is {REDACTED} before this is run again.\n")
    assert "hunter2" not in saved and f"judge.py --api-key {REDACTED} --max-tokens 512" in saved
    work.run("precompute-ref")
    assert (work.root / "config.yaml").read_text().startswith("workdir: ")


def test_the_newest_runs_are_listed_with_how_far_they_are_and_their_verdicts(tmp_path):
    workspace = Workspace(tmp_path)
    assert run_list(workspace) == {"total": 0, "newest": []} and in_words(run_list(workspace)) == []
    for i in range(7):
        run = tmp_path / "runs" / f"n{i}"
        (run / "policy").mkdir(parents=True)
        (run / "run.json").write_text("{}")
        (run / "metrics.jsonl").write_text('{"step": 8}\n' + f'{{"step": {10 + i}}}\n' + '{"ste')
        (run / "policy" / "config.json").write_text("{}")
        for name in ("run.json", "metrics.jsonl", "policy/config.json"):
            os.utime(run / name, (1.8e9 + 60 * i, 1.8e9 + 60 * i))
    (tmp_path / "runs/n6/policy/config.json").unlink()
    (tmp_path / "runs/n4/eval").mkdir()
    (tmp_path / "runs/n4/eval/metrics.json").write_text('{"verdict": "failed"}')
    found = run_list(workspace)
    assert found["newest"][2] == {
        "run": "n4", "steps": 14, "trained": True, "verdict": "failed", "when": "2027-01-15T08:04:00+00:00",
    }  # fmt: skip
    assert in_words(found) == [
        "7 runs, the newest 5",
        "  n6  step 16, not finished, 2027-01-15 08:06 UTC",
        "  n5  step 15, not evaluated, 2027-01-15 08:05 UTC",
        "  n4  step 14, failed, 2027-01-15 08:04 UTC",
        "  n3  step 13, not evaluated, 2027-01-15 08:03 UTC",
        "  n2  step 12, not evaluated, 2027-01-15 08:02 UTC",
    ]
