from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from vinegrape_training.errors import ModelError
from vinegrape_training.models.factory import classifier_parameters, create_model, preprocessing
from vinegrape_training.models.stages import freeze_stages


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    """A network with random weights for 1000 classes, like a file of pretrained weights."""
    torch.manual_seed(5)
    return timm.create_model("mobilenetv2_100", num_classes=1000)


@pytest.mark.parametrize("architecture", ["mobilenetv2_100", "small_cnn"])
def test_the_factory_creates_both_architectures(architecture: str) -> None:
    model = create_model(architecture, 5, "none").eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    assert [tuple(parameter.shape) for parameter in classifier_parameters(model)][1] == (5,)
    features = model.forward_features(torch.zeros(1, 3, 64, 64))
    assert model.forward_head(features, pre_logits=True).shape == (1, model.num_features)
    model.reset_classifier(7)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_gives_the_backbone_and_the_head_is_new(mobilenet: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else safetensors.torch.save_file)(mobilenet.state_dict(), path)
    model = create_model("mobilenetv2_100", 5, str(path))
    loaded = model.state_dict()
    for name, value in mobilenet.state_dict().items():
        if not name.startswith("classifier."):
            assert torch.equal(loaded[name], value), name
    assert loaded["classifier.weight"].shape == (5, 1280)
    assert "state_dict" not in model.pretrained_cfg


def test_a_file_with_the_same_number_of_classes_also_gives_the_head(tmp_path: Path) -> None:
    trained = create_model("small_cnn", 5, "none")
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    loaded = create_model("small_cnn", 5, str(tmp_path / "w.pt")).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trained.state_dict().items())


def test_the_real_pretrained_weights_are_loaded(pretrained: Path) -> None:
    loaded = create_model("mobilenetv2_100", 5, str(pretrained)).state_dict()
    state = torch.load(pretrained, weights_only=True)
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if not name.startswith("classifier."))


def test_a_file_of_another_architecture_is_reported(mobilenet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "mobilenet.pt"
    torch.save(mobilenet.state_dict(), path)
    with pytest.raises(ModelError, match=r"mobilenet\.pt does not hold weights of small_cnn") as error:
        create_model("small_cnn", 5, str(path))
    assert "\n" not in str(error.value)


def test_a_missing_tensor_is_reported(mobilenet: nn.Module, tmp_path: Path) -> None:
    state = mobilenet.state_dict()
    del state["conv_head.weight"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"conv_head\.weight"):
        create_model("mobilenetv2_100", 5, str(tmp_path / "w.pt"))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no weights file"):
        create_model("small_cnn", 5, str(tmp_path / "nothing.pt"))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_that_is_not_weights_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"leaves, not weights")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        create_model("small_cnn", 5, str(tmp_path / name))


def test_a_pickle_that_could_run_code_is_rejected(tmp_path: Path) -> None:
    torch.save({"conv": Path("not a tensor")}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        create_model("small_cnn", 5, str(tmp_path / "w.pt"))


def test_a_state_dict_with_other_values_than_tensors_is_reported(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="not a state dict"):
        create_model("small_cnn", 5, str(tmp_path / "w.pt"))


def test_an_unreachable_hub_is_reported_with_the_option_to_give_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # no process listens on port 9
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"mobilenetv2_100 cannot be downloaded .* weights=PATH") as error:
        create_model("mobilenetv2_100", 5, "imagenet")
    assert "Connection refused" in str(error.value)


def test_the_baseline_has_no_pretrained_weights() -> None:
    with pytest.raises(ModelError, match="small_cnn has no pretrained weights; give weights=none"):
        create_model("small_cnn", 5, "imagenet")


def test_an_unknown_architecture_is_reported_with_similar_names() -> None:
    with pytest.raises(ModelError, match=r"no model 'mobilnetv2_100'; did you mean mobilenetv2_100"):
        create_model("mobilnetv2_100", 5, "none")


def test_an_unknown_tag_is_reported_with_the_valid_ones() -> None:
    with pytest.raises(
        ModelError, match=r"Invalid pretrained tag \(mine\) .* tags of mobilenetv2_100's weights: ra_in1k"
    ):
        create_model("mobilenetv2_100.mine", 5, "none")


def test_a_transformer_is_created_for_the_input_size() -> None:
    model = create_model("vit_tiny_patch16_224", 5, "none", input_size=96).eval()
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 5)


def test_preprocessing_is_that_of_timm() -> None:
    expected = preprocessing(create_model("mobilenetv2_100", 5, "none"))
    assert expected.mean == (0.485, 0.456, 0.406)
    assert expected.std == (0.229, 0.224, 0.225)
    assert expected.interpolation == "bicubic"
    assert preprocessing(create_model("small_cnn", 5, "none")).interpolation == "bilinear"


def test_interpolation_can_be_chosen_and_is_checked() -> None:
    model = create_model("small_cnn", 5, "none")
    assert preprocessing(model, "bicubic").interpolation == "bicubic"
    with pytest.raises(ModelError, match=r"'lanczos'; the server has bilinear, bicubic"):
        preprocessing(model, "lanczos")


def test_the_first_stages_are_frozen() -> None:
    model = create_model("mobilenetv2_100", 5, "none")
    freeze_stages(model, 4)
    frozen = {name.split(".")[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"conv_stem", "bn1", "blocks"}
    learning = [name for name, parameter in model.blocks.named_parameters() if parameter.requires_grad]
    assert {name.split(".")[0] for name in learning} == {"3", "4", "5", "6"}
    in_eval_mode = {
        name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d) and not module.training
    }
    assert {name.rpartition(".")[0] for name in in_eval_mode} >= {"", "blocks.0.0", "blocks.2.2"}
    assert not any(name.startswith("blocks.3") for name in in_eval_mode)


def test_zero_frozen_stages_freeze_nothing() -> None:
    model = create_model("small_cnn", 5, "none")
    freeze_stages(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("architecture", "count"), [("mobilenetv2_100", 9), ("mobilenetv2_100", 40)])
def test_at_least_one_stage_must_be_trained(architecture: str, count: int) -> None:
    with pytest.raises(ModelError, match=f"model.frozen_stages is {count}; it must be below 9"):
        freeze_stages(create_model(architecture, 5, "none"), count)


def test_a_network_without_stages_is_reported() -> None:
    with pytest.raises(ModelError, match=r"the network defines no stages\. Set model\.frozen_stages=0"):
        freeze_stages(nn.Linear(2, 2), 1)
