"""The manifest of the data set: name, class, size and SHA-256 of its known images, and comparison with a folder.

The repository holds the manifest, not the images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vinegrape_training.data.image_folder import list_images
from vinegrape_training.errors import DataError, ManifestError
from vinegrape_training.progress import progress


@dataclass(frozen=True, order=True)
class Entry:
    """One image: its class (the folder's name), file name, size in bytes and SHA-256 in hex."""

    label: str
    name: str
    size: int
    sha256: str

    @property
    def place(self) -> str:
        """The image's path in the data set, such as "Ak/Ak (1).png"."""
        return f"{self.label}/{self.name}"


@dataclass(frozen=True)
class Comparison:
    """The differences between the images of a folder and a manifest. Every tuple is sorted by class and name.

    Attributes:
        matching: same path and same content as in the manifest.
        missing: in the manifest; neither the path nor the content is in the folder.
        changed: the path is in the folder with other content, and the manifest's content is nowhere in the folder.
        misplaced: the content is in another class's folder, so its label would be wrong; (manifest, folder) pairs.
        renamed: the content is in its class's folder under another name; (manifest, folder) pairs.
        new: in the folder and not in the manifest.
    """

    matching: tuple[Entry, ...]
    missing: tuple[Entry, ...]
    changed: tuple[Entry, ...]
    misplaced: tuple[tuple[Entry, Entry], ...]
    renamed: tuple[tuple[Entry, Entry], ...]
    new: tuple[Entry, ...]

    @property
    def intact(self) -> bool:
        """Whether every image of the manifest is in the folder, unchanged and in its class."""
        return not (self.missing or self.changed or self.misplaced)


def load_manifest() -> tuple[Entry, ...]:
    """Read the manifest that is installed with this package."""
    return loads(resources.files("vinegrape_training.data").joinpath("manifest.json").read_text("utf-8"))


def class_names() -> tuple[str, ...]:
    """Return the classes of the installed manifest, sorted."""
    return tuple(sorted({entry.label for entry in load_manifest()}))


def loads(text: str) -> tuple[Entry, ...]:
    """Parse a manifest that `dumps` wrote.

    Raises:
        ManifestError: the text is not such a manifest.
    """
    try:
        images = json.loads(text)["images"]
        return tuple(Entry(image["class"], image["name"], image["bytes"], image["sha256"]) for image in images)
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"The manifest cannot be read: {error!r}. Write it with `vinegrape data manifest`."
        ) from error


def dumps(entries: Iterable[Entry]) -> str:
    """Serialise a manifest as JSON with one line per image, so that diffs are readable."""
    images = (
        {"class": entry.label, "name": entry.name, "bytes": entry.size, "sha256": entry.sha256}
        for entry in sorted(entries)
    )
    lines = ",\n".join(json.dumps(image, separators=(",", ":")) for image in images)
    return f'{{"images":[\n{lines}\n]}}\n'


def scan(folder: Path) -> tuple[Entry, ...]:
    """Read and hash every image of a folder that holds one folder per class.

    Raises:
        DataError: `folder` is not a folder or holds no images.
    """
    images = [path for paths in list_images(folder).values() for path in paths]
    if not images:
        raise DataError(
            f"{folder} holds no images in folders. Give a folder that holds one folder of images per class, "
            f"such as {folder / 'Ak' / 'Ak (1).png'}."
        )
    return tuple(sorted(_entry(path) for path in progress(images, "Reading images")))


def compare(folder: Path, manifest: Sequence[Entry]) -> Comparison:
    """Compare the images of a folder with a manifest.

    Raises:
        DataError: `folder` is not a folder or holds no images.
    """
    entries = scan(folder)
    matching = set(entries) & set(manifest)
    by_digest = {entry.sha256: entry for entry in entries if entry not in matching}
    places = {entry.place for entry in entries}
    missing: list[Entry] = []
    changed: list[Entry] = []
    misplaced: list[tuple[Entry, Entry]] = []
    renamed: list[tuple[Entry, Entry]] = []
    explained = {entry.place for entry in matching}
    for known in sorted(set(manifest) - matching):
        moved = by_digest.pop(known.sha256, None)
        if moved:
            (renamed if moved.label == known.label else misplaced).append((known, moved))
            explained.add(moved.place)
        elif known.place in places:
            changed.append(known)
            explained.add(known.place)
        else:
            missing.append(known)
    return Comparison(
        matching=tuple(sorted(matching)),
        missing=tuple(missing),
        changed=tuple(changed),
        misplaced=tuple(misplaced),
        renamed=tuple(renamed),
        new=tuple(entry for entry in entries if entry.place not in explained),
    )


def report(comparison: Comparison, names: int = 10) -> str:
    """Format a comparison: a table of counts per class, then at most `names` names of each list."""
    lists = {
        "matching": comparison.matching,
        "missing": comparison.missing,
        "changed": comparison.changed,
        "misplaced": tuple(known for known, _ in comparison.misplaced),
        "renamed": tuple(known for known, _ in comparison.renamed),
        "new": comparison.new,
    }
    labels = sorted({entry.label for entries in lists.values() for entry in entries})
    width = max(map(len, [*labels, "class"]))
    lines = ["  ".join([f"{'class':{width}}", *(f"{title:>9}" for title in lists)])]
    for label in labels:
        counts = (sum(entry.label == label for entry in entries) for entries in lists.values())
        lines.append("  ".join([f"{label:{width}}", *(f"{count:9}" for count in counts)]))
    for title, places in _places(comparison).items():
        lines += _listing(title, places, names)
    return "\n".join([*lines, "", _summary(comparison)])


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(path.parent.name, path.name, path.stat().st_size, digest)


def _places(comparison: Comparison) -> dict[str, list[str]]:
    """Map each heading of the report to the paths listed under it."""
    return {
        "Missing": [entry.place for entry in comparison.missing],
        "Changed (other content than in the manifest)": [entry.place for entry in comparison.changed],
        "Misplaced (in another class's folder)": [
            f"{known.place} is {moved.place}" for known, moved in comparison.misplaced
        ],
        "Renamed": [f"{known.place} is {moved.place}" for known, moved in comparison.renamed],
        "New (not in the manifest)": [entry.place for entry in comparison.new],
    }


def _listing(title: str, places: list[str], names: int) -> list[str]:
    if not places:
        return []
    rest = [f"  and {len(places) - names} more"] if len(places) > names else []
    return ["", f"{title}: {len(places)}", *(f"  {place}" for place in places[:names]), *rest]


def _summary(comparison: Comparison) -> str:
    present = len(comparison.matching) + len(comparison.renamed)
    total = present + len(comparison.missing) + len(comparison.changed) + len(comparison.misplaced)
    new = f" {len(comparison.new)} images are new." if comparison.new else ""
    if comparison.intact:
        return f"All {total} known images are present and unchanged.{new}"
    return f"{present} of {total} known images are present, unchanged and in their class.{new}"
