"""The first stages of a network, which training may leave as they were pretrained."""

from __future__ import annotations

import hashlib

import torch
from timm.models import group_modules
from torch import Tensor, nn

from vinegrape_training.errors import ModelError


def stage_modules(model: nn.Module, count: int) -> list[str]:
    """Return the names of the modules of a network's first stages, in the order in which they run.

    Args:
        model: a network.
        count: number of stages as timm's `group_matcher` counts them, starting with the stem. MobileNetV2 has the
            stem, seven stages, and the last convolution.

    Raises:
        ModelError: the network has too few stages, or does not define any.
    """
    if not count:
        return []
    if not hasattr(model, "group_matcher"):
        raise ModelError(f"model.frozen_stages is {count}; the network defines no stages. Set model.frozen_stages=0.")
    stages = group_modules(model, model.group_matcher(coarse=True))  # type: ignore[operator]
    if count >= len(stages):
        raise ModelError(
            f"model.frozen_stages is {count}; it must be below {len(stages)}, the network's number of stages."
        )
    return [name for stage in range(count) for name in stages[stage]]


def freeze_stages(model: nn.Module, count: int) -> None:
    """Freeze the first stages: no gradients, and batch norm keeps its pretrained statistics.

    Args:
        model: network in training mode.
        count: see `stage_modules`.

    Raises:
        ModelError: see `stage_modules`.
    """
    for name in stage_modules(model, count):
        model.get_submodule(name).requires_grad_(False).eval()


def weights_digest(model: nn.Module, count: int) -> str:
    """Compute the SHA-256 of the weights of the first stages."""
    total = hashlib.sha256()
    for name in stage_modules(model, count):
        for tensor in model.get_submodule(name).state_dict().values():
            total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _blocks(model: nn.Module, count: int) -> list[str]:
    """Return the names of the largest modules that belong to the first stages as a whole.

    `stage_modules` names single layers. A block, such as a residual block, does more than run its layers.
    """
    frozen = set(stage_modules(model, count))
    blocks: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{block}.") for block in blocks):
            continue
        layers = {
            f"{name}.{layer}" if layer else name
            for layer, child in module.named_modules()
            if any(True for _ in child.parameters(recurse=False))
        }
        if name and layers and layers <= frozen:
            blocks.append(name)
    return blocks


class _Reached(Exception):
    """The last of the first stages has computed its output."""


@torch.no_grad()
def run_stages(model: nn.Module, count: int, images: Tensor) -> Tensor:
    """Compute the output of the first stages.

    Args:
        model: a network; its first stages are in evaluation mode.
        count: number of stages, at least 1, see `stage_modules`.
        images: normalised float32 [N, 3, S, S].

    Returns:
        [N, D, h, w].
    """
    result: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        result.append(output)
        raise _Reached

    handle = model.get_submodule(_blocks(model, count)[-1]).register_forward_hook(keep)
    try:
        model(images)
    except _Reached:
        pass
    finally:
        handle.remove()
    return result[0]


class RemovedStages:
    """The first stages of a network, taken out of it: the network then computes its outputs from theirs.

    This works for networks whose stages run one after the other, which `are_removable` checks.

    Args:
        model: the network; it is changed in place until `restore` is called.
        count: number of stages, see `stage_modules`.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self._model = model
        self._modules = {name: model.get_submodule(name) for name in _blocks(model, count)}
        for name in self._modules:
            model.set_submodule(name, nn.Identity())

    def restore(self) -> None:
        """Put the stages back into the network."""
        for name, module in self._modules.items():
            self._model.set_submodule(name, module)


@torch.no_grad()
def are_removable(model: nn.Module, count: int, side: int) -> bool:
    """Return whether a network computes the same from the output of its first stages as from the image.

    Args:
        model: a network; it is run twice, in evaluation mode.
        count: number of stages.
        side: width and height of its input in pixels.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    features = run_stages(model, count, images)
    removed = RemovedStages(model, count)
    try:
        same = torch.allclose(model(features), expected, atol=1e-5)
    except RuntimeError:  # the shapes do not fit: some module before the end of the stages belongs to none of them
        same = False
    finally:
        removed.restore()
    for module, mode in modes.items():
        module.training = mode
    return same
