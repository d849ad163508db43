from __future__ import annotations

import pytest
import torch
from torch import nn

from vinegrape_training.errors import ModelError
from vinegrape_training.models.factory import create_model
from vinegrape_training.models.stages import (
    RemovedStages,
    are_removable,
    freeze_stages,
    run_stages,
    stage_modules,
    weights_digest,
)

SIDE = 64


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    torch.manual_seed(0)
    return create_model("mobilenetv2_035", 3, "none").eval()


@pytest.mark.parametrize("architecture", ["mobilenetv2_035", "tf_efficientnet_lite0"])
def test_a_network_without_its_first_stages_continues_from_their_output(architecture: str) -> None:
    torch.manual_seed(0)
    model = create_model(architecture, 3, "none").eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        expected, outputs = model(images), run_stages(model, 2, images)
        removed = RemovedStages(model, 2)
        torch.testing.assert_close(model(outputs), expected)
        removed.restore()
        torch.testing.assert_close(model(images), expected)


def test_stages_are_removable_if_nothing_else_runs_before_their_end(mobilenet: nn.Module) -> None:
    assert are_removable(mobilenet, 4, SIDE)


def test_a_network_that_adds_the_image_to_later_features_keeps_its_stages() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

        def group_matcher(self, coarse: bool = False) -> dict[str, str]:
            return {"stem": "^stem", "blocks": "^head"}

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (self.head(self.stem(images)) + images).mean((2, 3))  # type: ignore[no-any-return]

    assert not are_removable(Skips(), 1, 8)


def test_a_resnet_keeps_its_stages_because_its_first_pooling_belongs_to_none() -> None:
    assert not are_removable(create_model("resnet10t", 3, "none"), 2, SIDE)


def test_the_modes_of_the_modules_stay_as_they_were() -> None:
    model = create_model("mobilenetv2_035", 3, "none").train()
    freeze_stages(model, 3)
    modes = [module.training for module in model.modules()]
    are_removable(model, 3, SIDE)
    assert [module.training for module in model.modules()] == modes


def test_the_digest_is_of_the_first_stages_only(mobilenet: nn.Module) -> None:
    before = weights_digest(mobilenet, 2)
    with torch.no_grad():
        mobilenet.get_submodule("classifier").weight.add_(1)  # type: ignore[operator, union-attr]
    assert weights_digest(mobilenet, 2) == before
    with torch.no_grad():
        mobilenet.get_submodule("conv_stem").weight.add_(1)  # type: ignore[operator, union-attr]
    assert weights_digest(mobilenet, 2) != before


def test_too_many_stages_are_an_error(mobilenet: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"model\.frozen_stages is 20; it must be below"):
        stage_modules(mobilenet, 20)
