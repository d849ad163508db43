import importlib
import os
import sys

import pytest

from vinegrape_server.host.machine import count_cores, count_gpus, torch_installed

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, CORES),
        ({"cpu.max": "max 100000\n"}, CORES),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": f"{100000 * CORES - 50000} 100000\n"}, CORES),
        ({"cpu.max": "6400000 100000\n"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_containers_cpu_limit_is_rounded_up_to_whole_cores(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert count_cores(tmp_path) == cores


def install_nvidia_smi(folder, monkeypatch, script):
    """Put a shell script on PATH as `nvidia-smi`."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_gpus_are_counted_as_nvidia_smi_lists_them(tmp_path, monkeypatch):
    script = "echo 'GPU 0: H200 (UUID: a)'\necho '  MIG 1g'\necho 'GPU 1: H200 (UUID: b)'"
    install_nvidia_smi(tmp_path, monkeypatch, script)
    assert count_gpus(use_torch=False) == 2


def test_with_torch_the_gpus_that_torch_can_use_are_counted(tmp_path, monkeypatch):
    """The stand-in for `torch` reports three GPUs, and the one for nvidia-smi lists two."""
    install_nvidia_smi(tmp_path, monkeypatch, "echo 'GPU 0'\necho 'GPU 1'")
    (tmp_path / "torch.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert count_gpus(use_torch=True) == 3


def test_a_torch_that_cannot_be_imported_finds_no_gpu(tmp_path, monkeypatch):
    install_nvidia_smi(tmp_path, monkeypatch, "echo 'GPU 0'")
    (tmp_path / "torch.py").write_text("raise ImportError('libcuda is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert count_gpus(use_torch=True) == 0


def test_a_failing_nvidia_smi_means_no_gpu(tmp_path, monkeypatch):
    install_nvidia_smi(tmp_path, monkeypatch, "echo 'GPU access blocked by the operating system'\nexit 9")
    assert count_gpus(use_torch=False) == 0


def test_a_machine_without_nvidia_smi_has_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_gpus(use_torch=False) == 0


def test_torch_is_found_without_importing_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not torch_installed()
    (tmp_path / "torch.py").write_text("raise AssertionError('imported')")
    importlib.invalidate_caches()
    assert torch_installed()
