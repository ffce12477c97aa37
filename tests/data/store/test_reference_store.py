"""The store is a set of rows: whole, checked, never older or other than what its names say."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from data.durable import temporary_beside
from data.errors import EnvironmentProblem, StoreError
from data.parquet import parquet_bytes
from data.store.parts import MAY_BE_UNKNOWN, PAIR_SCHEMA, RESPONSE_SCHEMA, BadLogps, DamagedPart
from data.store.reference_store import ReferenceStore, StoreConfig, missing_keys
from data.store.storage import LocalStorage

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "ab" * 32
STACK = {"torch": "2.13", "device": "cpu"}


def key(i):
    return hashlib.sha256(str(i).encode()).hexdigest()


def table(*numbers, chosen=-1.5, rejected=-2.25):
    n, sides = len(numbers), [("chosen", chosen), ("rejected", rejected)]
    logps = {f"ref_{side}{of}_logps": [value] * n for side, value in sides for of in ("", "_shared")}
    keys = {name: [key(f"{name}{i}") for i in numbers] for name in ("prompt_key", "chosen_key", "rejected_key")}
    counts = {name: [4] * n for name in ("n_prompt", "n_chosen", "n_rejected")}
    return pa.table({"pair_key": [key(i) for i in numbers], **keys, **counts, **logps}, schema=PAIR_SCHEMA)


def keys(*numbers):
    return {key(i) for i in numbers}


@pytest.fixture
def store(tmp_path):
    return ReferenceStore(LocalStorage(tmp_path / "store"), REFERENCE)


def root(store):
    return store.storage.root


def parts(store):
    """The folder of the parts."""
    return root(store) / store.reference_id / "parts"


def commit(store, *arguments):
    """The path of the part that was added."""
    return parts(store) / store.commit(*arguments)


def responses(**logps):
    return pa.table([list(logps), [np.float32(values) for values in logps.values()]], schema=RESPONSE_SCHEMA)


def put(store, rows, **metadata):
    """A part as another program might have written it."""
    content = parquet_bytes(rows.replace_schema_metadata({"reference_id": REFERENCE, "schema_version": "1"} | metadata))
    path = parts(store) / f"{hashlib.sha256(content).hexdigest()}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_rows_come_back_exactly(store):
    logps = np.float32([-0.1, -1e-30, -12345.678, -0.0])
    columns = [name for name in PAIR_SCHEMA.names if "logps" in name]
    rows = table(*range(4)).drop_columns(columns)
    for name in columns:
        rows = rows.append_column(name, pa.array(logps))
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
    assert store.rows().columns == [*PAIR_SCHEMA.names, "stack"]
    assert not root(store).exists()


def test_part_is_named_by_its_content_and_lies_alone(store):
    path = commit(store, table(1, 2), STACK)
    assert path == root(store) / REFERENCE / "parts" / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.parquet"
    assert names(parts(store)) == [path.name]


def test_same_rows_give_the_same_part_byte_for_byte(store, tmp_path):
    other = ReferenceStore(LocalStorage(tmp_path / "elsewhere"), REFERENCE)
    one, two = commit(store, table(1, 2), STACK), commit(other, table(1, 2), STACK)
    assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())
    assert commit(store, table(1, 2), STACK) == one
    assert names(parts(store)) == [one.name]


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
    other = ReferenceStore(store.storage, reference)
    assert other.commit(rows, stack) != store.commit(table(1, 2), STACK)


def test_write_that_fails_half_way_leaves_nothing(store, file_size_limit):
    with pytest.raises(EnvironmentProblem, match="File too large"), file_size_limit(500):
        store.commit(table(*range(50)), STACK)
    assert names(parts(store)) == []
    assert store.rows().height == 0


def test_killed_writer_leaves_only_whole_parts(store):
    script = (
        "import sys, itertools; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; import pyarrow as pa; from data.store.reference_store import ReferenceStore; "
        "from data.store.storage import LocalStorage; from data.store.parts import PAIR_SCHEMA\n"
        f"store = ReferenceStore(LocalStorage(Path(sys.argv[1])), '{REFERENCE}')\n"
        "for i in itertools.count():\n"
        "    row = {f.name: -1.0 if 'logps' in f.name else 1 if f.name[:2] == 'n_' else f'{i}' for f in PAIR_SCHEMA}\n"
        "    store.commit(pa.Table.from_pylist([row], schema=PAIR_SCHEMA), {})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, root(store), ROOT])
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
    by_name = {store.commit(table(7, chosen=value), STACK): value for value in (-1.0, -2.0, -3.0, -4.0)}
    store.commit(table(8), STACK)
    frame = store.rows()
    assert sorted(frame["pair_key"]) == sorted(keys(7, 8))
    assert frame.filter(pair_key=key(7))["ref_chosen_logps"].to_list() == [by_name[min(by_name)]]


def test_every_flipped_bit_is_refused(store):
    path = commit(store, table(*range(20)), STACK)
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
    commit(store, table(1), STACK).write_bytes(content)
    with pytest.raises(
        StoreError, match=r"Run `pipeline precompute-ref`, which sets it aside and scores its pairs again"
    ):
        store.rows()


def break_byte(store):
    path = commit(store, table(2), STACK)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def copy_from_another_reference(store):
    source = commit(ReferenceStore(store.storage, "cd" * 32), table(2), STACK)
    path = parts(store) / source.name
    path.write_bytes(source.read_bytes())
    return path


def write_without_reference(store):
    content = parquet_bytes(table(2))
    path = parts(store) / f"{hashlib.sha256(content).hexdigest()}.parquet"
    path.write_bytes(content)
    return path


DAMAGE = [break_byte, copy_from_another_reference, write_without_reference]


@pytest.mark.parametrize("damage", DAMAGE)
def test_skip_leaves_a_damaged_part_where_it_is(store, caplog, damage):
    store.commit(table(1), STACK)
    path = damage(store)
    with caplog.at_level(logging.WARNING, logger="data.store.reference_store"):
        assert set(store.rows(damaged="skip")["pair_key"]) == keys(1)
    assert path.exists()
    assert [str(path) in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("damage", DAMAGE)
def test_quarantine_moves_a_damaged_part_and_keeps_the_others(store, caplog, damage):
    good = commit(store, table(1), STACK)
    path = damage(store)
    content = path.read_bytes()
    with caplog.at_level(logging.WARNING, logger="data.store.reference_store"):
        assert set(store.rows(damaged="quarantine")["pair_key"]) == keys(1)
    assert names(parts(store)) == [good.name]
    assert (root(store) / REFERENCE / "quarantine" / path.name).read_bytes() == content
    assert len(caplog.messages) == 1
    assert set(store.rows()["pair_key"]) == keys(1)


@pytest.mark.parametrize("damaged", ["skip", "quarantine"])
def test_part_that_goes_away_while_the_store_is_read_is_passed_over(store, damaged):
    store.commit(table(1), STACK)
    (parts(store) / f"{key(2)}.parquet").symlink_to(parts(store) / "gone")
    assert set(store.rows(damaged=damaged)["pair_key"]) == keys(1)


def test_reading_never_writes(store):
    store.commit(table(1), STACK)
    before = sorted((path, path.stat().st_mtime_ns) for path in root(store).rglob("*"))
    store.rows()
    store.rows(damaged="skip")
    store.rows(damaged="quarantine")
    assert sorted((path, path.stat().st_mtime_ns) for path in root(store).rglob("*")) == before


def test_part_of_another_reference_is_refused_by_its_name(store):
    store.commit(table(1), STACK)
    copy_from_another_reference(store)
    with pytest.raises(
        DamagedPart, match=rf"holds log-probs of another reference \({'cd' * 32}\), copied into the folder"
    ):
        store.rows()


@pytest.mark.parametrize("damaged", ["refuse", "skip", "quarantine"])
def test_part_of_a_newer_version_is_refused_and_never_set_aside(store, damaged):
    path = put(store, table(1), schema_version="3")
    with pytest.raises(
        StoreError, match=r"has schema version 3; this version reads up to 2\..* upgrade, or use another"
    ):
        store.rows(damaged=damaged)
    assert path.exists()


def test_columns_that_a_later_writer_added_do_not_matter(store):
    put(store, table(1).append_column("more", pa.array([1])), other="x")
    store.commit(table(2), STACK)
    assert store.rows().columns == [*PAIR_SCHEMA.names, "stack"]
    assert set(store.rows()["pair_key"]) == keys(1, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e-30, None, -1e300], ids=str)
@pytest.mark.parametrize("column", [name for name in PAIR_SCHEMA.names if "logps" in name])
def test_what_is_no_log_prob_is_refused_and_nothing_is_written(store, column, value):
    rows = table(1, 2, 3)
    at = rows.column_names.index(column)
    rows = rows.set_column(at, column, pa.array([-1.0, value, -2.0], pa.float64()))
    if value is None and column in MAY_BE_UNKNOWN:
        store.commit(rows, STACK)
        assert store.rows()[column].to_list() == [-1.0, None, -2.0]
        return
    with pytest.raises(BadLogps) as caught:
        store.commit(rows, STACK, responses(a=[-1.0]))
    assert (caught.value.column, caught.value.rows) == (column, [1])
    assert not root(store).exists()


def test_a_token_that_has_no_log_prob_is_refused_too(store):
    with pytest.raises(BadLogps) as caught:
        store.commit(table(1), STACK, responses(a=[-1.0], b=[-2.0, 0.5], c=[]))
    assert (caught.value.column, caught.value.rows, caught.value.example) == ("token_logps", [1], 0.5)
    assert not root(store).exists()


def test_the_tokens_of_responses_come_back_exactly(store):
    store.commit(table(1), STACK, responses(a=[-0.1, -1e-30, -12345.678], b=[-1.0]))
    store.commit(table(2), STACK, responses(c=[-2.0]))
    store.commit(table(3), STACK)
    found = store.token_logps(["a", "c", "unknown"], damaged="refuse")
    assert {key: logps.tobytes() for key, logps in found.items()} == {
        "a": np.float32([-0.1, -1e-30, -12345.678]).tobytes(),
        "c": np.float32([-2.0]).tobytes(),
    }
    assert store.token_logps([], damaged="refuse") == {}


def test_of_two_values_for_one_response_the_smallest_part_name_wins(store):
    by_name = {}
    for value in (-1.0, -2.0, -3.0, -4.0):
        before = {path.name for path in root(store).glob("*/tokens/*")}
        store.commit(table(1), STACK, responses(a=[value]))
        (name,) = {path.name for path in root(store).glob("*/tokens/*")} - before
        by_name[name] = value
    assert store.token_logps(["a"], damaged="refuse")["a"].tolist() == [by_name[min(by_name)]]


def test_a_damaged_part_of_tokens_is_not_believed(store):
    store.commit(table(1), STACK, responses(a=[-1.0]))
    part = next((root(store) / REFERENCE / "tokens").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DamagedPart):
        store.token_logps(["a"], damaged="refuse")
    assert store.token_logps(["a"], damaged="quarantine") == {}
    assert not part.exists()


def test_a_part_of_the_first_schema_has_no_shared_sums(store):
    put(store, table(1).drop_columns(list(MAY_BE_UNKNOWN)))
    row = store.rows().to_dicts()[0]
    assert row["ref_chosen_logps"] == -1.5
    assert {row[name] for name in MAY_BE_UNKNOWN} == {None}


def test_only_the_columns_and_parts_that_are_asked_for_are_read(store):
    first, second = store.commit(table(1), STACK), store.commit(table(2), STACK)
    assert store.rows(["pair_key"]).columns == ["pair_key", "stack"]
    assert store.part_names() == sorted([first, second])
    assert set(store.rows(only=[second])["pair_key"]) == keys(2)


def test_a_link_is_no_part(store, tmp_path):
    path = commit(store, table(1), STACK)
    path.rename(tmp_path / "outside.parquet")
    path.symlink_to(tmp_path / "outside.parquet")
    with pytest.raises(DamagedPart):
        store.rows()
    assert store.rows(damaged="quarantine").height == 0
    assert (tmp_path / "outside.parquet").exists() and not path.is_symlink()


def test_parts_that_were_merged_while_the_store_was_read_are_found_in_the_new_one(store, monkeypatch):
    for number in range(6):
        store.commit(table(number), STACK)
    read, small = LocalStorage.read, store.part_names()

    def merge_first(storage, name):
        monkeypatch.setattr(LocalStorage, "read", read)
        store.commit(table(*range(6)), STACK)
        for part in small:
            (parts(store) / part).unlink()
        return read(storage, name)

    monkeypatch.setattr(LocalStorage, "read", merge_first)
    assert set(store.rows()["pair_key"]) == keys(*range(6))


def test_what_killed_writers_left_is_swept_and_what_others_write_is_not(store):
    path = commit(store, table(1), STACK)
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); from data.durable import *\n"
        "temporary_beside(Path(sys.argv[1])).touch()"
    )
    subprocess.run([sys.executable, "-c", script, path, ROOT], check=True)
    living = temporary_beside(path)
    living.touch()
    dead = subprocess.Popen(["true"])
    dead.wait()  # its number says nothing of another machine's processes
    old, young = (path.parent / f".tmp-elsewhere-{dead.pid}-{which}" for which in "ab")
    for temporary, age in ((old, 25), (young, 23)):
        temporary.touch()
        os.utime(temporary, (time.time() - age * 3600,) * 2)
    assert len(names(path.parent)) == 5
    store.sweep()
    assert names(path.parent) == sorted([living.name, young.name, path.name])


def test_zero_is_a_log_prob(store):
    store.commit(table(1, chosen=0.0, rejected=-0.0), STACK)
    assert store.rows()["ref_chosen_logps"].to_list() == [0.0]


@pytest.mark.parametrize(
    "name", [".tmp-0123456789abcdef", ".DS_Store", "notes.txt", "a.parquet.part", "list.parquet.crc"]
)
def test_temporaries_and_unknown_files_are_passed_over(store, name):
    store.commit(table(1), STACK)
    (parts(store) / name).write_bytes(b"anything")
    (parts(store) / "folder").mkdir()
    assert set(store.rows()["pair_key"]) == keys(1)
    assert set(store.rows(damaged="quarantine")["pair_key"]) == keys(1)
    assert (parts(store) / name).exists()


def test_missing_keys_is_a_set_difference(store):
    store.commit(table(*range(10)), STACK)
    rows = store.rows()
    assert missing_keys([], rows) == []
    assert missing_keys([key(3), key(9), key(3)], rows) == []
    wanted = [key(i) for i in (12, 5, 11, 12, 0, 13)]
    assert sorted(missing_keys(wanted, rows)) == sorted(keys(11, 12, 13))
    assert sorted(missing_keys(wanted, rows.clear())) == sorted(set(wanted))


def test_a_unit_holds_a_pair_at_least():
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        StoreConfig(unit_pairs=0)
