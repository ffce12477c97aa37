"""Which references a store holds, under which names."""

import json
import logging

import pytest

from data.errors import StoreError
from data.identity import document_key
from data.store.references import StoredReference, describe, find_reference, stored_reference, stored_references
from data.store.storage import LocalStorage


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path)


def reference(name, **identity):
    return StoredReference(document_key(identity), name, identity, {"model": name, "revision": None})


ONE, TWO = reference("one", dtype="float32"), reference("two", dtype="bfloat16")


def test_a_reference_is_described_once_and_found_again(storage, tmp_path):
    assert stored_reference(storage, ONE.reference_id) is None
    describe(storage, ONE)
    path = tmp_path / ONE.reference_id / "reference.json"
    before = path.stat().st_mtime_ns
    describe(storage, StoredReference(ONE.reference_id, "another name", ONE.identity, {}))
    assert path.stat().st_mtime_ns == before
    assert stored_reference(storage, ONE.reference_id) == ONE
    describe(storage, TWO)
    assert sorted(stored_references(storage), key=lambda found: found.name) == [ONE, TWO]


def test_an_identity_that_is_not_the_preimage_of_the_id_is_a_bug(storage):
    with pytest.raises(ValueError, match="not the preimage"):
        describe(storage, StoredReference(ONE.reference_id, "one", TWO.identity, {}))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"identity": "a"}', json.dumps({"identity": TWO.identity})])
def test_a_document_that_cannot_be_read_or_is_another_s_is_passed_over_and_written_anew(
    storage, tmp_path, caplog, text
):
    path = tmp_path / ONE.reference_id / "reference.json"
    path.parent.mkdir()
    path.write_text(text)
    with caplog.at_level(logging.WARNING, logger="data.store.references"):
        assert stored_references(storage) == []
    assert caplog.messages == [f"{path} cannot be read or is another reference's; it is passed over"]
    describe(storage, ONE)
    assert stored_reference(storage, ONE.reference_id) == ONE


def test_a_reference_is_found_by_its_name_its_id_and_the_beginning_of_its_id(storage):
    describe(storage, ONE)
    describe(storage, TWO)
    for wanted in ("one", ONE.reference_id, ONE.reference_id[:8]):
        assert find_reference(storage, wanted) == ONE


@pytest.mark.parametrize("wanted", ["three", ONE.reference_id[:7], "", "0" * 64])
def test_a_reference_that_is_not_there_is_refused_with_those_that_are(storage, wanted):
    describe(storage, ONE)
    describe(storage, TWO)
    with pytest.raises(StoreError, match=r"has no reference of the name or id .* It holds: ") as caught:
        find_reference(storage, wanted)
    for each in (ONE, TWO):
        assert f"{each.name} ({each.reference_id[:12]})" in str(caught.value)


def test_a_name_that_two_references_have_is_refused_with_their_ids(storage):
    for each in (ONE, reference("one", dtype="float16"), TWO):
        describe(storage, each)
    with pytest.raises(StoreError, match="has 2 references of the name or id one") as caught:
        find_reference(storage, "one")
    assert ONE.reference_id[:12] in str(caught.value) and TWO.reference_id[:12] not in str(caught.value)
