"""A machine or a version that is new to the store scores some stored pairs first."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from tests.tiny import example_rows, write_jsonl


def change_stacks(work, shift=0.0, **stack):
    """The parts of the store as another machine would have made them."""
    for path in sorted((work.root / "store").glob("*/parts/*")):
        store = ReferenceStore(LocalStorage(work.root / "store"), path.parts[-3])
        table = pq.read_table(path)
        at = table.schema.get_field_index("ref_chosen_logps")
        moved = pa.array([value + shift for value in table["ref_chosen_logps"].to_pylist()], pa.float32())
        store.commit(table.set_column(at, "ref_chosen_logps", moved).replace_schema_metadata(None), stack)
        path.unlink()


def test_a_stack_that_the_store_has_not_seen_scores_some_stored_pairs_first(work):
    work.run("precompute-ref")
    assert "drift" not in work.run("precompute-ref", "reference.dtype=bfloat16")
    write_jsonl(work.data, example_rows(41))
    assert "drift" not in work.run("precompute-ref")
    change_stacks(work, shift=-1e-4, device="another machine", torch="1.0")
    write_jsonl(work.data, example_rows(42))
    drift = work.run("precompute-ref")["drift"]
    assert drift["responses"] == 82 and drift["max_abs"] == pytest.approx(1e-4, rel=0.1)
    write_jsonl(work.data, example_rows(43))
    assert "drift" not in work.run("precompute-ref")


def test_a_stack_that_scores_otherwise_is_refused_unless_it_is_accepted(work):
    work.run("precompute-ref")
    change_stacks(work, shift=-0.5, device="another machine", torch="1.0")
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    write_jsonl(work.data, example_rows(41))
    message = work.run("precompute-ref", expect=4)["message"]
    assert "scores 80 stored responses otherwise than the one that stored them (device another machine" in message
    assert "up to 0.5 nats apart" in message and "--accept-drift" in message and "Nothing was scored" in message
    assert len(work.stored_rows()) == 40
    document = work.run("precompute-ref", arguments={"accept_drift": True})
    assert document["pairs_scored"] == 1 and document["drift"]["max_abs"] == pytest.approx(0.5, rel=1e-3)


def test_in_fp32_a_hundredth_of_a_nat_is_too_much(work):
    """In bf16 it would be rounding."""
    work.run("precompute-ref")
    change_stacks(work, shift=-0.01, device="another machine", torch="1.0")
    write_jsonl(work.data, example_rows(41))
    assert "expected: at most 0.001 nats" in work.run("precompute-ref", expect=4)["message"]


def test_nothing_is_compared_where_nothing_is_stored(work, capsys):
    assert "drift" not in work.run("precompute-ref")
    assert "new to the store" not in capsys.readouterr().err


def test_a_part_that_reused_earlier_values_still_says_what_scored_the_rest(work):
    """Else every job after a flipped label would compare again."""
    work.run("precompute-ref")
    change_stacks(work, device="another machine")
    rows = example_rows(40)
    rows[0] = {**rows[0], "rejected": "Something new, and long enough."}
    write_jsonl(work.data, rows)
    assert "drift" in work.run("precompute-ref")
    stacks = [pq.read_schema(path).metadata for path in (work.root / "store").glob("*/parts/*")]
    (here,) = [metadata for metadata in stacks if b"torch" in metadata]
    assert here[b"reused"] == b"some"
    write_jsonl(work.data, [*rows, *example_rows(1, start=99)])
    assert "drift" not in work.run("precompute-ref")


def test_a_sample_is_enough(work):
    write_jsonl(work.data, example_rows(100))
    work.run("precompute-ref")
    change_stacks(work, shift=-1e-4, device="another machine", torch="1.0")
    write_jsonl(work.data, example_rows(101))
    assert 64 < work.run("precompute-ref")["drift"]["responses"] <= 128
