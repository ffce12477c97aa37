"""Merging of parts: as many as fill one, and large ones stay as they are (values: tests/stages/test_garbage.py)."""

import pytest

from data.store import compaction
from data.store.compaction import find_merges
from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from tests.data.store.test_reference_store import REFERENCE, STACK, table


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "PART_ROWS", 10)
    return ReferenceStore(LocalStorage(tmp_path), REFERENCE)


def commit(store, *sizes):
    """Parts of these sizes; returns their names by size."""
    first, found = 0, {}
    for size in sizes:
        found[size] = store.commit(table(*range(first, first + size)), STACK)
        first += size
    return found


def test_parts_of_half_a_part_stay_as_they_are(store):
    names = commit(store, 1, 2, 4, 5, 9, 12)
    (merge,) = find_merges(store)
    assert set(merge.names) == {names[1], names[2], names[4]} and merge.table.num_rows == 7


def test_a_part_alone_is_not_merged_with_itself(store):
    commit(store, 3, 8)
    assert list(find_merges(store)) == []


def test_a_merged_part_is_closed_when_it_is_full(store):
    first = 0
    for _ in range(9):
        store.commit(table(*range(first, first + 4)), STACK)
        first += 4
    assert [merge.table.num_rows for merge in find_merges(store)] == [12, 12, 12]


def test_a_row_that_stands_in_two_parts_stands_in_the_merged_one_once(store):
    store.commit(table(1, 2), STACK)
    store.commit(table(2, 3), STACK)
    (merge,) = find_merges(store)
    assert merge.table.num_rows == 3
