"""Where the files of a store lie: a local folder, or any place that fsspec knows (s3://bucket/folder).

Names are relative to the root, with forward slashes. A file appears under its name whole, or not at all.
"""

import errno
import os
import posixpath
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from data.durable import ABANDONED_SECONDS, TEMPORARY_PREFIX, fsync_folder, sweep_temporaries, write_bytes, writing_to
from data.errors import ConfigError, EnvironmentProblem, one_line

# Writing an object under its name is atomic there; elsewhere a file is written beside its name and then renamed.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}


class Storage(Protocol):
    """A flat view of a place: folders of files."""

    def names(self, folder: str) -> list[str]:
        """Names of the files right in `folder`, sorted, temporary ones left out; none where it is not there."""

    def folders(self) -> list[str]:
        """Names of the folders right in the root, sorted."""

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: it is not there. EnvironmentProblem: it cannot be reached.
        """

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, whole and durable.

        Raises:
            EnvironmentProblem: it cannot be written.
        """

    def move(self, name: str, to: str) -> None:
        """Give a file another name; nothing happens where it is gone."""

    def delete(self, name: str) -> None:
        """Take a file away; nothing happens where it is gone."""

    def sweep(self, folder: str) -> list[str]:
        """Take away what writers that died left unfinished in `folder`; returns its names."""


def open_storage(place: str | Path) -> Storage:
    """The storage at a path or URL.

    Raises:
        ConfigError: no such kind of URL, or the package that speaks it is not installed.
    """
    if isinstance(place, Path) or "://" not in place:
        return LocalStorage(Path(place))
    if place.startswith("file://"):
        return LocalStorage(Path(place.removeprefix("file://")))
    return RemoteStorage(place)


class LocalStorage:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def names(self, folder: str) -> list[str]:
        """Files of a folder."""
        return sorted(entry.name for entry in self._entries(folder) if not entry.is_dir(follow_symlinks=False))

    def folders(self) -> list[str]:
        """Folders of the root."""
        return sorted(entry.name for entry in self._entries("") if entry.is_dir())

    def read(self, name: str) -> bytes:
        """A file; a link holds nothing, because what it leads to may change at any time."""
        try:
            with open(self.root / name, "rb", opener=_no_links) as file:
                return file.read()
        except PermissionError as error:
            raise EnvironmentProblem(
                f"{self.root / name} cannot be read: {error.strerror}. Give this user the right to read the store and "
                "run the same command again."
            ) from error
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return b""

    def write(self, name: str, content: bytes) -> None:
        """Temporary name, fsync, rename, fsync of the folder."""
        write_bytes(self.root / name, content)

    def move(self, name: str, to: str) -> None:
        """Rename, durably."""
        target = self.root / to
        with writing_to(target.parent):
            try:
                (self.root / name).replace(target)
            except FileNotFoundError:
                return
            fsync_folder(target.parent)

    def delete(self, name: str) -> None:
        """Unlink, and the folders with it that are empty then."""
        path = self.root / name
        with writing_to(self.root):
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root or any(folder.iterdir()):
                    break
                folder.rmdir()

    def sweep(self, folder: str) -> list[str]:
        """Temporary files of processes that are gone."""
        return [path.name for path in sweep_temporaries(self.root / folder)]

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.root / folder) as entries:
                return [entry for entry in entries if not entry.name.startswith(TEMPORARY_PREFIX)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            raise EnvironmentProblem(
                f"{self.root / folder} cannot be listed: {error.strerror}. Give this user the right to read the store "
                "and run the same command again."
            ) from error


class RemoteStorage:
    """An fsspec URL."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # only where a store is remote

        self._url = url.rstrip("/")
        try:
            self._fs, root = url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"store.url: {url} cannot be opened: {one_line(error)}. A store is a folder or a URL that fsspec "
                "knows; for s3:// install the extra `s3` of this package."
            ) from error
        self._root = str(root)
        self._atomic = self._url.partition("://")[0] in _OBJECT_STORES

    def __str__(self) -> str:
        return self._url

    def names(self, folder: str) -> list[str]:
        """Objects right below a prefix."""
        return [name for name in self._files(folder) if not name.startswith(TEMPORARY_PREFIX)]

    def folders(self) -> list[str]:
        """Prefixes right below the root."""
        return [name for name, kind in self._list("") if kind == "directory"]

    def read(self, name: str) -> bytes:
        """An object."""
        with self._reached():
            content: bytes = self._fs.cat_file(self._path(name))
            return content

    def write(self, name: str, content: bytes) -> None:
        """One PUT where that is atomic; elsewhere a temporary name and a rename."""
        path = self._path(name)
        try:
            with self._reached():
                if self._atomic:
                    self._fs.pipe_file(path, content)
                    return
                self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
                temporary = posixpath.join(posixpath.dirname(path), f"{TEMPORARY_PREFIX}{uuid4().hex}")
                self._fs.pipe_file(temporary, content)
                self._fs.mv(temporary, path)
        except FileNotFoundError as error:
            raise self._problem(error) from error  # no such bucket

    def move(self, name: str, to: str) -> None:
        """Copy and delete, as object stores have it."""
        try:
            self.write(to, self.read(name))
        except FileNotFoundError:
            return
        self.delete(name)

    def delete(self, name: str) -> None:
        """An object."""
        with self._reached():
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def sweep(self, folder: str) -> list[str]:
        """Temporary files of yesterday and before: whose they are, nobody can tell from here. Objects are never so."""
        swept = []
        for name in [] if self._atomic else self._files(folder):
            if name.startswith(TEMPORARY_PREFIX) and self._is_abandoned(self._path(f"{folder}/{name}")):
                self.delete(f"{folder}/{name}")
                swept.append(name)
        return swept

    def _is_abandoned(self, path: str) -> bool:
        try:
            with self._reached():
                changed: datetime = self._fs.modified(path)
        except (FileNotFoundError, EnvironmentProblem):  # not every protocol tells
            return False
        return time.time() - changed.timestamp() > ABANDONED_SECONDS

    def _files(self, folder: str) -> list[str]:
        return [name for name, kind in self._list(folder) if kind == "file"]

    def _list(self, folder: str) -> list[tuple[str, str]]:
        with self._reached():
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
        return sorted((posixpath.basename(entry["name"].rstrip("/")), entry["type"]) for entry in found)

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name) if name else self._root

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Whatever a network or a service says becomes an error that names the store."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # each service raises classes of its own
            raise self._problem(error) from error

    def _problem(self, error: Exception) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"The store {self._url} cannot be used: {one_line(error)}. Nothing incomplete was left behind. Check the "
            "address, the credentials and the network, and run the same command again: it goes on from there."
        )


def _no_links(path: Any, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
