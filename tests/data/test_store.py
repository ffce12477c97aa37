"""The store is a set of rows: whole, checked, never older or other than what its names say."""

import hashlib
import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from data.errors import EnvironmentProblem, PipelineError, StoreError
from data.identity import document_key
from data.parquet import parquet_bytes
from data.store import ROW_SCHEMA, DamagedPart, ReferenceStore, StoreConfig, missing_keys, other_references

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "ab" * 32
STACK = {"torch": "2.13", "device": "cpu"}


def key(i):
    return hashlib.sha256(str(i).encode()).hexdigest()


def table(*numbers, chosen=-1.5, rejected=-2.25):
    n = len(numbers)
    logps = {"ref_chosen_logps": [chosen] * n, "ref_rejected_logps": [rejected] * n}
    keys = {name: [key(f"{name}{i}") for i in numbers] for name in ("prompt_key", "chosen_key", "rejected_key")}
    counts = {name: [4] * n for name in ("n_prompt", "n_chosen", "n_rejected")}
    return pa.table({"pair_key": [key(i) for i in numbers], **keys, **counts, **logps}, schema=ROW_SCHEMA)


def keys(*numbers):
    return {key(i) for i in numbers}


@pytest.fixture
def store(tmp_path):
    return ReferenceStore(tmp_path / "store", REFERENCE)


def put(store, rows, **metadata):
    """A part as another program might have written it."""
    content = parquet_bytes(rows.replace_schema_metadata({"reference_id": REFERENCE, "schema_version": "1"} | metadata))
    path = store.parts_folder / f"{hashlib.sha256(content).hexdigest()}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_rows_come_back_exactly(store):
    logps = np.float32([-0.1, -1e-30, -12345.678, -0.0])
    rows = table(*range(4)).drop_columns(["ref_chosen_logps", "ref_rejected_logps"])
    rows = rows.append_column("ref_chosen_logps", pa.array(logps)).append_column("ref_rejected_logps", pa.array(logps))
    store.commit(rows, STACK)
    assert store.rows().drop("stack").to_arrow().to_pylist() == rows.to_pylist()
    assert store.rows()["ref_chosen_logps"].to_numpy().tobytes() == logps.tobytes()


def test_each_row_says_what_scored_it(store):
    store.commit(table(1), STACK)
    store.commit(table(2), {})
    stacks = {key: json.loads(stack) for key, stack in store.rows().select("pair_key", "stack").iter_rows()}
    assert stacks == dict(zip(sorted(keys(1)) + sorted(keys(2)), [STACK, {}], strict=True))


def test_store_that_is_not_there_is_empty(store):
    assert store.rows().height == 0
    assert store.rows().columns == [*ROW_SCHEMA.names, "stack"]
    assert not store.root.exists()


def test_part_is_named_by_its_content_and_lies_alone(store):
    path = store.commit(table(1, 2), STACK)
    assert path == store.root / REFERENCE / "parts" / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.parquet"
    assert names(store.parts_folder) == [path.name]


def test_same_rows_give_the_same_part_byte_for_byte(store, tmp_path):
    other = ReferenceStore(tmp_path / "elsewhere", REFERENCE)
    one, two = store.commit(table(1, 2), STACK), other.commit(table(1, 2), STACK)
    assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())
    assert store.commit(table(1, 2), STACK) == one
    assert names(store.parts_folder) == [one.name]


@pytest.mark.parametrize(
    ("rows", "reference", "stack"),
    [
        (table(1, 3), REFERENCE, STACK),
        (table(2, 1), REFERENCE, STACK),
        (table(1, 2, chosen=-1.5000001), REFERENCE, STACK),
        (table(1, 2), "cd" * 32, STACK),
        (table(1, 2), REFERENCE, STACK | {"device": "H100"}),
    ],
    ids=["rows", "order", "value", "reference", "stack"],
)
def test_other_part_has_another_name(store, rows, reference, stack):
    other = ReferenceStore(store.root, reference)
    assert other.commit(rows, stack).name != store.commit(table(1, 2), STACK).name


def test_write_that_fails_half_way_leaves_nothing(store, file_size_limit):
    with pytest.raises(EnvironmentProblem, match="File too large"), file_size_limit(500):
        store.commit(table(*range(50)), STACK)
    assert names(store.parts_folder) == []
    assert store.rows().height == 0


