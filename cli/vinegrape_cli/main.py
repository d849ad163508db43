"""The command `vinegrape`: the table of its subcommands, and how errors are printed."""

from __future__ import annotations

import sys

import click

from vinegrape_cli.lazy_group import LazyCommand, LazyGroup
from vinegrape_handler.errors import VinegrapeError
from vinegrape_server.host.log import log

_TRAINING = "vinegrape_training.commands"

COMMANDS = {
    "serve": LazyCommand("vinegrape_cli.serve:serve", "Serve a model archive over REST and gRPC."),
    "ready": LazyCommand("vinegrape_cli.serve:ready", "Check that the server on this machine accepts requests."),
    "models": LazyCommand("vinegrape_cli.models:models", "Show and replace the model of a running server."),
    "predict": LazyCommand("vinegrape_cli.predict.command:predict", "Classify files and folders."),
    "drift": LazyCommand("vinegrape_cli.drift.command:drift", "Compare images with a model's reference.", "train"),
    "data": LazyCommand(f"{_TRAINING}.data:data", "Download, check, describe, draw or shard leaf images.", "train"),
    "train": LazyCommand(f"{_TRAINING}.model:train", "Train a model on a folder of images.", "train"),
    "evaluate": LazyCommand(f"{_TRAINING}.model:evaluate", "Cross-validate a training recipe.", "train"),
    "tune": LazyCommand(f"{_TRAINING}.model:tune", "Search for better training settings.", "train"),
    "compare": LazyCommand(f"{_TRAINING}.model:compare", "Compare the results of several evaluations.", "train"),
    "robustness": LazyCommand(f"{_TRAINING}.model:robustness", "Measure a model on corrupted images.", "train"),
    "export": LazyCommand(f"{_TRAINING}.model:export", "Export a trained model to ONNX and TorchScript.", "train"),
    "archive": LazyCommand(f"{_TRAINING}.model:archive", "Pack an exported model into an archive.", "train"),
    "publish": LazyCommand("vinegrape_cli.registry.publish:publish", "Add an archive to a registry.", "train"),
    "fetch": LazyCommand("vinegrape_cli.registry.fetch:fetch", "Fetch an archive from a registry."),
    "explanations": LazyCommand(
        f"{_TRAINING}.explanations:explanations", "Measure whether the heat maps look at the leaves.", "train"
    ),
    "loadtest": LazyCommand("vinegrape_loadtests.local_run:loadtest", "Run a short load test.", "loadtest"),
    "chaos": LazyCommand("vinegrape_loadtests.chaos.command:chaos", "Try faults on a server, and check every answer."),
    "fuzz": LazyCommand(
        "vinegrape_loadtests.fuzz.command:fuzz", "Change images at random, and check every answer.", "train"
    ),
    "bench": LazyCommand("vinegrape_loadtests.bench.command:bench", "Measure speed, memory and start.", "train,bench"),
}


@click.group(
    cls=LazyGroup,
    lazy_commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="vinegrape")
def vinegrape() -> None:
    """Identify the grapevine variety on the photo of a leaf.

    \b
    Serve an archive:            vinegrape serve
    Replace the served model:    vinegrape models
    Classify files and folders:  vinegrape predict
    Compare images:              vinegrape drift
    Download or draw images:     vinegrape data --help
    From images to an archive:   vinegrape train, tune, evaluate, compare, robustness, export, archive
    Share archives:              vinegrape publish, fetch
    Load or measure a server:    vinegrape loadtest, bench, chaos, fuzz
    """


def main() -> None:
    """Run the command line. Print an error of this project as one line, and exit with code 1."""
    try:
        vinegrape()
    except VinegrapeError as error:
        log(str(error), "ERROR")
        sys.exit(1)
