"""Where a registry keeps its files: a folder, or what fsspec can open, such as a bucket.

A folder needs only the standard library, because an environment that serves does not install fsspec.
"""

from __future__ import annotations

import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vinegrape_cli.registry.errors import RegistryError

# The packages that fsspec needs for a bucket; they also install fsspec
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs"}


class Storage(ABC):
    """Files under one location. Their paths are relative to it, with slashes.

    Attributes:
        location: the folder or URL.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
            RegistryError: it cannot be read.
        """

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """Write a file at once: readers find the old file or the new one, never a part of it.

        Raises:
            RegistryError: it cannot be written.
        """

    @abstractmethod
    def names(self, path: str) -> list[str]:
        """Return the sorted names of the files and folders in a folder, without hidden ones; none if it is missing."""

    @contextlib.contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # each of fsspec's file systems has exceptions of its own
            reason = getattr(error, "strerror", None) or _line(error)
            raise RegistryError(f"{self.location}/{path} cannot be used: {reason}") from error


def open_storage(location: str) -> Storage:
    """Return the storage at a location: a folder, or a URL such as gs://BUCKET/models.

    Raises:
        RegistryError: a package that the URL needs is not installed, or the URL cannot be opened.
    """
    return _Remote(location) if "://" in location else _Folder(location)


class _Folder(Storage):
    def read(self, path: str) -> bytes:
        with self._errors(path):
            return (Path(self.location) / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        with self._errors(path):
            write_file(Path(self.location) / path, content)

    def names(self, path: str) -> list[str]:
        with self._errors(path), contextlib.suppress(FileNotFoundError):
            return sorted(each.name for each in (Path(self.location) / path).iterdir() if each.name[0] != ".")
        return []


class _Remote(Storage):
    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._files, self._root = _open_url(location)

    def read(self, path: str) -> bytes:
        with self._errors(path):
            content: bytes = self._files.cat_file(f"{self._root}/{path}")
            return content

    def write(self, path: str, content: bytes) -> None:
        with self._errors(path):
            full_path = f"{self._root}/{path}"
            self._files.makedirs(full_path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(full_path, content)

    def names(self, path: str) -> list[str]:
        with self._errors(path), contextlib.suppress(FileNotFoundError):
            self._files.invalidate_cache()
            found = self._files.ls(f"{self._root}/{path}", detail=False)
            return sorted(name for each in found if (name := each.rstrip("/").rpartition("/")[2]) and name[0] != ".")
        return []


def _open_url(location: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it."""
    scheme = location.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(location)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "fsspec")
        raise RegistryError(
            f"{location} needs the package {package}, which is not installed here ({_line(error)}). "
            f"Run: pip install {package}"
        ) from error
    except Exception as error:
        raise RegistryError(f"{location} cannot be opened: {_line(error)}") from error
    return files, str(root).rstrip("/")


def write_file(path: Path, content: bytes) -> None:
    """Write a file of this machine at once, and create its folder; an existing file is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vinegrape-", dir=path.parent) as folder:
        partial = Path(folder) / path.name
        partial.write_bytes(content)
        partial.replace(path)


def _line(error: Exception) -> str:
    """Return an error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