def test_killed_writer_leaves_only_whole_parts(store):
    script = (
        "import sys, itertools; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; import pyarrow as pa; from data.store import ReferenceStore, ROW_SCHEMA\n"
        f"store = ReferenceStore(Path(sys.argv[1]), '{REFERENCE}')\n"
        "for i in itertools.count():\n"
        "    row = {f.name: -1.0 if 'logps' in f.name else 1 if f.name[:2] == 'n_' else f'{i}' for f in ROW_SCHEMA}\n"
        "    store.commit(pa.Table.from_pylist([row], schema=ROW_SCHEMA), {})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, store.root, ROOT])
    try:
        deadline = time.monotonic() + 30
        while store.rows().height < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    n = store.rows().height
    assert n >= 3
    assert sorted(store.rows()["pair_key"], key=int) == [str(i) for i in range(n)]


def test_of_two_rows_for_one_pair_the_smallest_part_name_wins(store):
    parts = {store.commit(table(7, chosen=value), STACK).name: value for value in (-1.0, -2.0, -3.0, -4.0)}
    store.commit(table(8), STACK)
    frame = store.rows()
    assert sorted(frame["pair_key"]) == sorted(keys(7, 8))
    assert frame.filter(pair_key=key(7))["ref_chosen_logps"].to_list() == [parts[min(parts)]]


def test_every_flipped_bit_is_refused(store):
    path = store.commit(table(*range(20)), STACK)
    content = path.read_bytes()
    for position in np.linspace(0, 8 * len(content) - 1, 40).astype(int):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedPart, match=rf"^The part {path} is damaged: its bytes are not those that its name"):
            store.rows()
    path.write_bytes(content)
    assert store.rows().height == 20


@pytest.mark.parametrize("content", [b"", b"PAR1"], ids=["empty", "cut"])
def test_cut_part_is_refused_with_what_repairs_it(store, content):
    store.commit(table(1), STACK).write_bytes(content)
    with pytest.raises(
        StoreError, match=r"Run `pipeline precompute-ref`, which sets it aside and scores its pairs again"
    ):
        store.rows()


def break_byte(store):
    path = store.commit(table(2), STACK)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def copy_from_another_reference(store):
    source = ReferenceStore(store.root, "cd" * 32).commit(table(2), STACK)
    path = store.parts_folder / source.name
    path.write_bytes(source.read_bytes())
    return path


def write_without_reference(store):
    content = parquet_bytes(table(2))
    path = store.parts_folder / f"{hashlib.sha256(content).hexdigest()}.parquet"
    path.write_bytes(content)
    return path


DAMAGE = [break_byte, copy_from_another_reference, write_without_reference]


@pytest.mark.parametrize("damage", DAMAGE)
def test_skip_leaves_a_damaged_part_where_it_is(store, caplog, damage):
    store.commit(table(1), STACK)
    path = damage(store)
    with caplog.at_level(logging.WARNING, logger="data.store"):
        assert set(store.rows(damaged="skip")["pair_key"]) == keys(1)
    assert path.exists()
    assert [str(path) in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("damage", DAMAGE)
def test_quarantine_moves_a_damaged_part_and_keeps_the_others(store, caplog, damage):
    good = store.commit(table(1), STACK)
    path = damage(store)
    content = path.read_bytes()
    with caplog.at_level(logging.WARNING, logger="data.store"):
        assert set(store.rows(damaged="quarantine")["pair_key"]) == keys(1)
    assert names(store.parts_folder) == [good.name]
    assert (store.folder / "quarantine" / path.name).read_bytes() == content
    assert len(caplog.messages) == 1
    assert set(store.rows()["pair_key"]) == keys(1)


@pytest.mark.parametrize("damaged", ["skip", "quarantine"])
def test_part_that_goes_away_while_the_store_is_read_is_passed_over(store, damaged):
    store.commit(table(1), STACK)
    (store.parts_folder / f"{key(2)}.parquet").symlink_to(store.parts_folder / "gone")
    assert set(store.rows(damaged=damaged)["pair_key"]) == keys(1)


def test_reading_never_writes(store):
    store.commit(table(1), STACK)
    before = sorted((path, path.stat().st_mtime_ns) for path in store.root.rglob("*"))
    store.rows()
    store.rows(damaged="skip")
    store.rows(damaged="quarantine")
    assert sorted((path, path.stat().st_mtime_ns) for path in store.root.rglob("*")) == before


def test_part_of_another_reference_is_refused_by_its_name(store):
    store.commit(table(1), STACK)
    copy_from_another_reference(store)
    with pytest.raises(
        DamagedPart, match=rf"holds log-probs of another reference \({'cd' * 32}\), copied into the folder"
    ):
        store.rows()


@pytest.mark.parametrize("damaged", ["refuse", "skip", "quarantine"])
def test_part_of_a_newer_version_is_refused_and_never_set_aside(store, damaged):
    path = put(store, table(1), schema_version="2")
    with pytest.raises(
        StoreError, match=r"has schema version 2; this version reads up to 1\..* upgrade, or use another"
    ):
        store.rows(damaged=damaged)
    assert path.exists()


def test_columns_that_a_later_writer_added_do_not_matter(store):
    put(store, table(1).append_column("more", pa.array([1])), other="x")
    store.commit(table(2), STACK)
    assert store.rows().columns == [*ROW_SCHEMA.names, "stack"]
    assert set(store.rows()["pair_key"]) == keys(1, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e-30, None, -1e300], ids=str)
