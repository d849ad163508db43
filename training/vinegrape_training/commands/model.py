"""The commands from images to an archive. They import what they need when they run: a server has no training extras."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vinegrape_handler.weights import BACKENDS, DEFAULT_WEIGHTS, Backend

_PATH = click.Path(path_type=Path)


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def train(overrides: tuple[str, ...]) -> None:
    """Fine-tune a timm model on a folder of images a class.

    Takes Hydra's overrides; --help lists them.

    \b
    Examples:
        vinegrape train data.dir=data/grapevine_leaves
        vinegrape train data.dir=data/grapevine_leaves weights=mobilenetv2.pth run_dir=runs/first
        vinegrape train data.dir=data/grapevine_leaves model=small_cnn optimizer=adamw_scratch weights=none
    """
    from vinegrape_training.fit import train as script

    # Hydra reads it, and Lightning starts the further processes of a training with it
    sys.argv = [script.__file__, *overrides]
    script.main()


@click.command()
@click.argument("folder", type=_PATH)
@click.argument("overrides", nargs=-1)
@click.option("--seed", "seeds", multiple=True, type=int, default=(1, 2), show_default=True,
              help="Of a deal into folds, and of training; may be given more than once.")  # fmt: skip
@click.option("--folds", default=5, show_default=True, help="How many parts the images are dealt into.")
@click.option("--int8/--no-int8", default=True, show_default=True, help="Also quantise and test each network.")
def evaluate(folder: Path, overrides: tuple[str, ...], seeds: tuple[int, ...], folds: int, int8: bool) -> None:
    """Cross-validate a recipe, and write the figures, plots and answers to FOLDER.

    OVERRIDES are those of `vinegrape train`. A fold that FOLDER already holds is kept: the same command goes on where
    it was cut off. Compare recipes on one seed, and report another: what was chosen by a figure flatters it.

    \b
    Examples:
        vinegrape evaluate runs/evaluation data.dir=data/grapevine_leaves
        vinegrape evaluate runs/mixup --seed 0 --no-int8 data.dir=data/grapevine_leaves optimizer.mixup=0.2
    """
    from vinegrape_training.experiments.cross_validation import CrossValidationPlan, cross_validate
    from vinegrape_training.fit.config import compose_config
    from vinegrape_training.fit.process import prepare_process

    prepare_process()
    report = cross_validate(compose_config(overrides), folder, CrossValidationPlan(seeds, folds), int8=int8)
    click.echo(report.table())
    click.echo(f"Next: vinegrape train evaluation={folder}, with the same overrides, trains on all images.")


@click.command()
@click.argument("folder", type=_PATH)
@click.argument("overrides", nargs=-1)
@click.option("--trials", default=30, show_default=True, help="In total, with those that FOLDER already holds.")
def tune(folder: Path, overrides: tuple[str, ...], trials: int) -> None:
    """Search for better settings with Optuna, by the loss on the validation images; the test images stay unseen.

    The space is that of training/vinegrape_training/experiments/sweep.yaml, less what OVERRIDES fix. FOLDER keeps the
    study: the
    same command goes on where it was cut off, or with more --trials.

    \b
    Example:
        vinegrape tune runs/tune --trials 30 data.dir=data/grapevine_leaves input_size=224 trainer.max_epochs=12
    """
    from vinegrape_training.experiments.tune import tune as search
    from vinegrape_training.fit.process import prepare_process

    prepare_process()
    found = search(overrides, folder, trials)
    click.echo(f"Validation loss {found.value:.4f}, the best of {found.trials} trials: {' '.join(found.overrides)}")
    click.echo("Next: vinegrape evaluate with these overrides says whether that is more than luck.")


@click.command()
@click.argument("folder", type=_PATH)
@click.argument("evaluations", nargs=-1, required=True, type=_PATH)
def compare(folder: Path, evaluations: tuple[Path, ...]) -> None:
    """Put EVALUATIONS side by side, with what serving each would cost, and write a table and a plot to FOLDER.

    Latency is that of the int8 file, one image on one thread of this machine. The first evaluation is the 1.00.

    \b
    Example:
        vinegrape compare runs/comparison runs/at-224 runs/at-384
    """
    from vinegrape_training.experiments.comparison import compare as compare_evaluations
    from vinegrape_training.experiments.comparison import table

    click.echo(table(compare_evaluations(evaluations, folder)))


@click.command()
@click.argument("run", type=_PATH)
@click.argument("folder", type=_PATH)
@click.option("--data", "data_dir", type=_PATH, help="Where the run's images lie now, if they have moved.")
@click.option("--min-int8-agreement", type=click.FloatRange(0, 1), default=0.98, show_default=True,
              help="Part of the images whose top-1 the int8 file must share with the trained model.")  # fmt: skip
def export(run: Path, folder: Path, data_dir: Path | None, min_int8_agreement: float) -> None:
    """Write the model of the training run RUN to FOLDER: TorchScript, ONNX fp32, ONNX int8, and its metadata.

    Every file is compared with the trained model on every image of the run's data; if one differs by more than its
    limit, nothing is written.

    \b
    Example:
        vinegrape export runs/first exports/first
    """
    from vinegrape_training.export.export import export as export_run
    from vinegrape_training.export.parity import ParityLimits, table

    made = export_run(run, folder, data_dir, ParityLimits(int8_agreement=min_int8_agreement))
    click.echo(table(made.parities))
    click.echo(f"Next: vinegrape archive {folder} model_store/vinegrape.mar")


@click.command()
@click.argument("source", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--weights", multiple=True, type=click.Choice(BACKENDS), default=DEFAULT_WEIGHTS,
              show_default=True, help="Which weights to carry; may be given more than once.")  # fmt: skip
@click.option(
    "--record-self-check",
    is_flag=True,
    help="Ask the weights for new answers to the self-check's pictures; after a change to how images are read.",
)
def archive(source: Path, target: Path, weights: tuple[Backend, ...], record_self_check: bool) -> None:
    """Pack SOURCE into the model archive TARGET, with its model card, MODEL_CARD.md, beside it.

    SOURCE is the folder of an export, or another archive, whose weights are then packed with the handler's code as
    it is now. The same inputs give the same bytes.

    \b
    Examples:
        vinegrape archive exports/first model_store/vinegrape.mar
        vinegrape archive model_store/vinegrape.mar /tmp/only-int8.mar --weights onnx_int8
    """
    from vinegrape_training.export.archive import build
    from vinegrape_training.export.model_card import write_card

    metadata = build(source, target, weights, record_self_check=record_self_check)
    card = write_card(metadata, target)
    click.echo(f"{target}: {metadata.name} {metadata.version}, {target.stat().st_size / 1e6:.1f} MB; card in {card}.")
    click.echo(f"Next: vinegrape serve --archive {target}")
