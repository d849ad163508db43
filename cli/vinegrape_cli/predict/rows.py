"""The output of `vinegrape predict`: one row per image, as a table, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from vinegrape_client import Result, VinegrapeError

FORMATS = ("table", "jsonl", "csv")
COLUMNS = (
    "path", "label", "probability", "known", "ood_score", "probabilities", "model_version", "code", "error", "message",
)  # fmt: skip

_TABLE_CLASSES = 3
_UNKNOWN = "(unknown)"
_TEMPORARY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def row_of(result: Result, top_k: int | None) -> dict[str, Any]:
    """Return the row of one result: the path, and the body of the server's response.

    Args:
        result: the result; its image is a path.
        top_k: how many classes to keep in `probabilities`, most probable first; all, in the model's order, if None.
    """
    path = os.fspath(result.image)  # type: ignore[arg-type]
    if result.prediction:
        body = result.prediction.to_json()
        if top_k is not None:
            ranked = sorted(body["probabilities"].items(), key=lambda pair: -pair[1])
            body["probabilities"] = dict(ranked[:top_k])
        return {"path": path, **body}
    if isinstance(result.error, VinegrapeError):
        return {"path": path, **result.error.to_json()}
    reason = getattr(result.error, "strerror", None) or str(result.error)
    return {"path": path, "error": {"code": 0, "type": "unreadable", "message": f"The file cannot be read: {reason}"}}


class Writer:
    """Formats rows.

    Args:
        format_: one of FORMATS.
        width: characters of the longest path, for a table.
    """

    def __init__(self, format_: str, width: int = 0) -> None:
        self._format = format_
        self._width = width

    def header(self) -> str:
        """Return the text before the first row."""
        return _csv_line(COLUMNS) if self._format == "csv" else ""

    def line(self, row: dict[str, Any]) -> str:
        """Return a row as text, with its line break."""
        match self._format:
            case "csv":
                return _csv_line(_cells(row))
            case "jsonl":
                return json.dumps(row, ensure_ascii=False) + "\n"
            case _:
                return f"{row['path']:{self._width}}  {_summary(row)}\n"


def resume(path: Path, format_: str) -> set[str]:
    """Prepare an output file for more rows, and return the paths of the images that it has a result for.

    Rows of images that failed for a temporary reason, and a row that is incomplete, are removed.

    Raises:
        UsageError: the file is not the output of `vinegrape predict` in this format.
    """
    if not path.exists() or not path.stat().st_size:
        path.write_text(Writer(format_).header())
        return set()
    try:
        text = path.read_text()
        lines = _csv_rows(text) if format_ == "csv" else _json_rows(text)
        kept = {name: line for name, code, line in lines if not _is_temporary(code)}
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        raise click.UsageError(
            f"{path} is not an output of `vinegrape predict --format {format_}` and is left as it is ({error}). Choose "
            "another --output."
        ) from error
    replacement = path.with_name(f"{path.name}.tmp")
    replacement.write_text(Writer(format_).header() + "".join(kept.values()))
    replacement.replace(path)
    return set(kept)


def _is_temporary(code: int | None) -> bool:
    """Return whether an image with this error may be classified later; None stands for no error."""
    return code is not None and (code == 0 or code in _TEMPORARY or code >= HTTPStatus.INTERNAL_SERVER_ERROR)


def _csv_rows(text: str) -> Iterable[tuple[str, int | None, str]]:
    reader = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    if tuple(next(reader, ())) != COLUMNS:
        raise ValueError(f"its first line is not {','.join(COLUMNS)}")
    for cells in reader:
        if len(cells) == len(COLUMNS):
            code = cells[COLUMNS.index("code")]
            yield cells[0], int(code) if code else None, _csv_line(cells)


def _json_rows(text: str) -> Iterable[tuple[str, int | None, str]]:
    for line in text[: text.rfind("\n") + 1].splitlines(keepends=True):
        row = json.loads(line)
        yield row["path"], row["error"]["code"] if "error" in row else None, line


def _csv_line(cells: Iterable[Any]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cells(row: dict[str, Any]) -> list[Any]:
    if "error" in row:
        error = row["error"]
        return [row["path"], *[""] * 6, error["code"], error["type"], error["message"]]
    values = [row["label"], row["probability"], row.get("known"), row.get("ood_score")]
    return [row["path"], *values, json.dumps(row["probabilities"]), row["model"]["version"], "", "", ""]


def _summary(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"error {row['error']['type']}: {row['error']['message']}"
    ranked = sorted(row["probabilities"].items(), key=lambda pair: -pair[1])
    classes = ", ".join(f"{name} {probability:.3f}" for name, probability in ranked[:_TABLE_CLASSES])
    return f"{row['label'] or _UNKNOWN:10}  {classes}"
