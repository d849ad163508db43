from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from vinegrape_training.errors import ModelError
from vinegrape_training.models.factory import classifier_parameters, create_model, freeze_stages, preprocessing


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    """Random weights for 1000 classes, as a file of pretrained ones would hold."""
    torch.manual_seed(5)
    return timm.create_model("mobilenetv2_100", num_classes=1000)


@pytest.mark.parametrize("architecture", ["mobilenetv2_100", "small_cnn"])
def test_one_factory_makes_both(architecture: str) -> None:
    model = create_model(architecture, 5, "none").eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    assert [tuple(parameter.shape) for parameter in classifier_parameters(model)][1] == (5,)
    features = model.forward_features(torch.zeros(1, 3, 64, 64))
    assert model.forward_head(features, pre_logits=True).shape == (1, model.num_features)
    model.reset_classifier(7)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_file_gives_the_backbone_and_a_fresh_head(mobilenet: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else safetensors.torch.save_file)(mobilenet.state_dict(), path)
    model = create_model("mobilenetv2_100", 5, str(path))
    loaded = model.state_dict()
    for name, value in mobilenet.state_dict().items():
        if not name.startswith("classifier."):
            assert torch.equal(loaded[name], value), name
    assert loaded["classifier.weight"].shape == (5, 1280)
    assert "state_dict" not in model.pretrained_cfg


def test_file_of_as_many_classes_gives_the_head_too(tmp_path: Path) -> None:
    trained = create_model("small_cnn", 5, "none")
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    loaded = create_model("small_cnn", 5, str(tmp_path / "w.pt")).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trained.state_dict().items())


def test_real_pretrained_weights_fit(pretrained: Path) -> None:
    loaded = create_model("mobilenetv2_100", 5, str(pretrained)).state_dict()
    state = torch.load(pretrained, weights_only=True)
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if not name.startswith("classifier."))


def test_file_of_another_architecture(mobilenet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "mobilenet.pt"
    torch.save(mobilenet.state_dict(), path)
    with pytest.raises(ModelError, match=r"mobilenet\.pt does not hold weights of small_cnn") as error:
        create_model("small_cnn", 5, str(path))
    assert "\n" not in str(error.value)


def test_file_with_a_tensor_missing(mobilenet: nn.Module, tmp_path: Path) -> None:
    state = mobilenet.state_dict()
    del state["conv_head.weight"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"conv_head\.weight"):
        create_model("mobilenetv2_100", 5, str(tmp_path / "w.pt"))


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no weights file"):
        create_model("small_cnn", 5, str(tmp_path / "nothing.pt"))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_file_that_holds_no_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"leaves, not weights")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        create_model("small_cnn", 5, str(tmp_path / name))


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"conv": Path("anything that is no tensor")}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        create_model("small_cnn", 5, str(tmp_path / "w.pt"))


def test_state_dict_with_more_than_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="not a state dict"):
        create_model("small_cnn", 5, str(tmp_path / "w.pt"))


def test_unreachable_hub_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # nothing listens on port 9 of this machine
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"mobilenetv2_100 cannot be fetched .* weights=PATH") as error:
        create_model("mobilenetv2_100", 5, "imagenet")
    assert "Connection refused" in str(error.value)


def test_baseline_has_no_pretrained_weights() -> None:
    with pytest.raises(ModelError, match="small_cnn has no pretrained weights; give weights=none"):
        create_model("small_cnn", 5, "imagenet")


def test_unknown_architecture_offers_close_ones() -> None:
    with pytest.raises(ModelError, match=r"no model 'mobilnetv2_100'; did you mean mobilenetv2_100"):
        create_model("mobilnetv2_100", 5, "none")


def test_unknown_tag_offers_those_there_are() -> None:
    with pytest.raises(ModelError, match=r"Invalid pretrained tag \(mine\) .* has weights tagged ra_in1k"):
        create_model("mobilenetv2_100.mine", 5, "none")


def test_transformer_is_built_for_the_input_size() -> None:
    model = create_model("vit_tiny_patch16_224", 5, "none", input_size=96).eval()
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 5)


def test_preprocessing_is_timms() -> None:
    wanted = preprocessing(create_model("mobilenetv2_100", 5, "none"))
    assert wanted.mean == (0.485, 0.456, 0.406)
    assert wanted.std == (0.229, 0.224, 0.225)
    assert wanted.interpolation == "bicubic"
    assert preprocessing(create_model("small_cnn", 5, "none")).interpolation == "bilinear"


def test_interpolation_is_the_callers_choice_and_checked() -> None:
    model = create_model("small_cnn", 5, "none")
    assert preprocessing(model, "bicubic").interpolation == "bicubic"
    with pytest.raises(ModelError, match=r"'lanczos', the server has bilinear, bicubic"):
        preprocessing(model, "lanczos")


def test_frozen_stages_are_the_first_ones() -> None:
    model = create_model("mobilenetv2_100", 5, "none")
    freeze_stages(model, 4)
    frozen = {name.split(".")[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"conv_stem", "bn1", "blocks"}
    learning = [name for name, parameter in model.blocks.named_parameters() if parameter.requires_grad]
    assert {name.split(".")[0] for name in learning} == {"3", "4", "5", "6"}
    still = {
        name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d) and not module.training
    }
    assert {name.rpartition(".")[0] for name in still} >= {"", "blocks.0.0", "blocks.2.2"}
    assert not any(name.startswith("blocks.3") for name in still)


def test_no_stage_frozen() -> None:
    model = create_model("small_cnn", 5, "none")
    freeze_stages(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("architecture", "count"), [("mobilenetv2_100", 9), ("mobilenetv2_100", 40)])
def test_something_must_learn(architecture: str, count: int) -> None:
    with pytest.raises(ModelError, match=f"model.frozen_stages is {count}; the network has 9"):
        freeze_stages(create_model(architecture, 5, "none"), count)


def test_a_network_that_names_no_stages() -> None:
    with pytest.raises(ModelError, match=r"none can be frozen: model\.frozen_stages=0"):
        freeze_stages(nn.Linear(2, 2), 1)