@pytest.mark.parametrize("column", ["ref_chosen_logps", "ref_rejected_logps"])
def test_what_is_no_log_prob_is_refused_and_nothing_is_written(store, column, value):
    rows = table(1, 2, 3)
    at = rows.column_names.index(column)
    rows = rows.set_column(at, column, pa.array([-1.0, value, -2.0], pa.float64()))
    with pytest.raises(
        PipelineError, match=rf"gave 1 log-probs that are not finite or above 0 \({column}, .*"
    ) as caught:
        store.commit(rows, STACK)
    assert key(2)[:12] in str(caught.value)
    assert "nothing of this unit was stored" in str(caught.value)
    assert "try reference.dtype: float32" in str(caught.value)
    assert not store.root.exists()


def test_zero_is_a_log_prob(store):
    store.commit(table(1, chosen=0.0, rejected=-0.0), STACK)
    assert store.rows()["ref_chosen_logps"].to_list() == [0.0]


@pytest.mark.parametrize(
    "name", [".tmp-0123456789abcdef", ".DS_Store", "notes.txt", "a.parquet.part", "list.parquet.crc"]
)
def test_temporaries_and_unknown_files_are_passed_over(store, name):
    store.commit(table(1), STACK)
    (store.parts_folder / name).write_bytes(b"anything")
    (store.parts_folder / "folder").mkdir()
    assert set(store.rows()["pair_key"]) == keys(1)
    assert set(store.rows(damaged="quarantine")["pair_key"]) == keys(1)
    assert (store.parts_folder / name).exists()


def test_missing_keys_is_a_set_difference(store):
    store.commit(table(*range(10)), STACK)
    rows = store.rows()
    assert missing_keys([], rows) == []
    assert missing_keys([key(3), key(9), key(3)], rows) == []
    wanted = [key(i) for i in (12, 5, 11, 12, 0, 13)]
    assert sorted(missing_keys(wanted, rows)) == sorted(keys(11, 12, 13))
    assert sorted(missing_keys(wanted, rows.clear())) == sorted(set(wanted))


def test_reference_is_described_by_what_its_id_is_made_of(tmp_path):
    identity, other = {"dtype": "float32", "weights": ["a"]}, {"dtype": "bfloat16", "weights": ["a"]}
    stores = [ReferenceStore(tmp_path, document_key(preimage)) for preimage in (identity, other)]
    for store, preimage in zip(stores, (identity, other), strict=True):
        store.describe(preimage)
        store.describe(preimage)
    assert other_references(stores[0]) == {stores[1].reference_id: other}
    assert other_references(ReferenceStore(tmp_path, REFERENCE)) == {
        stores[0].reference_id: identity,
        stores[1].reference_id: other,
    }
    with pytest.raises(ValueError, match="not the preimage"):
        stores[0].describe(other)


@pytest.mark.parametrize("text", ["", "{}", '{"reference_id": "a", "identity": '])
def test_description_that_cannot_be_read_is_passed_over(store, caplog, text):
    folder = store.root / ("cd" * 32)
    folder.mkdir(parents=True)
    (folder / "reference.json").write_text(text)
    with caplog.at_level(logging.WARNING, logger="data.store"):
        assert other_references(store) == {}
    assert caplog.messages == [f"{folder / 'reference.json'} cannot be read and is passed over"]


def test_only_folders_hold_a_store():
    assert StoreConfig(url="/data/store").url == "/data/store"
    with pytest.raises(ValidationError, match=r"only folders can hold a store in this version, not s3://bucket"):
        StoreConfig(url="s3://bucket")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        StoreConfig(unit_pairs=0)
