"""The same guarantees for a store on S3: a real server, real requests, real processes."""

import json

import pytest
import s3fs

from data.store.reference_store import ReferenceStore
from data.store.storage import open_storage
from tests.jobs import Command
from tests.tiny import example_rows, write_jsonl


@pytest.fixture
def url(s3_bucket):
    return f"store.url={s3_bucket}/nightly/store"


def objects(url):
    s3fs.S3FileSystem.clear_instance_cache()
    return sorted(s3fs.S3FileSystem().find(url.partition("=")[2]))


def test_the_three_jobs_run_and_the_second_time_nothing_is_scored(work, make_work, url):
    local = make_work()
    first = work.run("precompute-ref", url)
    assert first["pairs_scored"] == 40
    assert work.run("train", url, "train.epochs=1")["status"] == "done"
    assert work.run("eval", url, "train.epochs=1")["status"] == "done"
    before = objects(url)
    assert work.run("precompute-ref", url)["status"] == "nothing_to_do"
    assert objects(url) == before
    local.run("precompute-ref")
    names = {path.rpartition("/")[2] for path in before if path.endswith(".parquet")}
    assert names == {path.name for path in (local.root / "store").rglob("*.parquet")}
    assert not (work.root / "store").exists()


def test_another_machine_with_an_empty_work_folder_finds_everything(make_work, url):
    make_work().run("precompute-ref", url)
    other = make_work()
    assert other.run("precompute-ref", url)["status"] == "nothing_to_do"
    write_jsonl(other.data, example_rows(41))
    assert other.run("precompute-ref", url)["pairs_scored"] == 1


def test_a_damaged_object_stops_training_and_is_set_aside_and_scored_again(work, url):
    work.run("precompute-ref", url)
    part = next(path for path in objects(url) if "/parts/" in path)
    fs = s3fs.S3FileSystem()
    content = bytearray(fs.cat_file(part))
    content[len(content) // 2] ^= 1
    fs.pipe_file(part, bytes(content))
    message = work.run("train", url, expect=4)["message"]
    assert f"The part s3://{part} is damaged" in message and "pipeline precompute-ref" in message
    assert work.run("precompute-ref", url)["pairs_scored"] == 8
    assert any("/quarantine/" in path for path in objects(url))
    assert work.run("train", url, "train.epochs=1")["status"] == "done"
    work.run("gc", url)
    assert not any("/quarantine/" in path for path in objects(url))


def test_workers_at_once_write_one_set_of_rows(make_work, url, tmp_path):
    workers = []
    for shard in ("0/2", "1/2", "0/1"):  # the third does the work of both
        command = ["precompute-ref", "--json", "--config", str(make_work().config), "--set", url, "--shard", shard]
        workers.append(Command(command, tmp_path))
    documents = [json.loads(worker.finish().stdout) for worker in workers]
    assert [document["exit_code"] for document in documents] == [0, 0, 0]
    store = ReferenceStore(open_storage(url.partition("=")[2]), documents[0]["reference_id"])
    assert store.rows().height == 40
    assert make_work().run("verify", url)["exit_code"] == 0


def test_status_and_merging_work_there_too(work, url):
    work.run("precompute-ref", url)
    assert work.run("status", "--dry-run", url)["reference"]["pairs_stored"] == 40
    assert work.run("gc", url, arguments={"compact": True})["parts_made"] == 2
    assert sum("/parts/" in path for path in objects(url)) == 1
    assert work.run("precompute-ref", url)["status"] == "nothing_to_do"


def test_a_bucket_that_is_not_there_is_named(work, url):
    message = work.run("precompute-ref", "store.url=s3://no-such-bucket/store", expect=6)["message"]
    assert "The store s3://no-such-bucket/store cannot be used: FileNotFoundError" in message
    assert "Check the address, the credentials and the network" in message


def test_a_server_that_does_not_answer_is_named(work, url, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    message = work.run("precompute-ref", url, expect=6)["message"]
    assert "cannot be used: EndpointConnectionError" in message


def test_what_another_machine_wrote_is_seen_at_once(s3_bucket):
    storage = open_storage(f"{s3_bucket}/store")
    storage.write("a/one", b"")
    assert storage.names("a") == ["one"]
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    other.pipe_file(f"{s3_bucket.removeprefix('s3://')}/store/a/two", b"")
    assert storage.names("a") == ["one", "two"]
