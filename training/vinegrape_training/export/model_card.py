"""The model card beside an archive, made from the archive's own metadata: no figure in it is written by hand."""

from __future__ import annotations

from pathlib import Path

from vinegrape_handler.metadata import Metadata
from vinegrape_handler.weights import BACKENDS

CARD_FILE = "MODEL_CARD.md"


def write_card(metadata: Metadata, archive: Path) -> Path:
    """Write `MODEL_CARD.md` into the folder of an archive."""
    card = archive.with_name(CARD_FILE)
    card.write_text(render(metadata, archive.stat().st_size), encoding="utf-8")
    return card


def render(metadata: Metadata, archive_bytes: int) -> str:
    """The card's text, in Markdown."""
    m = metadata.metrics
    protocol, measured_on, last_row = _protocol(metadata)
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(metadata.libraries.items()))
    known = m["known_images"] == m["images"]
    return f"""# {metadata.name} {metadata.version}

Says which of {len(metadata.classes)} classes an image shows: {", ".join(metadata.classes)}.

`vinegrape archive` writes this card from the archive's `metadata.json`, together with the archive.

| | |
|---|---|
| architecture | timm's `{metadata.architecture}`, trained from {_INITIAL_WEIGHTS[metadata.initial_weights]} |
| input | {metadata.input_size} x {metadata.input_size} RGB, the whole image on white, {metadata.interpolation} |
| output | a probability a class; logits divided by a temperature of {metadata.temperature:.3f} |
| archive | {archive_bytes / 1e6:.1f} MB |
| made with | {libraries} |

## Data and protocol

{_KNOWN_DATA if known else _OTHER_DATA}
Digest of the {m["images"]:.0f} images that this model saw, {m["known_images"]:.0f} of them known to this project:
`{metadata.data_digest}`.

{protocol}

## Figures

{measured_on}

| | |
|---|---|
| accuracy, as trained | {m["test_accuracy"]:.1%} |
| its 95 % Wilson interval | {m["test_accuracy_low_95"]:.1%} to {m["test_accuracy_high_95"]:.1%} |
| accuracy, int8 as served on CPU | {m["test_accuracy_onnx_int8"]:.1%} |
{_recalls(metadata)}
| expected calibration error, 15 bins | {m["test_calibration_error"]:.3f} |
| the same without the temperature | {m["test_calibration_error_before"]:.3f} |
{last_row}

Every exported file against the trained model, on all {m["images"]:.0f} images:

| weights | same top-1 | largest difference of a probability | between batches of 1 and 8 |
|---|---|---|---|
{_parities(metadata)}

{_KNOWN_USE if known else _OTHER_USE}
- It always names one of its classes, whatever the image shows: also a sixth variety, another plant or a cat.
- With {m["test_images"]:.0f} images the interval above is wide, and a difference of one point means nothing.

## Licence and citation

{_KNOWN_CITATION if known else _OTHER_CITATION}
Weights that training started from keep their own licence. The archive's self-check pictures are drawn by
`vinegrape data draw`.
"""


_INITIAL_WEIGHTS = {
    "none": "random weights",
    "hub": "the pretrained weights of timm's hub",
    "file": "a file of pretrained weights",
}

_KNOWN_DATA = """\
The [Grapevine Leaves Image Dataset](https://www.kaggle.com/datasets/muratkokludataset/grapevine-leaves-image-dataset),
or a part of it; `vinegrape data check FOLDER` compares a folder with the images known to this project.
"""
_OTHER_DATA = """\
A folder of images of one's own, or drawn by `vinegrape data draw`; it is not the data set that this project knows.
"""
_KNOWN_USE = """\
## Intended use

To sort photos of single, whole, mature leaves of these five varieties, taken from above on a plain bright background,
as the data set's were; and as a worked example of serving an image classifier.

## Limits and misuse

- Not for certifying plant material, for disputes about origin, or for deciding what to plant, spray or eat: a
  laboratory tells varieties apart by their DNA.
- All training images were taken on one light box. Nothing is known about leaves in the
  vineyard, other light, other cameras, young or diseased leaves, or leaves still on the vine."""
_OTHER_USE = """\
## Intended use

For images like those that it was trained on; whoever trained it knows them.

## Limits and misuse

- Nothing is known about images taken in any other way than the training images."""
_KNOWN_CITATION = """\
The images are their authors', under the terms on the data set's page; none is in this project. The authors ask to cite:

> Koklu, M., Unlersen, M. F., Ozkan, I. A., Aslan, M. F., & Sabanci, K. (2022). A CNN-SVM study based on selected deep
> features for grapevine leaves classification. Measurement, 188, 110425.
"""
_OTHER_CITATION = """\
The images are their owners'.
"""


def _recalls(metadata: Metadata) -> str:
    return "\n".join(
        f"| recall of {name} | {metadata.metrics[f'test_recall_{name}']:.1%} |" for name in metadata.classes
    )


def _protocol(metadata: Metadata) -> tuple[str, str, str]:
    """How the images were used, what the figures were measured on, and the last row of their table."""
    m = metadata.metrics
    if "cross_validation_folds" in m:
        names = ("cross_validation_folds", "cross_validation_seeds", "train_images")
        folds, seeds, trained = (f"{m[name]:.0f}" for name in names)
        return (
            f"""\
Before anything is augmented, the images are dealt into {folds} parts, class by class, and each part is answered by a
network that was trained on the others. That is done {seeds} times, each with another deal. The network in the archive
was then trained by the same recipe on all {trained} images; its temperature was fitted on those answers.""",
            f"""\
On the {m["test_images"]:.0f} images, each answered by networks that were not trained on it. They speak of the recipe:
no image is left to measure the archive's own network, which had more images to learn from.""",
            f"| expected calibration error, int8 | {m['test_calibration_error_onnx_int8']:.3f} |",
        )
    return (
        f"""\
The images are split by a seed, class by class, before anything is augmented: {m["train_images"]:.0f} train,
{m["validation_images"]:.0f} choose the epoch and the temperature, {m["test_images"]:.0f} measure at the end.""",
        f"On the {m['test_images']:.0f} test images, which the model was not trained on and nothing was chosen by:",
        f"| accuracy on the validation images | {m['validation_accuracy']:.1%}; they chose the epoch: it flatters |",
    )


def _parities(metadata: Metadata) -> str:
    return "\n".join(
        f"| {backend} | {metadata.metrics[f'parity_{backend}_agreement']:.2%} "
        f"| {metadata.metrics[f'parity_{backend}_difference']:.1e} "
        f"| {metadata.metrics[f'parity_{backend}_batch_difference']:.1e} |"
        for backend in BACKENDS
    )
