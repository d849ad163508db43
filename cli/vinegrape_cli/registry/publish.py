"""`vinegrape publish`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vinegrape_cli.registry.errors import RegistryError
from vinegrape_cli.registry.registry import DEFAULT_CHANNEL, Registry, archive_file
from vinegrape_handler.metadata import Metadata
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_training.files import CARD_FILE, REPORT_FILE

SBOM_FILE = "sbom.cdx.json"

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("archive", type=_FILE)
@click.argument("destination", metavar="DEST")
@click.option("--channel", default=DEFAULT_CHANNEL, show_default=True, help="channel that will name this version")
@click.option(
    "--evaluation",
    type=_FILE,
    help=f"{REPORT_FILE} of the recipe  [default: beside ARCHIVE, if there is one]",
)
def publish(archive: Path, destination: str, channel: str, evaluation: Path | None) -> None:
    """Add ARCHIVE to DEST, a folder or a bucket such as gs://BUCKET/models, and let a channel name its version.

    A version consists of the archive, the model card beside it, the evaluation, a list of what the archive contains
    and needs (an SBOM in CycloneDX's format), and the digests of these files. It never changes: if DEST has it already
    with the same files, only the channel is written. So the same command moves a version from one channel to another.

    \b
    Layout of DEST:
        NAME/versions/VERSION/NAME.mar, MODEL_CARD.md, evaluation.json, sbom.cdx.json, SHA256SUMS
        NAME/channels/CHANNEL.json

    Google Cloud Storage needs the package gcsfs, S3 needs s3fs.

    \b
    Examples:
        vinegrape publish model_store/vinegrape.mar /srv/models --evaluation docs/model/evaluation.json
        vinegrape publish /tmp/store/vinegrape.mar gs://BUCKET/models --channel candidate
    """
    info = ArchiveInfo.read(archive)
    registry = Registry(destination)
    files = {archive_file(info.metadata.name): archive.read_bytes()}
    card = archive.with_name(CARD_FILE)
    if card.is_file():
        files[CARD_FILE] = _checked_card(card, info.metadata)
    beside = archive.with_name(REPORT_FILE)
    if evaluation or beside.is_file():
        files[REPORT_FILE] = _checked_evaluation(evaluation or beside, info.metadata)

    def more() -> dict[str, bytes]:
        from vinegrape_cli.registry.sbom import make_sbom

        if CARD_FILE not in files:
            raise RegistryError(f"{card} does not exist. `vinegrape archive` writes the archive with its card: run it.")
        return {SBOM_FILE: make_sbom(info)}

    release, is_new = registry.publish(info.metadata.name, info.metadata.version, files, more)
    registry.set_channel(channel, release)
    new = "published" if is_new else "was there already"
    click.echo(f"{registry.location}: {release.name} {release.version} {new}; channel {channel} names it.")
    click.echo(f"Next: vinegrape fetch {registry.location} --channel {channel}")


def _checked_card(path: Path, metadata: Metadata) -> bytes:
    """Read a model card.

    Raises:
        RegistryError: it describes another version.
    """
    content = path.read_bytes()
    title = f"# {metadata.name} {metadata.version}"
    if title not in content.decode(errors="replace").splitlines():
        raise RegistryError(
            f"{path} does not have the title {title!r}: it describes another archive. `vinegrape archive` writes the "
            "archive with its card: run it again."
        )
    return content


def _checked_evaluation(path: Path, metadata: Metadata) -> bytes:
    """Read a report of `vinegrape evaluate`.

    Raises:
        RegistryError: it is no report, or evaluates other images than those of the model.
    """
    try:
        content = path.read_bytes()
        digest = json.loads(content)["data_digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{path} is not a report of `vinegrape evaluate`: {error!r}.") from error
    if digest != metadata.data_digest:
        raise RegistryError(
            f"{path} evaluates images with the digest {digest}, and {metadata.name} {metadata.version} was trained on "
            f"images with the digest {metadata.data_digest}. Give the evaluation of this model."
        )
    return content
