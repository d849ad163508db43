"""Random numbers from torch's global CPU generator, so that a seed gives the same images on every device."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(count: int, low: float, high: float) -> Tensor:
    """Draw float32 [count], from `low` to `high`."""
    return torch.rand(count) * (high - low) + low


def choose(count: int, probability: float) -> list[int]:
    """Choose some of the numbers from 0 to `count` - 1, each with a probability."""
    indices: list[int] = (torch.rand(count) < probability).nonzero().flatten().tolist()
    return indices


def smooth_noise(side: int, rows: int, columns: int) -> Tensor:
    """Draw noise that changes slowly: float32 [side, side], from a grid of rows x columns normal random numbers."""
    grid = torch.randn(1, 1, rows, columns)
    return torch.nn.functional.interpolate(grid, (side, side), mode="bicubic", align_corners=False)[0, 0]
