from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vinegrape_training.models.factory import create_model


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """MobileNetV2 with scales of its last batch norm that differ, and the file of its state dict."""
    torch.manual_seed(0)
    model = create_model("mobilenetv2_100", 10, "none").eval()
    torch.nn.init.uniform_(model.bn2.weight, -1, 1)
    path = tmp_path_factory.mktemp("weights") / "wide.pth"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("width", [320, 640])
def test_the_features_stay_that_the_batch_norm_scales_most(wide: tuple[torch.nn.Module, Path], width: int) -> None:
    model, path = wide
    narrow = create_model(f"mobilenetv2_100_head{width}", 5, str(path)).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    scales = model.bn2.weight.abs()
    kept = scales >= scales.sort(descending=True).values[width - 1]
    with torch.no_grad():
        torch.testing.assert_close(narrow.forward_features(images), model.forward_features(images)[:, kept])
        assert narrow(images).shape == (2, 5)


def test_its_own_weights_load_as_they_are(tmp_path: Path) -> None:
    model = create_model("mobilenetv2_100_head320", 5, "none").eval()
    torch.save(model.state_dict(), tmp_path / "narrow.pth")
    again = create_model("mobilenetv2_100_head320", 5, str(tmp_path / "narrow.pth")).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images))
