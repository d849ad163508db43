from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from vinegrape_training.data.datamodule import OTHER
from vinegrape_training.fit.lightning_module import ClassifierModule, warmup_cosine
from vinegrape_training.fit.settings import OptimizerSettings
from vinegrape_training.models.factory import Preprocessing, create_model, preprocessing

AS_IS = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")  # the network gets pixels / 255
SETTINGS = OptimizerSettings(
    backbone_lr=0.001, head_lr=0.01, weight_decay=0, warmup_epochs=0, label_smoothing=0, mixup=0
)


class Constant(nn.Module):
    """Logits [1, 0] for every image."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)


class Brightness(nn.Module):
    """Logits [b, 0], where b is the mean of an image's normalised pixels."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        self.brightness = images.mean(dim=(1, 2, 3))
        return torch.stack([self.brightness, torch.zeros(len(images))], dim=1)


def loss(classifier: ClassifierModule, images: Tensor, labels: list[int]) -> float:
    classifier.log = lambda *args, **kwargs: None  # type: ignore[assignment]  # there is no trainer to log to
    return classifier.training_step((images, torch.tensor(labels)), 0).item()


def test_the_network_gets_normalised_images() -> None:
    model = Brightness()
    classifier = ClassifierModule(model, replace(AS_IS, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)), SETTINGS)
    logits = classifier(torch.tensor([0.0, 127.5, 255.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4))
    torch.testing.assert_close(logits, torch.tensor([[-2.0, 0], [0, 0], [2, 0]]))


def test_label_smoothing_spreads_the_target_over_all_classes() -> None:
    classifier = ClassifierModule(Constant(), AS_IS, replace(SETTINGS, label_smoothing=0.2))
    first, second = torch.tensor([1.0, 0.0]).log_softmax(dim=0).tolist()
    assert loss(classifier, torch.zeros(1, 3, 4, 4), [0]) == pytest.approx(-(0.9 * first + 0.1 * second))


def test_mixup_mixes_images_and_labels_by_the_same_weight() -> None:
    """A white image of class 0 and a black one of class 1: the brightness of each mixed image is its weight."""
    torch.manual_seed(0)
    model = Brightness()
    classifier = ClassifierModule(model, AS_IS, replace(SETTINGS, mixup=1.0))
    images = torch.tensor([255.0, 0.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    value = loss(classifier, images, [0, 1])
    weight, other = model.brightness.tolist()
    assert 0.01 < weight < 0.99
    assert other == pytest.approx(1 - weight)

    def cross_entropy(b: float) -> float:  # of the logits [b, 0] with the target [b, 1 - b]
        return math.log(math.exp(b) + 1) - b * b

    assert value == pytest.approx((cross_entropy(weight) + cross_entropy(1 - weight)) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("probabilities", "weights"),
    [([1, 0], (1.0, 0.0)), ([0, 1], (0.5, 0.5)), ([0.5, 0.5], (0.75, 0.25))],
)
def test_half_of_the_loss_is_the_cross_entropy_with_the_teacher(
    probabilities: list[float], weights: tuple[float, float]
) -> None:
    classifier = ClassifierModule(
        Constant(), AS_IS, SETTINGS, teacher=lambda images: torch.tensor([probabilities]).float()
    )
    first, second = torch.tensor([1.0, 0.0]).log_softmax(dim=0).tolist()
    expected = -(weights[0] * first + weights[1] * second)
    assert loss(classifier, torch.zeros(1, 3, 4, 4), [0]) == pytest.approx(expected)


def test_head_and_backbone_have_their_own_learning_rates() -> None:
    model = create_model("mobilenetv2_100", 5, "none")
    classifier = ClassifierModule(model, preprocessing(model), SETTINGS)
    classifier.trainer = type("Trainer", (), {"estimated_stepping_batches": 10, "max_epochs": 1})()
    backbone, head = classifier.configure_optimizers()["optimizer"].param_groups
    assert (backbone["lr"], head["lr"]) == (0.001, 0.01)
    assert {id(parameter) for parameter in head["params"]} == {id(model.classifier.weight), id(model.classifier.bias)}
    assert len(backbone["params"]) + len(head["params"]) == len(list(model.parameters()))


def test_the_learning_rate_rises_then_falls() -> None:
    factors = [warmup_cosine(step, 4, 12) for step in range(13)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0.0)


class KnowsDark(nn.Module):
    """Two classes with the logit 0, and "something else": log(2) + 1 for a white image, log(2) - 1 for a black one."""

    num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        other = math.log(2) + 2 * images.mean(dim=(1, 2, 3)) - 1
        return torch.stack([torch.zeros_like(other), torch.zeros_like(other), other], dim=1)


def test_the_ood_score_is_trained_as_the_log_odds_of_an_outlier() -> None:
    """The score is 1 for the white image and -1 for the black one: their losses are log(1 + e^-1) if both are right."""
    classifier = ClassifierModule(KnowsDark(), AS_IS, SETTINGS, outlier_weight=2.0)
    images = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 255.0)])
    right, wrong = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    assert loss(classifier, images, [0, OTHER]) == pytest.approx(math.log(2) + 2 * right, rel=1e-5)
    assert loss(classifier, images.flip(0), [0, OTHER]) == pytest.approx(math.log(2) + 2 * wrong, rel=1e-5)


def test_outliers_do_not_count_in_the_training_accuracy() -> None:
    classifier = ClassifierModule(KnowsDark(), AS_IS, SETTINGS, outlier_weight=1.0)
    loss(classifier, torch.zeros(3, 3, 4, 4), [0, OTHER, OTHER])
    assert classifier.train_accuracy.compute() == 1
