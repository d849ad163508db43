"""Changes of an image file: of its bytes, and of its parts and numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vinegrape_loadtests.fuzz.structure import (
    mend_checksums,
    read_structure,
    signature_bytes,
    with_number,
)

_LARGEST = 1 << 17  # bytes; a changed file is cut to this length
_MOST_CHANGES = 4
_EXTREMES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, -8)
_LONGEST_PIECE = 16


@dataclass(frozen=True)
class Change:
    """One change of a file.

    Attributes:
        kind: a key of `KINDS`.
        place: where it is, from 0 (the start) to 1.
        other: a second place, or a share, from 0 to 1.
        value: any number from 0 to 2^32 - 1.
    """

    kind: str
    place: float
    other: float
    value: int


def apply(data: bytes, changes: Sequence[Change], donor: bytes = b"") -> bytes:
    """Apply changes one after the other.

    Args:
        data: a file.
        changes: what is changed.
        donor: another file, from which parts may be taken.
    """
    for change in changes:
        data = KINDS[change.kind](data, change, donor)[:_LARGEST]
    return data


def random_changes(rng: random.Random) -> list[Change]:
    """Return one to four changes, more often near the start of the file."""
    return [
        Change(rng.choice(tuple(KINDS)), rng.random() ** rng.choice((1, 3)), rng.random(), rng.getrandbits(32))
        for _ in range(rng.randint(1, _MOST_CHANGES))
    ]


def destroyed_headers(data: bytes) -> Iterator[bytes]:
    """Yield files without a signature, and with sizes that no image has: none of them is an image."""
    length = signature_bytes(data)
    yield bytes(length) + data[length:]
    yield bytes(byte ^ 0xFF for byte in data[:length]) + data[length:]
    sides = [number for number in read_structure(data).numbers if number.is_side]
    # All bits are set: too many pixels. WebP stores sides in 14 bits, and in lossless files the side minus 1
    for value in (0, -1) if not data.startswith(b"RIFF") else (-1,):
        changed = data
        for number in sides:
            changed = with_number(changed, number, value)
        if sides:
            yield mend_checksums(changed)


def _piece(data: bytes, change: Change) -> slice:
    start = int(len(data) * min(change.place, 0.999999))
    return slice(start, min(len(data), start + 1 + change.value % _LONGEST_PIECE))


def _set_bytes(data: bytes, change: Change, _donor: bytes) -> bytes:
    piece = _piece(data, change)
    new = random.Random(change.value).randbytes(len(data[piece]))  # noqa: S311
    return data[: piece.start] + new + data[piece.stop :]


def _fill(data: bytes, change: Change, _donor: bytes) -> bytes:
    piece = _piece(data, change)
    value = (0, 1, 0x7F, 0x80, 0xFF)[int(4.999 * change.other)]
    return data[: piece.start] + bytes([value]) * len(data[piece]) + data[piece.stop :]


def _flip_bit(data: bytes, change: Change, _donor: bytes) -> bytes:
    at = _piece(data, change).start
    return data[:at] + bytes(byte ^ 1 << change.value % 8 for byte in data[at : at + 1]) + data[at + 1 :]


def _remove(data: bytes, change: Change, _donor: bytes) -> bytes:
    piece = _piece(data, change)
    return data[: piece.start] + data[piece.stop :]


def _repeat(data: bytes, change: Change, _donor: bytes) -> bytes:
    piece = _piece(data, change)
    return data[: piece.stop] + data[piece] * (1 + int(40 * change.other)) + data[piece.stop :]


def _cut(data: bytes, change: Change, _donor: bytes) -> bytes:
    return data[: int(len(data) * change.place)]


def _splice(data: bytes, change: Change, donor: bytes) -> bytes:
    return data[: int(len(data) * change.place)] + donor[int(len(donor) * change.other) :]


def _set_number(data: bytes, change: Change, _donor: bytes) -> bytes:
    numbers = read_structure(data).numbers
    if not numbers:
        return data
    number = numbers[int(len(numbers) * min(change.place, 0.999999))]
    old = int.from_bytes(data[number.at : number.at + number.size], number.order)
    near = (old + 1, old - 1, 2 * old, old // 2, 16 * old)
    values = (*_EXTREMES, *near, change.value)
    return mend_checksums(with_number(data, number, values[change.value % len(values)]))


def _repeat_part(data: bytes, change: Change, _donor: bytes) -> bytes:
    parts = read_structure(data).parts
    if not parts:
        return data
    part = parts[change.value % len(parts)]
    at = parts[int(len(parts) * min(change.place, 0.999999))].start
    return data[:at] + data[part] * (1 + int(40 * change.other**4)) + data[at:]


def _remove_part(data: bytes, change: Change, _donor: bytes) -> bytes:
    parts = read_structure(data).parts
    if not parts:
        return data
    part = parts[change.value % len(parts)]
    return data[: part.start] + data[part.stop :]


def _overwrite_part(data: bytes, change: Change, donor: bytes) -> bytes:
    """Put a part of this file, or of another one, in place of a part."""
    parts, others = read_structure(data).parts, read_structure(donor).parts
    if not parts:
        return data
    part = parts[int(len(parts) * min(change.place, 0.999999))]
    source = donor if others and change.other < 0.5 else data
    new = (others if source is donor else parts)[change.value % len(others if source is donor else parts)]
    return data[: part.start] + source[new] + data[part.stop :]


def _mend(data: bytes, _change: Change, _donor: bytes) -> bytes:
    return mend_checksums(data)


KINDS: dict[str, Callable[[bytes, Change, bytes], bytes]] = {
    "set bytes": _set_bytes,
    "fill": _fill,
    "flip a bit": _flip_bit,
    "remove": _remove,
    "repeat": _repeat,
    "cut": _cut,
    "splice": _splice,
    "set a number": _set_number,
    "repeat a part": _repeat_part,
    "remove a part": _remove_part,
    "overwrite a part": _overwrite_part,
    "mend checksums": _mend,
}
