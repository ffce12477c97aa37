"""The ledger: what devices were used for, added up by hand here."""

import json
import threading
from datetime import UTC, datetime

import pytest

from pipeline.control import ProcessControl
from pipeline.ledger import append, in_words, read, totals

NOW = datetime(2026, 11, 27, 8, 0, tzinfo=UTC)


def entry(name, job, ended, device_seconds, status="done", **more):
    began = "2026-11-20T01:00:00+00:00" if name == "a" else ended
    return {
        "id": name, "job": job, "status": status, "began": began, "ended": ended, "device_seconds": device_seconds,
        **more,
    }  # fmt: skip


NIGHTS = [
    entry("a", "precompute-ref", "2026-11-20T02:00:00+00:00", {"reference": 100.0}),
    entry("b", "precompute-ref", "2026-11-25T22:00:00+00:00", {"reference": 3.5}),
    entry("c", "train", "2026-11-26T23:00:00+00:00", {"training": 5.0}, "running"),
    entry("c", "train", "2026-11-26T23:30:00+00:00", {"training": 12.0, "evaluation": 1.0}, "interrupted"),
    entry("d", "train", "2026-11-27T10:00:00+04:00", {"training": 30.0}, saved={"pairs": 200, "seconds": 50.0}),
    entry("e", "eval", "2026-11-27T07:00:00+00:00", {"evaluation": 2.5}, saved={"pairs": 20, "seconds": 5.0}),
    entry("f", "train", "2026-11-27T07:30:00+00:00", {"training": 7.0}, "running"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs" / "ledger.jsonl"


def test_seconds_are_added_up_by_what_they_went_to_by_job_and_by_day(path):
    for each in NIGHTS:
        append(path, each)
    found = totals(read(path), NOW)
    assert found == {
        "since": "2026-11-20T01:00:00+00:00",
        "jobs": 6,
        "device_seconds": {"total": 156.0, "reference": 103.5, "training": 49.0, "evaluation": 3.5},
        "by_job": {
            "precompute-ref": {"jobs": 2, "device_seconds": 103.5},
            "train": {"jobs": 3, "device_seconds": 50.0},
            "eval": {"jobs": 1, "device_seconds": 2.5},
        },
        "last_24_hours": {"jobs": 4, "device_seconds": 52.5},
        "saved": {"pairs": 220, "seconds": 55.0},
        "statuses": {"done": 4, "interrupted": 1, "running": 1},
    }
    assert in_words(found) == [
        "device-seconds since 2026-11-20: 156.0 (reference 103.5, training 49.0, evaluation 3.5)",
        "    precompute-ref 103.5 in 2 jobs; train 50.0 in 3 jobs; eval 2.5 in 1 job",
        "    in the last 24 hours: 52.5 in 4 jobs; of all, 1 interrupted, 1 running or killed",
        "    spared by stored values: about 55.0, for 220 pairs that were read",
    ]


def test_there_may_be_nothing(path):
    assert read(path) == [] and totals([], NOW) == {} and in_words({}) == []


def test_a_torn_line_is_passed_over_and_costs_only_itself(path):
    append(path, NIGHTS[0])
    with path.open("ab") as file:
        file.write(b'{"id": "torn", "device_sec')
    append(path, NIGHTS[1])
    with path.open("ab") as file:
        file.write(b'\n[]\n7\n\xff\n{"id": "x", "began": "yesterday"}\n{"id": "y"}\n' + json.dumps(NIGHTS[4]).encode())
    assert [each["id"] for each in read(path)] == ["a", "b", "d"]


def test_lines_of_several_writers_do_not_mix(path):
    def write(name):
        for i in range(40):
            append(path, entry(f"{name}{i}", "eval", "2026-11-27T07:00:00+00:00", {"evaluation": 1.0}, text="x" * 5000))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in path.read_text().splitlines() if line]) == 160
    assert totals(read(path), NOW)["device_seconds"]["total"] == 160.0


def ledger(work):
    return read(work.root / "jobs" / "ledger.jsonl")


def test_every_session_of_a_job_counts_once_and_what_does_nothing_leaves_no_line(work, monkeypatch):
    asked = iter(range(10**6))
    with monkeypatch.context() as patch:  # after some batches of the first unit are stored
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 3)
        work.run("precompute-ref", "scoring.pack_tokens=256", expect=75)
    (stopped,) = ledger(work)
    assert (stopped["status"], stopped["exit_code"]) == ("interrupted", 75) and stopped["tokens"]["reference"] > 0
    first = work.run("precompute-ref", "scoring.pack_tokens=256")
    assert [each["status"] for each in ledger(work)] == ["interrupted", "done"]
    assert ledger(work)[1]["tokens"] == {"reference": first["tokens"]}
    asked = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 6)
        work.run("train", expect=75)
    second = work.run("train")
    third = work.run("eval")
    found = ledger(work)
    assert [(each["job"], each["status"]) for each in found[2:]] == [
        *(("train", "interrupted"), ("train", "done"), ("eval", "done")),
    ]
    assert found[3]["device_seconds"]["training"] == pytest.approx(second["seconds"], abs=2e-3)
    assert found[3]["tokens"] == {"training": second["tokens"]}
    metrics = (work.root / "runs" / second["run"] / "metrics.jsonl").read_text().splitlines()
    assert found[2]["tokens"]["training"] + found[3]["tokens"]["training"] == json.loads(metrics[-1])["num_tokens"]
    assert found[4]["tokens"] == {"evaluation": third["tokens"]}
    assert 0 < found[4]["device_seconds"]["evaluation"] <= third["seconds"] + 1e-3
    assert found[3]["saved"]["pairs"] == 2 * second["pairs"] and found[4]["saved"]["pairs"] == third["pairs"]
    before = (work.root / "jobs" / "ledger.jsonl").read_bytes()
    for job in ("precompute-ref", "train", "eval", "run", "status", "validate"):
        work.run(job, *(["--dry-run"] if job == "status" else []))
    work.run("train", "train.beta=0.3", "--dry-run")
    work.run("train", "reference.dtype=bfloat16", expect=4)  # refused before it has done anything
    assert (work.root / "jobs" / "ledger.jsonl").read_bytes() == before
    status = work.run("status", "--dry-run")["ledger"]
    assert status["jobs"] == 5 and status["statuses"] == {"interrupted": 2, "done": 3}
    by_hand = sum(seconds for each in found for seconds in each["device_seconds"].values())
    assert status["device_seconds"]["total"] == pytest.approx(by_hand, abs=1e-3)


def test_each_worker_of_several_counts_its_own_share(work):
    shares = [work.run("precompute-ref", arguments={"shard": f"{i}/2"}) for i in (0, 1)]
    found = ledger(work)
    assert [each["shard"] for each in found] == ["0/2", "1/2"]
    assert [each["tokens"]["reference"] for each in found] == [share["tokens"] for share in shares]


def test_of_a_job_that_is_killed_the_last_line_stays(work, monkeypatch):
    class Killed(BaseException):
        pass

    def end(self, error):
        raise Killed

    work.run("precompute-ref")
    monkeypatch.setattr("pipeline.records.RUNNING_SECONDS", 0.0)
    monkeypatch.setattr("pipeline.records.Record.end", end)
    with pytest.raises(Killed):
        work.run("train")
    last = ledger(work)[-1]
    assert (last["job"], last["status"], last["exit_code"]) == ("train", "running", None)
    assert last["tokens"]["training"] == 8452 and last["run"]  # of all steps: each has left a line
