"""The flight recorder: every visit once, whatever a run dies of; small, and joined in little memory."""

import math
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from data.durable import write_bytes
from data.errors import StoreError
from stages.metrics.pairwise import PairScores
from stages.training.visits import VISIT_SCHEMA, VisitLog, read_visits
from tests.crash import Stopped, stopping_disk
from tests.stages.reference_double import make_pairs

PAIRS = make_pairs(range(6))
STEPS, PAIRS_PER_STEP, CHECKPOINT_EVERY = 5, 3, 2


def add_step(log, step):
    """The visits of a step; every number of them is a function of step and pair."""
    pairs = [PAIRS[(step * PAIRS_PER_STEP + i) % len(PAIRS)] for i in range(PAIRS_PER_STEP)]
    scores = [PairScores(-step - pair.row / 8, -2.5, -1.0, -1.5) for pair in pairs]
    log.add(step, pairs, scores, [step + pair.row / 16 for pair in pairs], [0.05] * PAIRS_PER_STEP)


def train(folder, until=STEPS):
    """As the training loop does it: goes on from its checkpoint, flushes before the next one and at its end."""
    log, checkpoint = VisitLog(folder, 0.1), folder / "checkpoint"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    log.take_back(done)
    try:
        for step in range(done + 1, until + 1):
            add_step(log, step)
            if step % CHECKPOINT_EVERY == 0:
                log.flush()
                write_bytes(checkpoint, str(step).encode())
    finally:
        log.flush()
    if until == STEPS:
        log.finish()
        write_bytes(folder / "policy", b"")


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet"))


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The file of a run that nothing disturbed, and how many operations on the disk that took."""
    folder = tmp_path_factory.mktemp("golden")
    with stopping_disk(None) as disk:
        train(folder)
    return folder / "visits.parquet", disk.done


def test_a_visit_says_which_row_it_was_and_what_it_gave(tmp_path):
    log = VisitLog(tmp_path, beta=0.5)
    log.add(7, PAIRS[1:2], [PairScores(-4.0, -9.0, -5.0, -7.0)], [0.25], [0.125])
    log.flush()
    (visit,) = read_visits(tmp_path).collect().to_dicts()
    assert visit == {
        "step": 7, "pair_key": PAIRS[1].key, "source": "made", "line": "1",
        "chosen_reward": 0.5, "rejected_reward": -1.0, "margin": 1.5,
        "policy_chosen_logps": -4.0, "policy_rejected_logps": -9.0, "loss": 0.25, "weight": 0.125,
    }  # fmt: skip


def test_without_a_reference_rewards_are_null_and_what_is_not_finite_stays(tmp_path):
    log = VisitLog(tmp_path, beta=0.5)
    log.add(1, PAIRS[:2], [PairScores(-4.0, -9.0), PairScores(math.nan, -9.0, -5.0, -7.0)], [math.inf, 1], [0, 1])
    log.flush()
    visits = read_visits(tmp_path).collect()
    assert visits["margin"].is_null().to_list() == [True, False]
    assert math.isnan(visits["margin"][1]) and visits["loss"].to_list() == [math.inf, 1]


def test_a_run_under_way_is_read_from_parts_and_a_whole_one_from_its_file(tmp_path):
    assert read_visits(tmp_path).collect().schema == pl.DataFrame(pl.from_arrow(VISIT_SCHEMA.empty_table())).schema
    train(tmp_path, until=3)
    assert names(tmp_path) == ["visits/00000001-00000002.parquet", "visits/00000003-00000003.parquet"]
    begun = read_visits(tmp_path).collect()
    train(tmp_path)
    assert names(tmp_path) == ["visits.parquet"] and not (tmp_path / "visits").exists()
    whole = read_visits(tmp_path).collect()
    assert whole["step"].to_list() == sorted([*range(1, STEPS + 1)] * PAIRS_PER_STEP)
    assert whole[: len(begun)].equals(begun)


def test_killed_at_any_operation_a_run_ends_with_the_same_file(golden, tmp_path):
    """And in between, whoever reads sees no visit twice, and none that was not."""
    whole, operations = golden
    every = pl.read_parquet(whole)
    assert operations > 50
    for stop in range(operations):
        folder = tmp_path / str(stop)
        with pytest.raises(Stopped), stopping_disk(stop):
            train(folder)
        seen = read_visits(folder).collect()
        assert seen.equals(every[: len(seen)])
        if stop % 5 == 0:
            with suppress(Stopped), stopping_disk(stop // 2):  # and the next one, too
                train(folder)
            seen = read_visits(folder).collect()
            assert seen.equals(every[: len(seen)])
        train(folder)
        assert (folder / "visits.parquet").read_bytes() == whole.read_bytes()
        assert names(folder) == ["visits.parquet"]


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("step", range(STEPS + 1))
def test_a_run_may_go_on_from_any_step(golden, tmp_path, step, finished):
    """A damaged checkpoint, or one lost together with the policy: inside of a part, or of the whole file."""
    train(tmp_path, until=STEPS)
    if not finished:
        log = VisitLog(tmp_path, 0.1)
        log.take_back(0)
        for each in range(1, STEPS + 1):
            add_step(log, each)
            if each in (3, STEPS):
                log.flush()
    log = VisitLog(tmp_path, 0.1)
    log.take_back(step)
    assert read_visits(tmp_path).collect().equals(pl.read_parquet(golden[0]).filter(pl.col("step") <= step))
    for later in range(step + 1, STEPS + 1):
        add_step(log, later)
    log.finish()
    assert (tmp_path / "visits.parquet").read_bytes() == golden[0].read_bytes()


def test_taking_back_is_safe_at_any_operation(golden, tmp_path):
    """From inside of a whole file whose parts a kill had left, with a kill at each operation."""
    every = pl.read_parquet(golden[0])
    train(tmp_path / "left", until=STEPS - 1)
    shutil.copy(golden[0], tmp_path / "left")
    for stop in range(100):
        folder = Path(shutil.copytree(tmp_path / "left", tmp_path / str(stop)))
        with stopping_disk(stop) as disk:
            try:
                VisitLog(folder, 0.1).take_back(3)
            except Stopped:
                seen = read_visits(folder).collect()
                assert seen.filter(pl.col("step") <= 3).equals(every.filter(pl.col("step") <= 3))
        VisitLog(folder, 0.1).take_back(3)
        assert read_visits(folder).collect().equals(every.filter(pl.col("step") <= 3))
        if disk.done < stop:
            break
    assert stop > 10


def test_what_is_only_in_memory_can_be_taken_back(tmp_path):
    log = VisitLog(tmp_path, 0.1)
    for step in (1, 2, 3):
        add_step(log, step)
    log.take_back(1)
    log.finish()
    assert set(read_visits(tmp_path).collect()["step"]) == {1}


def test_what_a_dead_process_left_half_written_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("data.durable._is_running", lambda _: False)
    for stop in range(8):
        with pytest.raises(Stopped), stopping_disk(stop):
            train(tmp_path)
    train(tmp_path)
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_unknown_files_are_passed_over_and_a_damaged_one_is_named(tmp_path):
    train(tmp_path, until=STEPS - 1)
    (tmp_path / "visits" / "notes.txt").write_text("mine")
    assert len(read_visits(tmp_path).collect()) == (STEPS - 1) * PAIRS_PER_STEP
    part = tmp_path / "visits" / "00000003-00000004.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"00000003-00000004.parquet, which says what .* Nothing else depends on it"):
        read_visits(tmp_path)


def test_a_million_visits_are_joined_in_little_memory_and_take_less_than_70_bytes_each(tmp_path):
    """In a process of its own: the memory at most, beyond what the parts took to make."""
    code = (
        "import resource, sys; from pathlib import Path; from stages.training.visits import VisitLog\n"
        "log = VisitLog(Path(sys.argv[1]), 0.1); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "log.finish(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    rng, n = np.random.default_rng(0), 20_000
    for part in range(50):
        key = rng.integers(0, 256, (n, 32), np.uint8)
        numbers = {name: rng.normal(size=n).astype(np.float32) for name in VISIT_SCHEMA.names[4:]}
        frame = pl.DataFrame(
            {
                "step": np.repeat(np.arange(n // 16, dtype=np.int32), 16) + 1 + part * (n // 16),
                "pair_key": [row.tobytes().hex() for row in key],
                "source": ["data/prefs.jsonl.gz"] * n,
                "line": rng.integers(0, 1_000_000, n).astype(str),
                **numbers,
            }
        )
        (tmp_path / "visits").mkdir(exist_ok=True)
        pq.write_table(frame.to_arrow().cast(VISIT_SCHEMA), tmp_path / "visits" / f"{part:08d}-{part:08d}.parquet")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    whole = tmp_path / "visits.parquet"
    assert pq.read_metadata(whole).num_rows == 1_000_000
    assert whole.stat().st_size < 70e6
    assert int(done.stdout) * 1024 < 120e6
