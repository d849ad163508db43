"""What light and camera do to an image: shadow, exposure, white balance, blur, low resolution, noise, JPEG."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad
from torchvision.io import decode_jpeg, encode_jpeg  # type: ignore[import-untyped]

from vinegrape_training.data.augmentation.random_numbers import choose, smooth_noise, uniform

# Exposure, colour temperature, tint and gamma are factors; these are limits of their natural logarithms
_EXPOSURE = (-0.65, 0.45)
_TEMPERATURE = 0.22
_TINT = 0.06
_GAMMA = 0.35
_CONTRAST = (-0.3, 0.2)  # relative change of the distance to the image's mean

_SHADOW = (0.15, 0.65)  # share of the light that is taken away where a shadow is darkest
_RESOLUTION = (0.4, 0.9)  # of the side
_NOISE = (2.0, 14.0)  # standard deviation, of 255
_JPEG_QUALITY = (20, 80)


def add_shadow(images: Tensor, probability: float) -> Tensor:
    """Darken a part of some images, with a soft edge. Images are float32 [N, 3, S, S], 0 to 255, and are changed."""
    for index in choose(len(images), probability):
        cells = int(torch.randint(2, 5, ()))
        depth = torch.sigmoid(smooth_noise(images.shape[-1], cells, cells) * uniform(1, 1, 8) + uniform(1, -1, 1))
        images[index] *= (1 - uniform(1, *_SHADOW) * depth).to(images.device)
    return images


def change_light(images: Tensor, probability: float) -> Tensor:
    """Change exposure, white balance, gamma and contrast of some images. Images are changed."""
    for index in choose(len(images), probability):
        exposure, temperature = uniform(1, *_EXPOSURE), uniform(1, -_TEMPERATURE, _TEMPERATURE)
        gains = torch.cat([exposure + temperature, exposure + uniform(1, -_TINT, _TINT), exposure - temperature]).exp()
        gamma = float(uniform(1, -_GAMMA, _GAMMA).exp())
        lit = (images[index] / 255).clamp(1e-4, 1) ** gamma * gains.view(3, 1, 1).to(images.device)
        mean = lit.mean()
        images[index] = ((lit - mean) * (1 + float(uniform(1, *_CONTRAST))) + mean).clamp(0, 1) * 255
    return images


def blur(images: Tensor, probability: float, sigma: tuple[float, float]) -> Tensor:
    """Blur some images with a Gaussian kernel of a random sigma, in pixels. Images are changed."""
    for index in choose(len(images), probability):
        deviation = float(uniform(1, *sigma))
        radius = min(math.ceil(2.5 * deviation), images.shape[-1] - 1)
        kernel = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * deviation**2)).to(images)
        kernel /= kernel.sum()
        padded = pad(images[index, :, None], (radius,) * 4, mode="replicate")  # [3, 1, S + 2r, S + 2r]
        rows = conv2d(padded, kernel.view(1, 1, 1, -1))
        images[index] = conv2d(rows, kernel.view(1, 1, -1, 1))[:, 0]
    return images


def reduce_resolution(images: Tensor, probability: float) -> Tensor:
    """Reduce some images and enlarge them again. Images are changed."""
    side = images.shape[-1]
    for index in choose(len(images), probability):
        small = max(1, int(side * uniform(1, *_RESOLUTION)))
        reduced = interpolate(images[index : index + 1], (small, small), mode="bilinear", antialias=True)
        images[index] = interpolate(reduced, (side, side), mode="bilinear")[0]
    return images


def add_noise(images: Tensor, probability: float) -> Tensor:
    """Add normal noise to some images. Images are changed."""
    for index in choose(len(images), probability):
        noise = uniform(1, *_NOISE) * torch.randn(images.shape[1:])
        images[index] = (images[index] + noise.to(images.device)).clamp(0, 255)
    return images


def compress(images: Tensor, probability: float) -> Tensor:
    """Compress some images as JPEG and decode them. Images are changed."""
    for index in choose(len(images), probability):
        encoded = encode_jpeg(images[index].round().to(torch.uint8).cpu(), int(uniform(1, *_JPEG_QUALITY)))
        images[index] = decode_jpeg(encoded).to(images)
    return images
