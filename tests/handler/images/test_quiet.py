"""Nothing that a file contains reaches standard error: neither through Python nor from C."""

import io
import os
import random
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode, gradient
from vinegrape_handler.errors import RequestError
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.quiet import quiet_decoder
from vinegrape_loadtests.fuzz.mutations import apply, random_changes

LIMITS = Limits(10**6, 10**6)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))

# Decodes each file that it is given in a process that is set up as a worker
PROGRAM = """
import sys
from pathlib import Path
from vinegrape_handler.errors import RequestError
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.images.quiet import quiet_warnings
quiet_warnings()
for file in sys.argv[1:]:
    try:
        decode(Path(file).read_bytes(), Limits(10**7, 10**6), 16)
    except RequestError:
        pass
    print("decoded")
"""


def broken_fax() -> bytes:
    """libtiff writes a line for each of its rows."""
    data = bytearray(encode(NOISE.convert("1"), "TIFF", compression="group3"))
    data[8:100] = random.Random(0).randbytes(92)
    return bytes(data)


def damaged_tiffs() -> list[bytes]:
    """TIFFs about which libtiff writes errors, and one about which Pillow writes two lines per tag."""
    tags = dict.fromkeys(range(60000, 60500), "x" * 20)
    many_tags = bytearray(encode(gradient(), "TIFF", tiffinfo=tags))
    for number in range(60_000, 60_500):  # the length of the text
        at = many_tags.index(number.to_bytes(2, "little") + b"\2\0")
        many_tags[at + 4 : at + 8] = b"\xff\xff\xff\x0f"
    rng = random.Random(0)
    compressed = [encode(NOISE, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    return [bytes(many_tags), broken_fax()] + [
        apply(data, random_changes(rng)) for data in compressed for _ in range(30)
    ]


def test_a_worker_writes_nothing_about_damaged_images(tmp_path: Path):
    files = damaged_tiffs()
    for number, data in enumerate(files):
        (tmp_path / str(number)).write_bytes(data)
    paths = [str(tmp_path / str(number)) for number in range(len(files))]
    result = subprocess.run([sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, timeout=120)
    assert result.stdout.count("decoded") == len(files)
    assert result.stderr == ""


@pytest.mark.filterwarnings("ignore")
def test_libtiff_would_write_and_is_kept_quiet(capfd):
    data = encode(NOISE, "TIFF", compression="tiff_lzw")
    data = data[:8] + bytes(1000) + data[1008:]
    with pytest.raises(OSError, match="decoder error"):
        Image.open(io.BytesIO(data)).load()
    assert capfd.readouterr().err
    with pytest.raises(RequestError):
        decode(data, LIMITS, 16)
    assert not capfd.readouterr().err


def test_standard_error_comes_back_after_the_last_of_several_threads(capfd):
    barrier = Barrier(3)

    def write() -> None:
        with quiet_decoder("TIFF"):
            barrier.wait()
            os.write(2, b"hidden")

    threads = [Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"
    with quiet_decoder("PNG"):
        os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"
