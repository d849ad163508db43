"""`vinegrape fetch`."""

from __future__ import annotations

from pathlib import Path

import click

from vinegrape_cli.registry.registry import DEFAULT_CHANNEL, Registry, archive_file, sha256_of
from vinegrape_cli.registry.storage import write_file
from vinegrape_client.options import Options


@click.command()
@click.argument("source")
@click.option("--channel", default=DEFAULT_CHANNEL, show_default=True, help="channel that names the version")
@click.option("--version", help="version to fetch instead of that of a channel")
@click.option("--name", default=Options.model, show_default=True, help="name of the model")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="file to write  [default: NAME.mar]"
)
def fetch(source: str, channel: str, version: str | None, name: str, output: Path | None) -> None:
    """Fetch an archive from SOURCE, a folder or bucket that `vinegrape publish` has written to.

    The file is written only if its SHA-256 digest is the published one. If the file is there already, nothing is read
    but the channel. Google Cloud Storage needs the package gcsfs, S3 needs s3fs.

    \b
    Examples:
        vinegrape fetch /srv/models
        vinegrape fetch gs://BUCKET/models --channel candidate -o /tmp/vinegrape.mar
        vinegrape fetch gs://BUCKET/models --version c41d0fab0f1a
    """
    registry = Registry(source)
    if version is None:
        release = registry.release_of_channel(name, channel)
    else:
        release = registry.release_of_version(name, version)
    file = archive_file(name)
    output = output or Path(file)
    if output.is_file() and sha256_of(output.read_bytes()) == release.sha256.get(file):
        click.echo(f"{output} is {name} {release.version} already.")
    else:
        content = registry.read(release, file)
        write_file(output, content)
        click.echo(f"{output}: {name} {release.version}, {len(content) / 1e6:.1f} MB")
    click.echo(f"Next: vinegrape serve --archive {output}")
