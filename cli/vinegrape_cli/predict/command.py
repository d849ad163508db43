"""`vinegrape predict`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from vinegrape_cli.predict.files import find_files
from vinegrape_cli.predict.local_model import predict_files
from vinegrape_cli.predict.options import archive_option, concurrency_option, paths_argument
from vinegrape_cli.predict.rows import FORMATS, Writer, resume, row_of
from vinegrape_client import Client
from vinegrape_client.errors import ConnectionFailed, Forbidden, MethodNotAllowed, NotFound, Unauthorized

# Every further image would get the same error
_FATAL = (ConnectionFailed, Forbidden, MethodNotAllowed, NotFound, Unauthorized)


@click.command()
@paths_argument
@click.option("--server", metavar="URL", help="server to use, such as http://HOST:8080 or grpcs://HOST:8000")
@archive_option("archive to use without --server; one process per core classifies")
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), help="output format [default: of --output, else table]"
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="file (.csv or .jsonl) for the rows")
@click.option("--top-k", type=click.IntRange(min=1), help="classes per image, the most probable first [default: all]")
@concurrency_option
@click.option("--timeout-s", type=float, default=60.0, show_default=True, help="seconds per image, with all retries")
@click.option(
    "--api-key", envvar="VINEGRAPE_API_KEY", show_envvar=True, help="API key; the variable hides it from other users"
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file of the authority that has signed the server's certificate",
)
@click.pass_context
def predict(
    ctx: click.Context,
    paths: tuple[Path, ...],
    server: str | None,
    archive: Path,
    format_: str | None,
    output: Path | None,
    top_k: int | None,
    concurrency: int,
    timeout_s: float,
    api_key: str | None,
    ca_file: Path | None,
) -> None:
    """Classify images, and all files in folders, with a server or with an archive.

    Each file gets one row, in order. A file that is not an image gets a row with an error. Hidden files in folders are
    left out.

    With --output, an interrupted command can be run again: it skips each path that the file has a result for, and
    tries those again that failed because of the server.

    The exit code is 0 if all images were classified, 1 if some were not, and 2 if the command is wrong.

    \b
    Examples:
        vinegrape predict photo.jpg
        vinegrape predict photo.jpg folder/ --top-k 2
        vinegrape predict folder/ --output results.csv
        vinegrape predict folder/ --server http://127.0.0.1:8080 --format jsonl | jq .label
        VINEGRAPE_API_KEY=... vinegrape predict folder/ --server https://HOST --output results.jsonl
    """
    format_ = _choose_format(format_, output)
    files = [file for file in find_files(paths) if output is None or Path(file).absolute() != output.absolute()]
    done = resume(output, format_) if output else set()
    images = [file for file in files if file not in done]
    writer = Writer(format_, max(map(len, images), default=0))
    failed = 0
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(output.open("a")) if output else sys.stdout
        if not output:
            rows.write(writer.header())
        bar = stack.enter_context(
            click.progressbar(length=len(images), file=sys.stderr, hidden=not _shows_progress(output))
        )
        if server is None:
            results = predict_files(archive, images, concurrency)
        else:
            client = stack.enter_context(_connect(server, api_key, ca_file, timeout_s))
            results = client.predict_many(images, concurrency=concurrency)
        for result in stack.enter_context(contextlib.closing(results)):
            if isinstance(result.error, _FATAL):
                raise click.ClickException(str(result.error))
            failed += result.error is not None
            rows.write(writer.line(row_of(result, top_k)))
            rows.flush()  # an interrupted command loses no row
            bar.update(1)
    skipped = f", {len(files) - len(images)} skipped" if output else ""
    click.echo(f"{len(images) - failed} classified, {failed} failed{skipped}", err=True)
    ctx.exit(1 if failed else 0)


def _shows_progress(output: Path | None) -> bool:
    """Return whether to draw a progress bar. On a terminal that shows the rows, they are the progress."""
    return sys.stderr.isatty() and not (output is None and sys.stdout.isatty())


def _choose_format(format_: str | None, output: Path | None) -> str:
    """Return the format of the rows.

    Raises:
        UsageError: the output file has no format that can be continued.
    """
    if output is None:
        return format_ or "table"
    format_ = format_ or output.suffix.removeprefix(".").lower()
    if format_ not in ("csv", "jsonl"):
        raise click.UsageError(
            f"The format of {output} must be csv or jsonl: only they can be continued. Name the file *.csv or *.jsonl, "
            "or set --format."
        )
    return format_


def _connect(server: str, api_key: str | None, ca_file: Path | None, timeout_s: float) -> Client:
    try:
        return Client(server, api_key=api_key, ca_file=ca_file, timeout_s=timeout_s)
    except (ValueError, OSError) as error:  # OSError: ca_file holds no certificate
        raise click.UsageError(str(error)) from error
