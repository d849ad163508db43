"""Description of this machine and of the software that is measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from vinegrape_handler.metadata import Metadata
from vinegrape_server.torchserve.java import find_java, java_version

_PACKAGES = ("vinegrape", "torchserve", "onnxruntime", "pillow", "numpy")
_VECTOR_UNITS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def describe_machine(cores: int) -> str:
    """Describe the processor, its vector units, the memory and the kernel.

    Args:
        cores: number of cores that this process may use.
    """
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "").split()
    vector = [flag for flag in _VECTOR_UNITS if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = names[0] if names else platform.machine()
    return f"{cores} cores of {name} ({', '.join(vector)}), {memory:.0f} GiB, Linux {platform.release()}"


def software_versions(archive: Path) -> dict[str, str]:
    """Return the versions of the packages, the archive and Java, by name.

    Args:
        archive: the folder of the unpacked archive.
    """
    packages = {name: version(name) for name in _PACKAGES}
    return packages | {"archive": Metadata.read(archive).version, "java": str(java_version(find_java()))}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
