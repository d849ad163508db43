"""A registry: immutable versions of a model, and channels that name one of them.

    NAME/versions/VERSION/NAME.mar, MODEL_CARD.md, ..., SHA256SUMS
    NAME/channels/CHANNEL.json

A version exists as soon as it has SHA256SUMS, which is written after its other files. A channel file is written after
the version that it names. So readers never see a part of a version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from vinegrape_cli.registry.errors import RegistryError
from vinegrape_cli.registry.storage import open_storage

DEFAULT_CHANNEL = "stable"

SUMS_FILE = "SHA256SUMS"  # in the format of the program sha256sum

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SUM = re.compile(rf"([0-9a-f]{{64}})  ({_NAME.pattern})")


@dataclass(frozen=True)
class Release:
    """One version of a model in a registry.

    Attributes:
        name: of the model.
        version: of the model.
        sha256: the SHA-256 digest of each file of the version, by the file's name.
    """

    name: str
    version: str
    sha256: Mapping[str, str]


class Registry:
    """The models in a folder or a bucket.

    Args:
        location: a folder, or a URL that fsspec can open, such as gs://BUCKET/models.

    Raises:
        RegistryError: the location cannot be opened.
    """

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/") or location
        self._storage = open_storage(self.location)

    def release(self, name: str, version: str) -> Release | None:
        """Return a version of a model; None if it is not in the registry.

        Raises:
            RegistryError: the version's SHA256SUMS cannot be read.
        """
        path = f"{_version_folder(name, version)}/{SUMS_FILE}"
        try:
            text = self._storage.read(path).decode(errors="replace")
        except FileNotFoundError:
            return None
        lines = [_SUM.fullmatch(line) for line in text.splitlines()]
        if not lines or None in lines:
            raise RegistryError(f"{self.location}/{path} is damaged: each line must be a SHA-256 digest and a file.")
        return Release(name, version, {match[2]: match[1] for match in lines if match})

    def release_of_channel(self, name: str, channel: str) -> Release:
        """Return the version of a model that a channel names.

        Raises:
            RegistryError: there is no such channel, or its file or its version cannot be read.
        """
        path = f"{_model_folder(name)}/channels/{_checked('channel', channel)}.json"
        try:
            values = json.loads(self._storage.read(path))
            version, sha256 = values["version"], dict(values["sha256"])
        except FileNotFoundError as error:
            channels = [file.removesuffix(".json") for file in self._storage.names(f"{name}/channels")]
            raise self._unknown(name, f"channel {channel}", "channels", channels) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"{self.location}/{path} is damaged: {error!r}. Publish the version again.") from error
        return Release(name, _checked("version", version), sha256)

    def release_of_version(self, name: str, version: str) -> Release:
        """Return a version of a model.

        Raises:
            RegistryError: there is no such version, or its SHA256SUMS cannot be read.
        """
        release = self.release(name, version)
        if release is None:
            found = filter(_NAME.fullmatch, self._storage.names(f"{name}/versions"))
            versions = [each for each in found if self.release(name, each)]
            raise self._unknown(name, f"version {version}", "versions", versions)
        return release

    def read(self, release: Release, file: str) -> bytes:
        """Return a file of a version, with the digest that the release states.

        Raises:
            RegistryError: the version has no such file, or the file has another digest.
        """
        path = f"{_version_folder(release.name, release.version)}/{file}"
        try:
            content, expected = self._storage.read(path), release.sha256[file]
        except (FileNotFoundError, KeyError) as error:
            raise RegistryError(
                f"{self.location} has no file {path}. Version {release.version} of {release.name} is damaged: restore "
                "its folder, or fetch another version."
            ) from error
        if (found := sha256_of(content)) != expected:
            raise RegistryError(
                f"{self.location}/{path} has the SHA-256 digest {found} instead of {expected}: it was changed or "
                "damaged. Restore the file, or fetch another version."
            )
        return content

    def publish(
        self, name: str, version: str, files: Mapping[str, bytes], more: Callable[[], Mapping[str, bytes]]
    ) -> tuple[Release, bool]:
        """Add a version of a model, unless the registry has it with the same files.

        Args:
            name: of the model.
            version: of the model.
            files: the version's files by name.
            more: makes the files that only a new version needs.

        Returns:
            The version, and whether it is new.

        Raises:
            RegistryError: the registry has the version with another file, or the version cannot be written.
        """
        existing = self.release(name, version)
        if existing:
            for file, content in files.items():
                self._check_same(existing, file, content)
            return existing, False
        files = {**files, **more()}
        folder = _version_folder(name, version)
        for file, content in files.items():
            self._storage.write(f"{folder}/{_checked('file', file)}", content)
        sums = {file: sha256_of(content) for file, content in files.items()}
        lines = (f"{digest}  {file}\n" for file, digest in sums.items())
        self._storage.write(f"{folder}/{SUMS_FILE}", "".join(lines).encode())
        return Release(name, version, sums), True

    def set_channel(self, channel: str, release: Release) -> None:
        """Let a channel name a version.

        Raises:
            RegistryError: the channel's file cannot be written.
        """
        values = {
            "name": release.name,
            "version": release.version,
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "sha256": dict(release.sha256),
        }
        path = f"{_model_folder(release.name)}/channels/{_checked('channel', channel)}.json"
        self._storage.write(path, (json.dumps(values, indent=2) + "\n").encode())

    def _check_same(self, release: Release, file: str, content: bytes) -> None:
        if (digest := sha256_of(content)) != (published := release.sha256.get(file)):
            has = f"has the SHA-256 digest {published}" if published else "is missing"
            raise RegistryError(
                f"{self.location} has version {release.version} of {release.name} already, and its {file} {has}; yours "
                f"has {digest}. A version does not change: leave out this file, or create a new version with "
                "`vinegrape archive`."
            )

    def _unknown(self, name: str, missing: str, kind: str, known: list[str]) -> RegistryError:
        """Return the error that a model has no such channel or version; it lists what there is."""
        if known:
            listed = f"Its {kind}: {', '.join(known)}."
        else:
            listed = f"It has no {kind}. Models in {self.location}: {', '.join(self._storage.names('')) or 'none'}."
        return RegistryError(f"{self.location} has no {missing} of {name}. {listed}")


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 digest of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def archive_file(name: str) -> str:
    """Return the file name of a model's archive."""
    return f"{name}.mar"


def _model_folder(name: str) -> str:
    return _checked("name", name)


def _version_folder(name: str, version: str) -> str:
    return f"{_model_folder(name)}/versions/{_checked('version', version)}"


def _checked(kind: str, name: object) -> str:
    """Return a name that becomes a part of a path.

    Raises:
        RegistryError: it could name another place.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistryError(
            f"The {kind} is {name!r}; it must begin with a letter or digit, and have only letters, digits and ._-"
        )
    return name
