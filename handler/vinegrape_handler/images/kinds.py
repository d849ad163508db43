"""Name what bytes are that are not an image in a supported format."""

from __future__ import annotations

import re

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

# What a file starts with, and what it is. From the formats' specifications, and the IANA media types
_SIGNATURES = (
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"II\xbc", "a JPEG XR image"),
    (b"8BPS", "a Photoshop document"),
    (b"gimp xcf", "a GIMP document"),
    (b"\0\0\1\0", "a Windows icon (ICO)"),
    (b"\0\0\2\0", "a Windows cursor (CUR)"),
    (b"icns", "an Apple icon (ICNS)"),
    (b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (b"\x8bJNG\r\n\x1a\n", "a JNG image"),
    (b"BPG\xfb", "a BPG image"),
    (b"FLIF", "an FLIF image"),
    (b"qoif", "a QOI image"),
    (b"DDS ", "a DDS texture"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"#?RGBE", "a Radiance HDR image"),
    (b"SIMPLE  =", "an FITS image"),
    (b"IIRO", "a camera raw image"),
    (b"IIRS", "a camera raw image"),
    (b"MMOR", "a camera raw image"),
    (b"IIU\0", "a camera raw image"),
    (b"FUJIFILMCCD-RAW", "a camera raw image"),
    (b"FOVb", "a camera raw image"),
    (b"\0MRM", "a camera raw image"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)"),
    (b"\x1a\x45\xdf\xa3", "a WebM or Matroska video"),
    (b"FLV\x01", "an FLV video"),
    (b"OggS", "an Ogg file"),
    (b"\0\0\1\xba", "an MPEG video"),
    (b"\0\0\1\xb3", "an MPEG video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    (b"ID3", "an MP3 file"),
    (b"fLaC", "an FLAC file"),
    (b"%!PS", "a PostScript document"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Microsoft Office document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "an RAR archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
_RIFF = {b"AVI ": "an AVI video", b"WAVE": "a WAV file", b"ACON": "an animated Windows cursor"}

# The major brand of ISO/IEC 14496-12 files. HEIF files of other brands than these carry mif1 or msf1
_BRANDS = {
    b"avif": "an AVIF image",
    b"avis": "an AVIF image",
    b"heic": "an HEIC image",
    b"heix": "an HEIC image",
    b"heim": "an HEIC image",
    b"heis": "an HEIC image",
    b"hevc": "an HEIC image",
    b"hevx": "an HEIC image",
    b"mif1": "an HEIF image",
    b"msf1": "an HEIF image",
    b"crx ": "a camera raw image",
    b"qt  ": "a QuickTime video",
    b"jp2 ": "a JPEG 2000 image",
}
_BRANDED_FIRST = (b"avif", b"avis", b"heic", b"heix")  # they say more than mif1
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip")

_PNM = re.compile(rb"P[1-7][\s#]")
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body|script|title)\b", re.IGNORECASE | re.DOTALL)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
_HEAD_BYTES = 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def unsupported(kind: str) -> str:
    """Return the message for an image of a kind that is not supported; kind has its article."""
    return f"This is {kind}. Send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}."


def name_kind(data: bytes) -> str:
    """Return what kind of file these bytes are, for example "a GIF image"; empty if it is not known.

    Only the first 1024 bytes are read. Formats that `decode` supports are not among the kinds.
    """
    head = data[:_HEAD_BYTES]
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[4:8] == b"ftyp":
        return _name_iso_media(head)
    if head[4:8] in _OLD_QUICKTIME and head[0] == 0:  # after a size
        return "a QuickTime video"
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "")
    if head[128:132] == b"DICM":
        return "a DICOM image"
    if b"%PDF-" in head:
        return "a PDF document"
    if _PNM.match(head):
        return "a PNM image"
    return _name_text(head)


def _name_iso_media(head: bytes) -> str:
    brand = head[8:12]
    if brand in (b"mif1", b"msf1", b"miaf"):
        others = head[16 : int.from_bytes(head[:4], "big")]
        compatible = {others[at : at + 4] for at in range(0, len(others), 4)}
        brand = next((first for first in _BRANDED_FIRST if first in compatible), brand)
    return _BRANDS.get(brand, "an MP4 video")


def _name_text(head: bytes) -> str:
    """Name a text in UTF-8."""
    head = head.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not only the last character, which is cut
            return ""
        text = head[: error.start].decode()
    if not text.strip() or not all(character.isprintable() or character in "\t\n\r\f" for character in text):
        return ""
    plain = text.lstrip().encode()
    if _HTML.match(plain):
        return "an HTML page"
    if _SVG.search(plain) and plain.startswith(b"<"):
        return "an SVG image"
    if plain.startswith(b"<?xml"):
        return "an XML document"
    return "text"
