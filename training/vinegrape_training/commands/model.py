"""The commands that turn images into an archive.

Commands import libraries when they run, because serving environments do not install the training extra.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vinegrape_handler.weights import BACKENDS, DEFAULT_WEIGHTS, Backend

_PATH = click.Path(path_type=Path)


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def train(overrides: tuple[str, ...]) -> None:
    """Fine-tune a timm model on images in one folder per class.

    OVERRIDES are Hydra overrides of conf/train.yaml; --help lists them.

    \b
    Examples:
        vinegrape train data.dir=data/grapevine_leaves
        vinegrape train data.dir=data/grapevine_leaves weights=mobilenetv2.pth run_dir=runs/first
        vinegrape train data.dir=data/grapevine_leaves model=small_cnn optimizer=adamw_scratch weights=none
    """
    import vinegrape_training.fit.train

    script = vinegrape_training.fit.train
    # Hydra reads sys.argv. In a distributed run, Lightning starts the other processes with it.
    sys.argv = [script.__file__, *overrides]
    script.main()


@click.command()
@click.argument("folder", type=_PATH)
@click.argument("overrides", nargs=-1)
@click.option("--seed", "seeds", multiple=True, type=int, default=(1, 2), show_default=True,
              help="Seed of a split into folds and of training; repeat the option for more seeds.")  # fmt: skip
@click.option("--folds", default=5, show_default=True, help="Number of folds per seed.")
@click.option("--int8/--no-int8", default=True, show_default=True, help="Also quantise and test each network.")
@click.option("--replace", "replace_other", is_flag=True,
              help="Delete the folds in FOLDER if their recipe, images, splits or code are other ones.")  # fmt: skip
def evaluate(
    folder: Path, overrides: tuple[str, ...], seeds: tuple[int, ...], folds: int, int8: bool, replace_other: bool
) -> None:
    """Cross-validate a recipe, and write figures, plots and predictions to FOLDER.

    OVERRIDES are those of `vinegrape train`. Finished folds in FOLDER are kept, so the same command resumes an
    interrupted evaluation. Choose a recipe on one seed and report results on others: scores on the seed used for
    selection are optimistic.

    \b
    Examples:
        vinegrape evaluate runs/evaluation data.dir=data/grapevine_leaves
        vinegrape evaluate runs/mixup --seed 0 --no-int8 data.dir=data/grapevine_leaves optimizer.mixup=0.2
    """
    from vinegrape_training.experiments.cross_validation import CrossValidationPlan, cross_validate
    from vinegrape_training.fit.config import compose_config
    from vinegrape_training.fit.process import prepare_process

    prepare_process()
    plan = CrossValidationPlan(seeds, folds)
    report = cross_validate(compose_config(overrides), folder, plan, int8=int8, replace_other=replace_other)
    click.echo(report.table())
    click.echo(f"Next: train on all images with the same overrides: vinegrape train evaluation={folder} ...")


@click.command()
@click.argument("folder", type=_PATH)
@click.argument("overrides", nargs=-1)
@click.option("--trials", default=30, show_default=True, help="Total number of trials, including those in FOLDER.")
def tune(folder: Path, overrides: tuple[str, ...], trials: int) -> None:
    """Search hyperparameters with Optuna. The target is the validation loss; test images are not used.

    The search space is training/vinegrape_training/experiments/sweep.yaml, without the parameters that OVERRIDES set.
    FOLDER keeps the study, so the same command resumes an interrupted search or adds trials with a larger --trials.

    \b
    Example:
        vinegrape tune runs/tune --trials 30 data.dir=data/grapevine_leaves input_size=224 trainer.max_epochs=12
    """
    from vinegrape_training.experiments.tune import search
    from vinegrape_training.fit.process import prepare_process

    prepare_process()
    result = search(overrides, folder, trials)
    click.echo(f"Validation loss {result.value:.4f}, the best of {result.trials} trials: {' '.join(result.overrides)}")
    click.echo("Next: run vinegrape evaluate with these overrides to check that the improvement is not chance.")


@click.command()
@click.argument("folder", type=_PATH)
@click.argument("evaluations", nargs=-1, required=True, type=_PATH)
def compare(folder: Path, evaluations: tuple[Path, ...]) -> None:
    """Compare EVALUATIONS by accuracy, latency and size, and write a table and a plot to FOLDER.

    Latency is that of the int8 file for one image, on one thread of this machine. Relative latency is 1.00 for the
    first evaluation.

    \b
    Example:
        vinegrape compare runs/comparison runs/at-224 runs/at-384
    """
    from vinegrape_training.experiments import comparison

    click.echo(comparison.table(comparison.compare(evaluations, folder)))


@click.command()
@click.argument("folder", type=_PATH)
@click.option("--archive", type=_PATH, default="model_store/vinegrape.mar", show_default=True,
              help="Model archive to measure. It may have been trained on the images in FOLDER.")  # fmt: skip
@click.option("--evaluation", type=_PATH,
              help="Measure the networks of this folder of `vinegrape evaluate` instead of an archive.")  # fmt: skip
@click.option("--foreign", type=_PATH,
              help="Also measure these images, which are none of the classes, in one folder per kind.")  # fmt: skip
@click.option("--threshold", type=float, help="Highest OOD score of an image that is known.")
@click.option("--required", is_flag=True, help="Only the strengths at which docs/model.md requires 95 %.")
@click.option("--output", type=_PATH, help="Folder for robustness.json and the plots.  [default: --evaluation]")
def robustness(
    folder: Path,
    archive: Path,
    evaluation: Path | None,
    foreign: Path | None,
    threshold: float | None,
    required: bool,
    output: Path | None,
) -> None:
    """Measure accuracy, abstention and calibration on corrupted images of the leaves in FOLDER.

    FOLDER holds one folder of images per class. The corruptions are light, blur, size, background and others, each
    with several strengths. With --evaluation, each image is classified by networks that were not trained on it.

    If the network computes no OOD score, 1 - its highest probability takes its place. Without a threshold in the
    archive or the command, 98 % of the clean leaves are known.

    \b
    Examples:
        vinegrape robustness data/grapevine_leaves --foreign data/foreign --output runs/robustness
        vinegrape robustness data/grapevine_leaves --evaluation runs/evaluation
    """
    if evaluation and foreign:
        raise click.UsageError(
            "--foreign cannot be combined with --evaluation, whose networks may be trained on such images."
        )
    from vinegrape_training.evaluation.robustness import conditions
    from vinegrape_training.experiments.robustness import measure_archive, measure_evaluation, write

    tested = conditions(required_only=required)
    if evaluation:
        result = measure_evaluation(evaluation, folder, tested, threshold=threshold)
    else:
        result = measure_archive(archive, folder, tested, foreign_dir=foreign, threshold=threshold)
    click.echo(result.table())
    if target := output or evaluation:
        write(result, target)
        click.echo(f"Written to {target}: robustness.json, robustness_map.png, robustness_curves.png")


@click.command()
@click.argument("run", type=_PATH)
@click.argument("folder", type=_PATH)
@click.option("--data", "data_dir", type=_PATH, help="Folder of the run's images, if they have moved.")
@click.option("--min-int8-agreement", type=click.FloatRange(0, 1), default=0.98, show_default=True,
              help="Smallest share of images with the same top-1 class in int8 and in the trained model.")  # fmt: skip
def export(run: Path, folder: Path, data_dir: Path | None, min_int8_agreement: float) -> None:
    """Export the model of the training run RUN to FOLDER: TorchScript, ONNX fp32, ONNX int8 and metadata.

    Each file is compared with the trained model on all images of the run. If a file differs by more than its limit,
    nothing is written.

    \b
    Example:
        vinegrape export runs/first exports/first
    """
    from vinegrape_training.export.export import export_run
    from vinegrape_training.export.parity import ParityLimits, table

    result = export_run(run, folder, data_dir, ParityLimits(int8_agreement=min_int8_agreement))
    click.echo(table(result.parities))
    click.echo(f"Next: vinegrape archive {folder} model_store/vinegrape.mar")


@click.command()
@click.argument("source", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--weights", multiple=True, type=click.Choice(BACKENDS), default=DEFAULT_WEIGHTS,
              show_default=True, help="Weights to include; repeat the option for more.")  # fmt: skip
@click.option(
    "--record-self-check",
    is_flag=True,
    help="Compute new expected probabilities for the self-check; needed after a change of image decoding.",
)
@click.option("--wandb", "log_to_wandb", is_flag=True,
              help="Also log the archive and its card as an artifact of Weights & Biases.")  # fmt: skip
def archive(
    source: Path, target: Path, weights: tuple[Backend, ...], record_self_check: bool, log_to_wandb: bool
) -> None:
    """Pack SOURCE into the model archive TARGET, and write MODEL_CARD.md to the folder of TARGET.

    SOURCE is the folder of an export, or another archive, whose weights are then packed with the installed handler
    code. The same inputs give the same bytes.

    \b
    Examples:
        vinegrape archive exports/first model_store/vinegrape.mar
        vinegrape archive model_store/vinegrape.mar /tmp/only-int8.mar --weights onnx_int8
    """
    from vinegrape_training.export.archive import build
    from vinegrape_training.export.model_card import write_card

    metadata = build(source, target, weights, record_self_check=record_self_check)
    card = write_card(metadata, target)
    if log_to_wandb:
        from vinegrape_training.fit.artifacts import log_archive

        log_archive(target, card, metadata)
    click.echo(f"{target}: {metadata.name} {metadata.version}, {target.stat().st_size / 1e6:.1f} MB; card: {card}")
    click.echo(f"Next: vinegrape serve --archive {target}")
