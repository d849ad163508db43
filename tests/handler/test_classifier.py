import dataclasses
import resource
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode, grey, png
from tests.support.metadata import METADATA
from vinegrape_handler.classifier import Classifier, TimedImage
from vinegrape_handler.errors import (
    BadRequest,
    BrokenImage,
    DeadlineExceeded,
    InferenceFailed,
    NoImage,
    TooLarge,
    UnsupportedFormat,
)
from vinegrape_handler.images.decode import Limits
from vinegrape_handler.memory import data_bytes
from vinegrape_handler.networks import Outputs
from vinegrape_handler.settings import MAX_BATCH_SIZE

LIMITS = Limits(max_bytes=10_000, max_pixels=10_000)


class TwicePlusOne:
    """A network that computes 2x + 1 for an image of grey x: 9 for 4."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        self.batches.append(batch)
        return Outputs(2 * batch[:, :1, 0, 0].astype(np.float32) + 1)


def failing_network(batch):
    raise RuntimeError("out of memory")


def classifier(network, decode_threads=1, **options) -> Classifier:
    return Classifier(dataclasses.replace(METADATA, input_size=4), network, LIMITS, decode_threads, **options)


def values(results) -> list:
    return [type(result) if isinstance(result, Exception) else float(result.probabilities[0]) for result in results]


def test_one_image_is_one_batch():
    network = TwicePlusOne()
    assert values(classifier(network).classify([grey(4)])) == [9]
    (batch,) = network.batches
    assert batch.shape == (1, 4, 4, 3)
    assert batch.dtype == np.uint8
    assert (batch == 4).all()


@pytest.mark.parametrize("decode_threads", [1, 4])
def test_results_have_the_order_of_the_images_and_come_from_one_call(decode_threads):
    network = TwicePlusOne()
    images = [grey(value) for value in (200, 3, 77, 0, 255, 3)]
    assert values(classifier(network, decode_threads).classify(images)) == [401, 7, 155, 1, 511, 7]
    assert [len(batch) for batch in network.batches] == [6]


@pytest.mark.parametrize("decode_threads", [1, 4])
def test_invalid_images_do_not_affect_valid_ones(decode_threads):
    network = TwicePlusOne()
    images = [grey(1), b"no image", grey(2), b"", grey(3)[:50], encode(Image.new("L", (101, 100)), "PNG"), grey(4)]
    assert values(classifier(network, decode_threads).classify(images)) == [
        3, UnsupportedFormat, 5, NoImage, BrokenImage, TooLarge, 9,
    ]  # fmt: skip
    assert [len(batch) for batch in network.batches] == [3]


@pytest.mark.parametrize("decode_threads", [1, 4])
def test_an_error_among_the_images_is_returned_in_its_place(decode_threads):
    network, error = TwicePlusOne(), BadRequest("not base64")
    results = classifier(network, decode_threads).classify([grey(1), error, b"no image", error, grey(4)])
    assert values(results) == [3, BadRequest, UnsupportedFormat, BadRequest, 9]
    assert results[1] is results[3] is error
    assert [len(batch) for batch in network.batches] == [2]


def test_the_network_is_not_called_without_a_valid_image():
    network = TwicePlusOne()
    assert classifier(network).classify([]) == []
    assert values(classifier(network).classify([b"", BadRequest("not base64")])) == [NoImage, BadRequest]
    assert network.batches == []


def test_images_of_all_sizes_are_one_batch():
    network = TwicePlusOne()
    images = [grey(value, side) for value, side in ((1, 1), (2, 4), (3, 50), (4, 100))]
    assert values(classifier(network).classify(images)) == [3, 5, 7, 9]
    assert [batch.shape for batch in network.batches] == [(4, 4, 4, 3)]


def test_many_images_are_split_into_calls_of_limited_size():
    network = TwicePlusOne()
    greys = list(range(MAX_BATCH_SIZE + 2))
    assert values(classifier(network).classify([grey(value) for value in greys])) == [2 * value + 1 for value in greys]
    assert [len(batch) for batch in network.batches] == [MAX_BATCH_SIZE, 2]
    network.batches.clear()
    assert len(classifier(network, call_size=2).classify([grey(1)] * 5)) == 5
    assert [len(batch) for batch in network.batches] == [2, 2, 1]


def test_an_error_of_the_network_is_logged_and_hidden_from_the_client(caplog):
    results = classifier(failing_network).classify([grey(1), b"no image", grey(2)])
    assert values(results) == [InferenceFailed, UnsupportedFormat, InferenceFailed]
    assert "out of memory" not in str(results[0])
    assert "out of memory" in caplog.text


def test_the_network_is_called_again_after_an_error():
    class FailsOnce(TwicePlusOne):
        def __call__(self, batch):
            result = super().__call__(batch)
            if len(self.batches) == 1:
                raise RuntimeError
            return result

    again = classifier(FailsOnce())
    assert values(again.classify([grey(1)])) == [InferenceFailed]
    assert values(again.classify([grey(1)])) == [3]


def test_an_error_in_one_call_does_not_affect_the_other_calls():
    class FailsOnLargeBatches(TwicePlusOne):
        def __call__(self, batch):
            if len(batch) == MAX_BATCH_SIZE:
                raise RuntimeError
            return super().__call__(batch)

    results = values(classifier(FailsOnLargeBatches()).classify([grey(4)] * (MAX_BATCH_SIZE + 1)))
    assert results == [InferenceFailed] * MAX_BATCH_SIZE + [9]


def test_decode_threads_decode_the_images(monkeypatch):
    from vinegrape_handler import classifier as module

    names = set()
    decode = module.decode

    def record_thread(*arguments):
        names.add(threading.current_thread().name.partition("_")[0])
        return decode(*arguments)

    monkeypatch.setattr(module, "decode", record_thread)
    assert values(classifier(TwicePlusOne(), 4).classify([grey(4)] * 8)) == [9] * 8
    assert names == {"decode"}


def test_the_work_for_an_image_is_its_pixels_when_it_is_decoded_or_that_of_its_structure():
    jpeg = encode(Image.new("RGB", (96, 64)), "JPEG")
    progressive = encode(Image.new("RGB", (96, 64)), "JPEG", progressive=True)
    assert classifier(TwicePlusOne()).work(grey(1, side=20)) == 400
    # Scaled to an eighth, which is at least twice 4 x 4, it has 96 pixels. But all are read, once per scan
    assert classifier(TwicePlusOne()).work(jpeg) == pytest.approx(96 * 64 / 30, rel=0.02)
    assert classifier(TwicePlusOne()).work(progressive) == pytest.approx(10 * 96 * 64 / 30, rel=0.02)
    assert classifier(TwicePlusOne()).work(b"no image") == 0


@pytest.mark.parametrize("decode_threads", [1, 4])
def test_an_image_is_not_decoded_after_its_deadline(decode_threads):
    now = time.time()
    images = [TimedImage(grey(1), now + 3600), TimedImage(grey(2), now - 1), grey(4), TimedImage(b"no image", now - 1)]
    expected = [3, DeadlineExceeded, 9, DeadlineExceeded]
    assert values(classifier(TwicePlusOne(), decode_threads).classify(images)) == expected


# Memory. The limit is set in a process of its own, which must not end: the resizer would end it


def images_that_need_memory() -> dict[str, bytes]:
    square, side = Image.new("RGBA", (4000, 4000)), 4000
    return {
        "png": encode(square, "PNG"),
        "webp": encode(square, "WEBP", lossless=True, method=0, quality=0),
        "tiff": encode(square, "TIFF", compression="tiff_deflate", tiffinfo={278: side}),
        "16 bits": png(side, side, 16, 0, (b"\0" + bytes(2 * side)) * side),
        "large tile": tiff_with_a_tile(side=8000),
        "rows": png(1, 5_000_000, 8, 0, bytes(2 * 5_000_000)),
        "columns": png(5_000_000, 1, 8, 0, bytes(1 + 5_000_000)),
    }


def tiff_with_a_tile(side: int) -> bytes:
    """A compressed grey TIFF of 16 x 16 pixels in one tile, which is larger than the image."""
    tile = zlib.compress(bytes(side * side))
    tags = [  # number, type (3: 16 bits, 4: 32 bits), count, value
        (256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
        (322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 8 + 2 + 10 * 12 + 4), (325, 4, 1, len(tile)),
    ]  # fmt: skip
    return b"II*\0" + struct.pack("<IH", 8, 10) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4) + tile


def classify_with_little_memory(*files: str) -> None:
    """Write the type of each file's result, with 60 MB in addition to what the process has."""
    limits = Limits(max_bytes=20_000_000, max_pixels=20_000_000)
    metadata = dataclasses.replace(METADATA, input_size=320, interpolation="bicubic")
    classifier = Classifier(metadata, TwicePlusOne(), limits)
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + 60_000_000,) * 2)
    for file in files:
        (result,) = classifier.classify([Path(file).read_bytes()])
        sys.stdout.write(f"{type(result).__name__}\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit counts allocated memory only on Linux")
def test_an_image_that_needs_too_much_memory_is_too_large(tmp_path):
    images = images_that_need_memory()
    small = {"half": broken_png(), "grey": grey(4)}
    files = []
    for name, data in {**images, **small}.items():
        files.append(tmp_path / name)
        files[-1].write_bytes(data)
    code = f"from {__name__} import classify_with_little_memory as run; import sys; run(*sys.argv[1:])"
    result = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    types = dict(zip([file.name for file in files], result.stdout.split(), strict=True))
    assert types == {**dict.fromkeys(images, "TooLarge"), "half": "BrokenImage", "grey": "Scores"}


def broken_png() -> bytes:
    data = encode(Image.new("RGB", (200, 200)), "PNG")
    return data[: len(data) // 2]
