"""The exported graph: uint8 images to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vinegrape_handler.networks import ACTIVATION_MAPS, OOD_SCORE, PROBABILITIES
from vinegrape_training.fit.run import Run
from vinegrape_training.models.outputs import ood_score

_EXAMPLE_SIDE = 64  # pixels; large enough for every network that is not built for one size


class ServingGraph(nn.Module):
    """All steps from a resized image to its probabilities, so that every runtime computes the same.

    The graph transposes and normalises the image, runs the network, divides the logits by the temperature (Guo et al.
    2017, "On Calibration of Modern Neural Networks") and computes the softmax.

    Most networks end with the mean of their last features over all places and one linear layer. The graph then applies
    the layer at each place first, and takes the mean of the results: these are the same logits, and the results are the
    class activation maps (Zhou et al. 2016, "Learning Deep Features for Discriminative Localization").

    Attributes:
        outputs: names of the outputs, in their order.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        temperature: float,
        classes: int | None = None,
    ) -> None:
        """Wrap a network, and put it in evaluation mode.

        Args:
            network: takes normalised float32 [N, 3, S, S] and returns logits [N, C], or [N, C + 1]: the last one is
                then the logit of images of none of the classes.
            mean: of each channel, for pixels between 0 and 1.
            std: standard deviation of each channel, for pixels between 0 and 1.
            temperature: what the logits are divided by, above 0.
            classes: the number of classes, C; None if each logit is that of a class.
        """
        super().__init__()
        mean_, std_ = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        # (pixel / 255 - mean) / std as one multiplication and one addition
        self.register_buffer("scale", 1 / (255 * std_))
        self.register_buffer("offset", -mean_ / std_)
        self.network = network
        self.temperature = temperature
        self.classes = classes
        self.eval()
        self._computes_maps = has_activation_maps(network)
        self.outputs = [
            PROBABILITIES,
            *([OOD_SCORE] if classes is not None else []),
            *([ACTIVATION_MAPS] if self._computes_maps else []),
        ]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of uint8 images [N, S, S, 3].

        The images are converted to the type of the weights, so that a module in half precision computes in half
        precision up to the logits.

        Returns:
            float32 by name: `probabilities` [N, C]; with `classes`, `ood_score` [N]; for networks as described above,
            `activation_maps` [N, C, h, w], whose mean over all places plus the class's bias is the class's logit.
        """
        normalised = images.permute(0, 3, 1, 2).type_as(self.scale) * self.scale + self.offset  # [N, 3, S, S]
        logits, maps = self._logits(normalised)
        of_classes = logits[:, : self.classes]
        results = [torch.softmax(of_classes / self.temperature, dim=1)]
        if self.classes is not None:
            results.append(ood_score(logits, self.classes))
        if maps is not None:
            results.append(maps[:, : self.classes])
        return dict(zip(self.outputs, results, strict=True))

    def _logits(self, normalised: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and, if the network has them, the activation maps of all its outputs."""
        if not self._computes_maps:
            return self.network(normalised).float(), None
        features = self.network.forward_features(normalised)  # type: ignore[operator]
        layer: nn.Linear = self.network.get_classifier()  # type: ignore[operator]
        # The bias is part of the convolution: the int8 file would round the logits once more for an addition after it
        places = nn.functional.conv2d(features, layer.weight[:, :, None, None], layer.bias).float()  # [N, C, h, w]
        bias = 0.0 if layer.bias is None else layer.bias.float().view(-1, 1, 1)
        return places.mean(dim=(2, 3)), places - bias


def graph_of(run: Run, temperature: float) -> ServingGraph:
    """Load the network of a run into the graph, in evaluation mode.

    Args:
        run: a finished run.
        temperature: what the logits are divided by, above 0.
    """
    classes = len(run.classes) if run.has_ood_score else None
    return ServingGraph(run.load_model(), run.mean, run.std, temperature, classes).eval()


@torch.no_grad()
def has_activation_maps(network: nn.Module) -> bool:
    """Return whether a network's logits are the mean over all places of its last layer's outputs at each place.

    Args:
        network: in evaluation mode. It is run once, unless it cannot have such maps.
    """
    layer = network.get_classifier() if hasattr(network, "get_classifier") else None  # type: ignore[operator]
    fixed_size = getattr(network, "pretrained_cfg", {}).get("fixed_input_size", False)
    if not isinstance(layer, nn.Linear) or fixed_size:  # networks for one size are transformers
        return False
    images = torch.randn(2, 3, _EXAMPLE_SIDE, _EXAMPLE_SIDE, generator=torch.Generator().manual_seed(0))
    features = network.forward_features(images)  # type: ignore[operator]
    if features.dim() != 4 or features.shape[1] != layer.in_features:
        return False
    logits = network(images)
    return torch.allclose(layer(features.mean(dim=(2, 3))), logits, atol=1e-4 * float(logits.abs().max()))
