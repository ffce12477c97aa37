"""SIGKILL at seeded random moments of a real scoring process: it converges to the rows of one that never died."""

import random
import re
import signal
import time

import pytest

from tests.jobs import Command, begin
from tests.tiny import Work, example_rows, write_jsonl

PAIRS, SETTING = 120, "store.unit_pairs=2"


def parts(work: Work) -> set[str]:
    return {path.name for path in (work.root / "store").rglob("*.parquet")}


def run_and_kill(work: Work, stored_before: int, seconds: float) -> int:
    """The exit code of a job that is killed so long after it has said what it is going to score."""
    said = work.folder / "said"
    said.unlink(missing_ok=True)
    process = begin(work, "precompute-ref", SETTING, said=said)
    while process.is_alive() and " pairs to add" not in (said.read_text() if said.exists() else ""):
        time.sleep(0.002)
    process.join(seconds)
    process.kill()
    process.join()
    (to_add,) = re.findall(r"(\d+) of (\d+) pairs to add", said.read_text())
    assert int(to_add[1]) - int(to_add[0]) == stored_before
    return process.exitcode


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.real)])
def test_killed_again_and_again_it_ends_with_the_rows_of_one_that_never_died(make_work, kills, capsys):
    """I2, I3: bit for bit, part for part, and no finished unit is scored twice."""
    chance = random.Random(kills)
    golden, work = make_work(), make_work()
    for each in (golden, work):
        write_jsonl(each.data, example_rows(PAIRS))
    golden.run("precompute-ref", SETTING)
    died = finished = 0
    while died < kills:
        before = work.stored_rows()
        if before.height == PAIRS:  # begin anew: more kills are wanted
            finished += 1
            for path in (work.root / "store").rglob("*.parquet"):
                path.unlink()
            continue
        code = run_and_kill(work, before.height, chance.uniform(0.02, 0.4))
        died += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)
        assert before.join(work.stored_rows(), on="pair_key", how="anti").height == 0
        assert parts(work) <= parts(golden)
    assert work.run("precompute-ref", SETTING)["exit_code"] == 0
    assert work.stored_rows().equals(golden.stored_rows()) and parts(work) == parts(golden)
    with capsys.disabled():
        if kills > 10:
            print(f"\n{died} kills, {finished + 1} times complete, {PAIRS} pairs each: every part as it should be")  # noqa: T201


def test_sigkill_leaves_a_lock_that_the_next_job_can_take(make_work):
    """The lock on preparing pairs goes with its process."""
    work = make_work()
    write_jsonl(work.data, example_rows(20_000))
    process = Command(["validate", "--config", str(work.config)], work.folder)
    deadline = time.monotonic() + 60
    while not (work.root / "pairs" / "lock").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.finish().returncode == -signal.SIGKILL
    write_jsonl(work.data, example_rows(10))
    assert work.run("validate")["pairs"] == 10
