import dataclasses
import threading

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode, grey
from tests.support.metadata import METADATA
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.decode import Limits
from vinegrape_handler.errors import BrokenImage, InferenceFailed, NoImage, TooLarge, UnsupportedFormat
from vinegrape_handler.settings import MAX_BATCH_SIZE

LIMITS = Limits(max_bytes=10_000, max_pixels=10_000)


class TwiceAndOne:
    """A network that answers x to a picture of grey x with 2x + 1: 4 gives 9."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        self.batches.append(batch)
        return 2 * batch[:, :1, 0, 0].astype(np.float32) + 1


class Fails:
    def __call__(self, batch):
        raise RuntimeError("out of memory")


def classifier(network, decode_threads=1, **options) -> Classifier:
    return Classifier(dataclasses.replace(METADATA, input_size=4), network, LIMITS, decode_threads, **options)


def values(results) -> list:
    return [type(each) if isinstance(each, Exception) else float(each[0]) for each in results]


def test_one_image():
    network = TwiceAndOne()
    assert values(classifier(network).classify([grey(4)])) == [9]
    (batch,) = network.batches
    assert batch.shape == (1, 4, 4, 3)
    assert batch.dtype == np.uint8
    assert (batch == 4).all()


@pytest.mark.parametrize("decode_threads", [1, 4])
def test_the_order_is_kept_and_the_network_called_once(decode_threads):
    network = TwiceAndOne()
    greys = [200, 3, 77, 0, 255, 3]
    assert values(classifier(network, decode_threads).classify([grey(each) for each in greys])) == [
        401, 7, 155, 1, 511, 7,
    ]  # fmt: skip
    assert [len(batch) for batch in network.batches] == [6]


@pytest.mark.parametrize("decode_threads", [1, 4])
def test_invalid_among_many(decode_threads):
    network = TwiceAndOne()
    images = [grey(1), b"no image", grey(2), b"", grey(3)[:50], encode(Image.new("L", (101, 100)), "PNG"), grey(4)]
    assert values(classifier(network, decode_threads).classify(images)) == [
        3, UnsupportedFormat, 5, NoImage, BrokenImage, TooLarge, 9,
    ]  # fmt: skip
    assert [len(batch) for batch in network.batches] == [3]


def test_no_image_is_no_call():
    network = TwiceAndOne()
    assert classifier(network).classify([]) == []
    assert values(classifier(network).classify([b"", b""])) == [NoImage, NoImage]
    assert network.batches == []


def test_pictures_of_all_sizes_are_one_batch():
    network = TwiceAndOne()
    images = [grey(each, side) for each, side in ((1, 1), (2, 4), (3, 50), (4, 100))]
    assert values(classifier(network).classify(images)) == [3, 5, 7, 9]
    assert [batch.shape for batch in network.batches] == [(4, 4, 4, 3)]


def test_more_than_a_call_of_the_network_holds():
    network = TwiceAndOne()
    greys = list(range(MAX_BATCH_SIZE + 2))
    assert values(classifier(network).classify([grey(each) for each in greys])) == [2 * each + 1 for each in greys]
    assert [len(batch) for batch in network.batches] == [MAX_BATCH_SIZE, 2]
    network.batches.clear()
    assert len(classifier(network, call_size=2).classify([grey(1)] * 5)) == 5
    assert [len(batch) for batch in network.batches] == [2, 2, 1]


def test_a_network_that_fails_fails_its_images_only(caplog):
    results = classifier(Fails()).classify([grey(1), b"no image", grey(2)])
    assert values(results) == [InferenceFailed, UnsupportedFormat, InferenceFailed]
    assert "out of memory" not in str(results[0])  # the log's, not the client's
    assert "out of memory" in caplog.text


def test_a_network_that_failed_is_asked_again():
    class FailsOnce(TwiceAndOne):
        def __call__(self, batch):
            result = super().__call__(batch)
            if len(self.batches) == 1:
                raise RuntimeError
            return result

    again = classifier(FailsOnce())
    assert values(again.classify([grey(1)])) == [InferenceFailed]
    assert values(again.classify([grey(1)])) == [3]


def test_a_failure_in_one_call_leaves_the_other_calls_answers():
    class FailsOnLarge(TwiceAndOne):
        def __call__(self, batch):
            if len(batch) == MAX_BATCH_SIZE:
                raise RuntimeError
            return super().__call__(batch)

    results = values(classifier(FailsOnLarge()).classify([grey(4)] * (MAX_BATCH_SIZE + 1)))
    assert results == [InferenceFailed] * MAX_BATCH_SIZE + [9]


def test_decode_threads_do_the_decoding(monkeypatch):
    from vinegrape_handler import classifier as module

    names = set()
    decode = module.decode

    def noting(*arguments):
        names.add(threading.current_thread().name.partition("_")[0])
        return decode(*arguments)

    monkeypatch.setattr(module, "decode", noting)
    assert values(classifier(TwiceAndOne(), 4).classify([grey(4)] * 8)) == [9] * 8
    assert names == {"decode"}
