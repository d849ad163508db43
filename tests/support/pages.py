"""Read README.md and the pages of docs/: their code blocks, links and commands."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(\w+) ?(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced code block.

    Attributes:
        language: the first word after the fence, such as "sh".
        tag: the second word, if any. "live": run against a server. "steps": run in order.
        text: the lines between the fences.
        shown: the text of the JSON block that follows a shell block and shows its output; empty if there is none.
    """

    language: str
    tag: str
    text: str
    shown: str = ""


def blocks(page: Path, until: str | None = None) -> list[Block]:
    """The code blocks of a page, in order, up to the heading `until`."""
    text = page.read_text()
    if until is not None:
        text, heading, _ = text.partition(f"\n## {until}\n")
        assert heading, f"{page} has no heading {until!r}"
    matches = list(_BLOCK.finditer(text))
    result = []
    for match, following in zip(matches, [*matches[1:], None], strict=False):
        shown = following[3] if following and following[1] == "json" else ""
        result.append(Block(*match.groups(), shown if match[1] == "sh" else ""))
    return result


def commands(page: Path, program: str) -> list[str]:
    """The arguments of each call of a program on a page: in sh blocks, and in code spans of the text."""
    text = page.read_text()
    lines = [line for block in blocks(page) if block.language == "sh" for line in _joined(block.text)]
    lines += re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))
    calls = re.compile(rf"(?:^|[;&|(] ?|bin/|until ){program} ([^;|&]+)")
    return [match[1] for line in lines if (match := calls.search(line.partition("  #")[0]))]


def _joined(text: str) -> list[str]:
    """Lines, with those that end in a backslash joined to the next."""
    return text.replace("\\\n", " ").splitlines()


def links(page: Path) -> list[str]:
    """The relative links of a page, without a part after "#"."""
    return re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())


def anchors(page: Path) -> list[tuple[Path, str]]:
    """The page and the heading's anchor of each link that has one."""
    return [
        (page.parent / path if path else page, anchor)
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text())
    ]


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
