"""Any place for a store behaves the same: a folder, and an fsspec URL."""

import os
import time
import uuid

import pytest

from data.errors import ConfigError, EnvironmentProblem
from data.store.storage import LocalStorage, RemoteStorage, open_storage


@pytest.fixture(params=["folder", "file URL", "memory", "renaming", "s3"])
def storage(request, tmp_path):
    if request.param == "s3":
        return open_storage(f"{request.getfixturevalue('s3_bucket')}/store")
    if request.param == "folder":
        return open_storage(str(tmp_path / "store"))
    if request.param == "file URL":
        return open_storage(f"file://{tmp_path / 'store'}")
    if request.param == "memory":
        return open_storage(f"memory://{uuid.uuid4()}/store/")
    return RemoteStorage(f"local://{tmp_path / 'store'}")


def test_what_is_written_is_read_listed_moved_and_deleted(storage):
    assert storage.names("a/b") == [] and storage.folders() == []
    for name in ("a/b/two", "a/b/one", "c/three"):
        storage.write(name, name.encode())
    storage.write("a/b/two", b"again")
    assert storage.names("a/b") == ["one", "two"]
    assert storage.names("a") == []
    assert storage.folders() == ["a", "c"]
    assert storage.read("a/b/two") == b"again"
    storage.move("a/b/two", "d/four")
    assert storage.names("a/b") == ["one"] and storage.read("d/four") == b"again"
    storage.delete("d/four")
    assert storage.names("d") == []
    assert storage.names("a/b") == ["one"]


def test_what_is_gone_is_not_found_and_can_be_moved_and_deleted(storage):
    storage.write("a/one", b"")
    with pytest.raises(FileNotFoundError):
        storage.read("a/two")
    with pytest.raises(FileNotFoundError):
        storage.read("b/two")
    storage.move("a/two", "a/three")
    storage.delete("a/two")
    assert storage.names("a") == ["one"]


def test_temporary_names_are_not_listed(storage):
    storage.write("a/.tmp-x", b"")
    storage.write("a/one", b"")
    assert storage.names("a") == ["one"]
    assert storage.sweep("a") == []


def test_temporary_files_of_yesterday_are_swept_where_nobody_knows_their_owners(tmp_path):
    storage = RemoteStorage(f"local://{tmp_path}")
    for name in ("a/.tmp-old", "a/.tmp-new", "a/one"):
        storage.write(name, b"")
    for name in (".tmp-old", "one"):
        os.utime(tmp_path / "a" / name, (time.time() - 90_000,) * 2)
    assert storage.sweep("a") == [".tmp-old"]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {".tmp-new", "one"}


def test_an_empty_folder_goes_with_its_last_file(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.write("a/parts/one", b"")
    storage.write("a/two", b"")
    storage.delete("a/parts/one")
    assert not (tmp_path / "a" / "parts").exists()
    storage.delete("a/two")
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_nobody_speaks_is_refused():
    with pytest.raises(ConfigError, match=r"store.url: nonsense://bucket cannot be opened: ValueError.*fsspec knows"):
        open_storage("nonsense://bucket")


def test_a_service_that_refuses_becomes_an_error_that_names_the_store(monkeypatch):
    storage = open_storage("memory://refused/store")
    for operation in ("cat_file", "pipe_file", "ls", "rm_file"):
        monkeypatch.setattr(type(storage._fs), operation, lambda *_, **__: (_ for _ in ()).throw(OSError("no access")))
    for use in (
        lambda: storage.read("a"),
        lambda: storage.write("a", b""),
        lambda: storage.names("a"),
        lambda: storage.delete("a"),
    ):
        with pytest.raises(
            EnvironmentProblem,
            match=r"The store memory://refused/store cannot be used: OSError: no access\..*credentials",
        ):
            use()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_the_right_to_read_it_says_so(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.write("a/one", b"")
    (tmp_path / "a" / "one").chmod(0)
    with pytest.raises(EnvironmentProblem, match="cannot be read: Permission denied"):
        storage.read("a/one")
    (tmp_path / "a").chmod(0)
    with pytest.raises(EnvironmentProblem, match="cannot be listed: Permission denied"):
        storage.names("a")
    (tmp_path / "a").chmod(0o700)
