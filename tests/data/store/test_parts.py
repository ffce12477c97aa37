"""A part is believed only whole, under its own name, for its own reference."""

import hashlib

import pytest

from data.parquet import parquet_bytes
from data.store.parts import PAIR_SCHEMA, DamagedPart, open_part, pack_part
from tests.data.store.test_reference_store import REFERENCE, STACK, table


@pytest.fixture(scope="module")
def part():
    return pack_part(table(*range(30)), PAIR_SCHEMA, REFERENCE, STACK)


def opened(name, content):
    return open_part(name, "here", content, REFERENCE, PAIR_SCHEMA, PAIR_SCHEMA.names)


def test_every_single_flipped_bit_of_a_part_is_detected(part):
    name, content = part
    assert len(content) > 3000
    for position in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(DamagedPart):
            opened(name, bytes(damaged))
    assert opened(name, content).stack == STACK


def test_every_shorter_part_is_detected(part):
    name, content = part
    for length in range(len(content)):
        with pytest.raises(DamagedPart):
            opened(name, content[:length])


def test_a_part_under_another_s_name_is_detected(part):
    other, _ = pack_part(table(99), PAIR_SCHEMA, REFERENCE, STACK)
    with pytest.raises(DamagedPart):
        opened(other, part[1])


def test_the_rows_are_cast_to_the_schema_and_nothing_else_is_kept(part):
    name, content = pack_part(table(1).append_column("more", [[1]]), PAIR_SCHEMA, REFERENCE, STACK)
    assert (name, content) == pack_part(table(1), PAIR_SCHEMA, REFERENCE, STACK)
    assert opened(*part).table.schema.equals(PAIR_SCHEMA)


@pytest.mark.parametrize("version", ["", "two", "-1"])
def test_a_part_without_a_schema_version_is_damaged(version):
    metadata = {"reference_id": REFERENCE} | ({"schema_version": version} if version else {})
    content = parquet_bytes(table(1).replace_schema_metadata(metadata))
    with pytest.raises(DamagedPart, match="The part here names no schema version"):
        opened(f"{hashlib.sha256(content).hexdigest()}.parquet", content)
