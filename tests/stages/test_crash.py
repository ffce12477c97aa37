"""Whatever a job dies of and wherever, the next one ends with the rows of a job that never died."""

import polars as pl
import pytest

from stages.units import Shard
from tests.crash import Stopped, stopping_disk
from tests.stages.reference_double import DictionaryScorer, make_pairs, make_store, precompute, true_logps

PAIRS = make_pairs(range(14))


def rows(store):
    return store.rows().sort("pair_key")


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The store of a job that was never disturbed, and how many operations that took."""
    store = make_store(tmp_path_factory.mktemp("golden"))
    with stopping_disk(None) as disk:
        precompute(PAIRS, store)
    return store, disk.done


def test_the_rows_are_what_the_reference_gives(golden):
    store, _ = golden
    stored = {row["pair_key"]: row for row in store.rows().to_dicts()}
    assert len(stored) == 14
    for pair in PAIRS:
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            assert stored[pair.key][f"ref_{name}_logps"] == pytest.approx(float(true_logps(side).sum()), rel=1e-6)


def test_a_stop_after_any_operation_leaves_nothing_partial_and_costs_no_finished_unit(golden, tmp_path):
    """I1, I2, I3: for every k, stop after k operations on the disk, then run again."""
    whole, operations = golden
    assert operations >= 50
    expected = rows(whole)
    for stop in range(operations):
        store = make_store(tmp_path / str(stop))
        with pytest.raises(Stopped), stopping_disk(stop):
            precompute(PAIRS, store)
        left = store.rows()  # refuses a part that is not whole
        assert expected.join(left, on="pair_key", how="semi").equals(rows(store))
        finished = {*left["chosen_key"], *left["rejected_key"]}
        assert store.token_logps(finished, damaged="refuse").keys() == finished
        scorer = DictionaryScorer()
        report = precompute(PAIRS, store, scorer)
        assert report.pairs_stored_before == left.height
        assert finished & set(scorer.scored) == set() and len(scorer.scored) == len(set(scorer.scored))
        assert rows(store).equals(expected)
        assert store.part_names() == whole.part_names()


def test_what_a_dead_job_left_unfinished_is_swept(golden, tmp_path, monkeypatch):
    _, operations = golden
    for stop in range(0, operations, 7):
        store = make_store(tmp_path / str(stop))
        with pytest.raises(Stopped), stopping_disk(stop):
            precompute(PAIRS, store)
        with monkeypatch.context() as patch:
            patch.setattr("data.durable._is_running", lambda _: False)  # the one that wrote them was this process
            precompute(PAIRS, store)
        assert list(tmp_path.joinpath(str(stop)).rglob(".tmp-*")) == []


def test_bytes_that_never_reached_the_disk_are_found_and_scored_again(golden, tmp_path):
    """A rename that survived a power cut whose file did not."""
    store = make_store(tmp_path)
    precompute(PAIRS, store)
    for folder in ("parts", "tokens"):
        for path in sorted(tmp_path.glob(f"*/{folder}/*"))[:2]:
            path.write_bytes(bytes(path.stat().st_size))
    precompute(PAIRS, store)
    assert rows(store).equals(rows(golden[0]))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_workers_of_which_one_dies_anywhere_end_with_the_same_rows(golden, tmp_path, order):
    whole, operations = golden
    for stop in range(3, operations // 2, 11):
        store = make_store(tmp_path / str(stop))
        with pytest.raises(Stopped), stopping_disk(stop):
            precompute(PAIRS, store, shard=Shard(order[0], 3), unit_pairs=1)
        for index in order[1:]:
            precompute(PAIRS, store, shard=Shard(index, 3))
        precompute(PAIRS, store, shard=Shard(1, 2))
        precompute(PAIRS, store)
        assert rows(store).equals(rows(whole))


def test_a_reader_beside_a_writer_sees_only_whole_units(tmp_path):
    for stop in range(0, 60, 3):
        store = make_store(tmp_path / str(stop))
        with pytest.raises(Stopped), stopping_disk(stop):
            precompute(PAIRS, store)
        seen = store.rows()
        groups = seen.group_by("prompt_key").len()["len"]
        assert set(groups) <= {2}
        assert isinstance(seen, pl.DataFrame)
