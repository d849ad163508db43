"""Compare scores that tell foreign images from leaves, on the networks of an evaluation that was trained with outliers.

It is not part of the service. docs/notes/model-log.md says how it is run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from vinegrape_handler.images.resize import resize
from vinegrape_training.data.dataset import Dataset, load_dataset, scan
from vinegrape_training.data.outliers import load_outliers, outlier_folds, scan_outliers
from vinegrape_training.data.transparency import on_white, read_rgba
from vinegrape_training.evaluation.abstention import auroc, threshold_for
from vinegrape_training.evaluation.robustness import Condition, conditions
from vinegrape_training.fit.run import RUN_FILE, Run
from vinegrape_training.models.normalised import Normalised
from vinegrape_training.models.outputs import ood_score
from vinegrape_training.progress import progress

COMPONENTS = 64  # of the features that leaves vary in; the residual is what lies outside of them
NEIGHBOURS = 5
SHRINKAGE = 1e-3  # of the covariance, which has more dimensions than there are leaves

Score = Callable[[Tensor, Tensor], Tensor]  # features [N, D] and outputs [N, classes + 1] to scores [N]


class Features:
    """The last features of a network, before its classifier."""

    def __init__(self, run: Run) -> None:
        self._network = Normalised(run.load_model(), run.mean, run.std)

    def __call__(self, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Compute features [N, D] and outputs [N, classes + 1] of images [N, S, S, 3]."""
        network = self._network.network
        batches = []
        with torch.inference_mode():
            for part in np.array_split(images, max(1, len(images) // 32)):
                pixels = torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2).float()
                features = network.forward_features(self._network.normalise(pixels)).mean((2, 3))  # type: ignore[operator]
                batches.append((features, network.get_classifier()(features)))  # type: ignore[operator]
        features, outputs = (torch.cat(part) for part in zip(*batches, strict=True))
        return features, outputs


def scores_of(features: Tensor, outputs: Tensor, labels: Tensor) -> dict[str, Score]:
    """Build the scores from the training leaves of a network.

    Args:
        features: [N, D].
        outputs: [N, classes + 1].
        labels: int64 [N].
    """
    classes = outputs.shape[1] - 1
    mean = features.mean(0)
    _, _, components = torch.linalg.svd(features - mean, full_matrices=False)
    components = components[:COMPONENTS]
    centres = torch.stack([features[labels == label].mean(0) for label in range(classes)])
    deviations = features - centres[labels]
    covariance = deviations.T @ deviations / len(deviations)
    shrunk = covariance + SHRINKAGE * covariance.trace() / len(covariance) * torch.eye(len(covariance))
    precision = torch.linalg.inv(shrunk)
    directions = normalize(features, dim=1)

    def energy(_: Tensor, outputs: Tensor) -> Tensor:
        return -outputs[:, :classes].logsumexp(1)

    def residual(features: Tensor, _: Tensor) -> Tensor:
        centred = features - mean
        return (centred - centred @ components.T @ components).norm(dim=1)

    def mahalanobis(features: Tensor, _: Tensor) -> Tensor:
        offsets = features[:, None] - centres
        return torch.einsum("ncd,de,nce->nc", offsets, precision, offsets).amin(1)

    # so that the residual has the size of a logit (Wang et al. 2022, "ViM: Out-of-Distribution with Virtual-logit
    # Matching")
    scale = outputs[:, :classes].amax(1).mean() / residual(features, outputs).mean()
    return {
        "largest probability (Hendrycks and Gimpel 2017)": lambda _, outputs: -outputs[:, :classes].softmax(1).amax(1),
        "energy (Liu et al. 2020)": energy,
        "Mahalanobis (Lee et al. 2018)": mahalanobis,
        "nearest neighbours (Sun et al. 2022)": lambda features, _: (
            -(normalize(features, dim=1) @ directions.T).topk(NEIGHBOURS, 1).values.mean(1)
        ),
        f"residual outside {COMPONENTS} components": residual,
        "ViM (Wang et al. 2022)": lambda *values: scale * residual(*values) + energy(*values),
        "trained with outliers": lambda _, outputs: ood_score(outputs, classes),
    }


def corrupted(run: Run, dataset: Dataset, condition: Condition) -> NDArray[np.uint8]:
    """Read the test images of a run under a condition: uint8 [N, S, S, 3]."""
    images = []
    for path in run.split.test:
        image = read_rgba(dataset.folder / path)
        changed = condition.corruption.apply(image, condition.strength) if condition.corruption else on_white(image)
        images.append(resize(changed, run.input_size, run.interpolation))
    return np.stack(images)


@click.command()
@click.argument("evaluation", type=click.Path(path_type=Path, exists=True))
@click.argument("outliers_dir", type=click.Path(path_type=Path, exists=True))
@click.option("--seed", required=True, type=int, help="Seed whose folds are used.")
def main(evaluation: Path, outliers_dir: Path, seed: int) -> None:
    """Print a table of scores, over the finished folds of one seed of EVALUATION.

    The threshold of a fold is the one that 98 % of its clean test leaves pass. Outliers are those whose source and
    species the fold has not seen.
    """
    outliers = scan_outliers(outliers_dir)
    folders = sorted((evaluation / f"seed-{seed}").glob("fold-*"))
    splits = outlier_folds(outliers, seed, len(folders))
    tested = conditions(required_only=True)
    known: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    passed: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    areas: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    finished = [folder for folder in folders if (folder / RUN_FILE).is_file()]
    for folder in progress(finished, "Folds"):
        run, dataset = Run.read(folder), scan(Run.read(folder).data_dir)
        network, foreign = Features(run), splits[int(folder.name.removeprefix("fold-"))].new_source
        training = load_dataset(dataset, run.input_size, run.interpolation)[dataset.indices_of(run.split.train)]
        labels = torch.from_numpy(dataset.labels_of(run.split.train))
        scores = scores_of(*network(training), labels)
        leaves = {condition.name: network(corrupted(run, dataset, condition)) for condition in tested}
        index = [outliers.paths.index(path) for path in foreign]
        others = network(load_outliers(outliers, run.input_size, run.interpolation)[index][..., :3])
        kinds = np.array([outliers.kinds[number] for number in index])
        for name, score in scores.items():
            clean = score(*leaves["clean"]).numpy()
            threshold = threshold_for(clean)
            for condition, outputs in leaves.items():
                known[name][condition].append(float((score(*outputs).numpy() <= threshold).mean()))
            of_foreign = score(*others).numpy()
            for kind in set(kinds):
                passed[name][kind] += (of_foreign[kinds == kind] <= threshold).tolist()
                areas[name][kind].append(auroc(clean, of_foreign[kinds == kind]))
    click.echo("| score | foreign that pass, worst kind | AUROC, worst kind | leaves known, worst changes |")
    click.echo("|---|---|---|---|")
    for name in known:
        foreign_share, kind = max((float(np.mean(values)), kind) for kind, values in passed[name].items())
        area = min(float(np.mean(values)) for values in areas[name].values())
        worst = sorted((float(np.mean(values)), change) for change, values in known[name].items())[:3]
        changes = ", ".join(f"{change.replace('_', ' ')} {share:.0%}" for share, change in worst)
        click.echo(f"| {name} | {foreign_share:.1%} ({kind.replace('_', ' ')}) | {area:.3f} | {changes} |")


if __name__ == "__main__":
    main()
