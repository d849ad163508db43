"""Bodies that are forms or JSON and cost a parser memory or time."""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image

from vinegrape_loadtests.chaos.sockets import post
from vinegrape_loadtests.chaos.target import JAVA
from vinegrape_loadtests.chaos.trial import Trial

_MB = 1_000_000
_MULTIPART = "multipart/form-data; boundary=b"
_URLENCODED = "application/x-www-form-urlencoded"
_REFUSED = {"400", "413", "415"}


def broken_forms(trial: Trial) -> None:
    """Send forms with an unknown charset, then uploads that need as much memory as the server has left."""
    part = b'--b\r\nContent-Disposition: form-data; name="data"\r\nContent-Type: text/plain; charset=nope\r\n\r\n'
    body = part + bytes(14 * _MB) + b"\r\n--b--\r\n"
    # Without the edge, TorchServe itself parses the form and reports its failure as 500
    expected = _REFUSED if trial.edge else {*_REFUSED, "500"}
    for _ in range(trial.count(4, 40)):
        response, _ = post(trial.target.rest, body, _MULTIPART)
        trial.expect(response.outcome, expected, "form")
    upload = _bmp(9 * _MB)
    for _ in range(trial.count(2, 12)):
        response, _ = post(trial.target.rest, upload)
        trial.expect(response.outcome, {"200"}, "upload of 9 MB")
    _note_java(trial)


def many_fields(trial: Trial) -> None:
    """Send forms of millions of fields and parts."""
    size = trial.count(1, 15) * _MB
    names = b"&".join(b"%x=" % number for number in range(size // 8))
    part = b'--b\r\nContent-Disposition: form-data; name="%x"\r\n\r\n\r\n'
    parts = b"".join(part % number for number in range(size // 64)) + b"--b--\r\n"
    _send_all(
        trial,
        {
            "a&a&a&...": (b"a&" * (size // 2), _URLENCODED),
            "names that differ": (names, _URLENCODED),
            "parts that differ": (parts, _MULTIPART),
        },
    )
    _note_java(trial)


def json_bodies(trial: Trial) -> None:
    """Send JSON that takes much more memory as objects than as text, or is nested deeply."""
    size = trial.count(1, 28) * _MB
    _send_all(
        trial,
        {
            "[[[]],...": (b'{"a":[' + b"[[]]," * (size // 5) + b"0]}", "application/json"),
            "[[],{},...": (b"[" + b"[],{}," * (size // 6) + b"0]", "application/json"),
            "instances []": (b'{"instances":[' + b"[]," * (size // 3) + b"0]}", "application/json"),
            "nested": (b"[" * (size // 2) + b"]" * (size // 2), "application/json"),
            "digits": (b'{"instances":[' + b"9" * size + b"]}", "application/json"),
        },
    )


def _send_all(trial: Trial, bodies: Mapping[str, tuple[bytes, str]]) -> None:
    slowest = 0.0
    for name, (body, content_type) in bodies.items():
        response, seconds = post(trial.target.rest, body, content_type)
        trial.expect(response.outcome, {*_REFUSED, "422"}, name)
        slowest = max(slowest, seconds)
    trial.note(f"slowest of them {slowest:.1f} s")
    trial.require(slowest <= 5, f"one took {slowest:.1f} s, 5 allowed")


def _bmp(size: int) -> bytes:
    """Return a valid BMP of about this many bytes, which compresses no pixel."""
    side = int((size / 3) ** 0.5)
    out = io.BytesIO()
    Image.new("RGB", (side, side), (40, 90, 40)).save(out, "BMP")
    return out.getvalue()


def _note_java(trial: Trial) -> None:
    trial.note(f"Java now {trial.target.resident_mib().get(JAVA, 0):.0f} MiB")
