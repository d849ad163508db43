from __future__ import annotations

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from tests.support.small_config import compose_config
from vinegrape_training.fit.config import trainer_settings
from vinegrape_training.fit.machines import Machine
from vinegrape_training.fit.trainer import precision, strategy

NEW_CPU, OLD_CPU = {"avx512_bf16": True}, {"avx512_f": True}
NEW_GPU, OLD_GPU, NO_GPU = True, False, None


@pytest.mark.parametrize(
    ("accelerator", "gpu", "cpu", "expected"),
    [
        ("auto", NEW_GPU, OLD_CPU, "bf16-mixed"),
        ("auto", OLD_GPU, NEW_CPU, "32-true"),
        ("auto", NO_GPU, NEW_CPU, "bf16-mixed"),
        ("auto", NO_GPU, {"amx_bf16": True}, "bf16-mixed"),
        ("auto", NO_GPU, OLD_CPU, "32-true"),
        ("cpu", NEW_GPU, OLD_CPU, "32-true"),
        ("cpu", NEW_GPU, NEW_CPU, "bf16-mixed"),
        ("mps", NO_GPU, NEW_CPU, "32-true"),
    ],
)
def test_bfloat16_is_used_if_the_device_that_trains_supports_it(
    accelerator: str, gpu: bool | None, cpu: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu or including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    assert precision(accelerator) == expected


@pytest.mark.parametrize(
    ("overrides", "machine", "expected"),
    [
        ((), Machine(), "auto"),
        (("trainer.devices=auto",), Machine(), "auto"),
        (("trainer.strategy=fsdp", "trainer.devices=2"), Machine(2, 1), "fsdp"),
        (("trainer.strategy=ddp",), Machine(), DDPStrategy),
        (("trainer.devices=2",), Machine(), DDPStrategy),
        ((), Machine(2, 1), DDPStrategy),
    ],
)
def test_several_processes_train_with_ddp(
    overrides: tuple[str, ...], machine: Machine, expected: str | type[DDPStrategy]
) -> None:
    chosen = strategy(trainer_settings(compose_config(*overrides)), machine)
    assert chosen == expected if isinstance(expected, str) else isinstance(chosen, expected)
