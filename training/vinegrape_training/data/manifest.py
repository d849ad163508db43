"""The known images of the data set, and how a folder compares with them: digests are committed, images never."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vinegrape_training.errors import ManifestError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

Track = Callable[[Sequence[Path]], Iterable[Path]]


@dataclass(frozen=True, order=True)
class Entry:
    """One image: its class (the folder's name), file name, size in bytes and SHA-256 in hex."""

    label: str
    name: str
    size: int
    sha256: str

    @property
    def place(self) -> str:
        """The image's path in the data set, like "Ak/Ak (1).png"."""
        return f"{self.label}/{self.name}"


@dataclass(frozen=True)
class Comparison:
    """How the images of a folder relate to a manifest; every list is in the order of class and name.

    Attributes:
        matching: in their place with the known content.
        missing: known, and their content is nowhere in the folder.
        changed: something else lies in their place, and their content is nowhere in the folder.
        misplaced: known content in another class's folder, as (known, found): the label would be wrong.
        renamed: known content in its own class's folder under another name, as (known, found).
        new: found, and not known.
    """

    matching: tuple[Entry, ...]
    missing: tuple[Entry, ...]
    changed: tuple[Entry, ...]
    misplaced: tuple[tuple[Entry, Entry], ...]
    renamed: tuple[tuple[Entry, Entry], ...]
    new: tuple[Entry, ...]

    @property
    def intact(self) -> bool:
        """Whether every known image is there, unchanged and in its class."""
        return not (self.missing or self.changed or self.misplaced)


def load_manifest() -> tuple[Entry, ...]:
    """Read the committed manifest, which the package carries."""
    return loads(resources.files("vinegrape_training.data").joinpath("manifest.json").read_text("utf-8"))


def class_names() -> tuple[str, ...]:
    """The classes of the committed manifest, sorted."""
    return tuple(sorted({entry.label for entry in load_manifest()}))


def loads(text: str) -> tuple[Entry, ...]:
    """Read a manifest that `dumps` wrote; `ManifestError` if it is anything else."""
    try:
        images = json.loads(text)["images"]
        return tuple(Entry(image["class"], image["name"], image["bytes"], image["sha256"]) for image in images)
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"The manifest cannot be read: {error!r}. Write it with `vinegrape data manifest`."
        ) from error


def dumps(entries: Iterable[Entry]) -> str:
    """Write a manifest as JSON, one line an image, so that a change reads well in a diff."""
    images = (
        {"class": entry.label, "name": entry.name, "bytes": entry.size, "sha256": entry.sha256}
        for entry in sorted(entries)
    )
    lines = ",\n".join(json.dumps(image, separators=(",", ":")) for image in images)
    return f'{{"images":[\n{lines}\n]}}\n'


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image, and not a hidden one such as an unpacker leaves behind."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def find_images(folder: Path) -> list[Path]:
    """List the images of a folder a class, sorted by class and name.

    Raises:
        ManifestError: `folder` is not a folder, or no folder in it holds an image.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder} is not a folder. Get the data set with `vinegrape data fetch --to {folder}`.")
    images = sorted(path for path in folder.glob("[!.]*/*") if is_image(path))
    if not images:
        raise ManifestError(
            f"{folder} holds no images in folders. Give the folder that has one folder a class in it, "
            f"like {folder / 'Ak' / 'Ak (1).png'}."
        )
    return images


def scan(folder: Path, track: Track = iter) -> tuple[Entry, ...]:
    """Read and digest every image of a folder a class.

    Args:
        folder: see `find_images`, whose error it raises.
        track: goes through the paths that it is given; a progress bar fits here.
    """
    return tuple(sorted(_entry(path) for path in track(find_images(folder))))


def compare(folder: Path, manifest: Sequence[Entry], track: Track = iter) -> Comparison:
    """Compare a folder a class with a manifest; arguments as of `scan`."""
    found = scan(folder, track)
    matching = set(found) & set(manifest)
    by_digest = {entry.sha256: entry for entry in found if entry not in matching}
    taken = {entry.place for entry in found}
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
        elif known.place in taken:
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
        new=tuple(entry for entry in found if entry.place not in explained),
    )


def report(comparison: Comparison, names: int = 10) -> str:
    """Describe a comparison for a person: a table of counts a class, then at most `names` names of each list."""
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
    return "\n".join([*lines, "", _verdict(comparison)])


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(path.parent.name, path.name, path.stat().st_size, digest)


def _places(comparison: Comparison) -> dict[str, list[str]]:
    """What the report lists by name, under its heading."""
    return {
        "Missing": [entry.place for entry in comparison.missing],
        "Changed (not the known content)": [entry.place for entry in comparison.changed],
        "Misplaced (in another class's folder)": [
            f"{known.place} is {found.place}" for known, found in comparison.misplaced
        ],
        "Renamed": [f"{known.place} is {found.place}" for known, found in comparison.renamed],
        "New (not in the manifest)": [entry.place for entry in comparison.new],
    }


def _listing(title: str, places: list[str], names: int) -> list[str]:
    if not places:
        return []
    rest = [f"  and {len(places) - names} more"] if len(places) > names else []
    return ["", f"{title}: {len(places)}", *(f"  {place}" for place in places[:names]), *rest]


def _verdict(comparison: Comparison) -> str:
    present = len(comparison.matching) + len(comparison.renamed)
    total = present + len(comparison.missing) + len(comparison.changed) + len(comparison.misplaced)
    new = f" {len(comparison.new)} more are new." if comparison.new else ""
    if comparison.intact:
        return f"All {total} known images are there, unchanged.{new}"
    return f"{present} of {total} known images are as they should be.{new}"
