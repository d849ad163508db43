"""Both clients against a running server, over REST and gRPC."""

import pytest

from tests.support.processes import workers
from tests.support.server import serving, wait_until
from vinegrape_client import Model, Retries
from vinegrape_client.errors import (
    BrokenImage,
    DeadlineExceeded,
    NotFound,
    NotSupported,
    Overloaded,
    TooLarge,
    Unavailable,
    UnexpectedResponse,
    UnsupportedFormat,
    VinegrapeError,
)

pytestmark = pytest.mark.live

BROKEN = b"\x89PNG\r\n\x1a\n" + bytes(30)
ONCE = Retries(attempts=1)


@pytest.fixture(params=["http", "grpc"])
def url(request, tiny_server) -> str:
    port = tiny_server.rest_port if request.param == "http" else tiny_server.grpc_port
    return f"{request.param}://127.0.0.1:{port}"


def test_the_prediction_is_that_of_the_server(connect, tiny_server, url, image):
    with connect(url) as client:
        prediction = client.predict(image)
    assert prediction.to_json() == tiny_server.post(image).json()
    assert (prediction.label, prediction.probability) == ("Ak", 0.75)
    assert prediction.model == Model("vinegrape", "tiny")


@pytest.mark.parametrize(("data", "error"), [(b"a text", UnsupportedFormat), (BROKEN, BrokenImage)])
def test_an_error_is_that_of_the_server(connect, tiny_server, url, data, error):
    with connect(url) as client, pytest.raises(error) as raised:
        client.predict(data)
    assert raised.value.to_json() == tiny_server.post(data).json()
    assert str(raised.value) == raised.value.message


def test_many_images_in_order(connect, url, image, tmp_path):
    (tmp_path / "red.png").write_bytes(image)
    images = [image, b"a text", tmp_path / "red.png", BROKEN, tmp_path / "none.png"] * 4
    with connect(url) as client:
        results = list(client.predict_many(images, concurrency=3))
    kinds = [type(result.error) for result in results]
    assert kinds == [type(None), UnsupportedFormat, type(None), BrokenImage, FileNotFoundError] * 4
    assert {result.prediction.label for result in results if result.prediction} == {"Ak"}


def test_another_model_is_not_found(connect, url, image):
    with connect(url, model="other") as client, pytest.raises(NotFound):
        client.predict(image)


def test_an_image_that_is_too_large(connect, url):
    with connect(url) as client:
        with pytest.raises(TooLarge, match="20000001 bytes"):
            client.predict(BROKEN + bytes(20_000_001 - len(BROKEN)))
        with pytest.raises(TooLarge):  # TorchServe, the gateway or gRPC refuses it
            client.predict(bytes(60_000_001))


def test_readiness_and_the_description(connect, tiny_server, url):
    with connect(url) as client:
        assert client.ready()
        if url.startswith("grpc"):
            with pytest.raises(NotSupported, match="REST"):
                client.describe()
            return
        description = client.describe()
    accept = {"accept": "application/json"}
    assert description.json == tiny_server.client.get("/predictions/vinegrape", headers=accept).json()
    assert (description.version, description.input_size, description.classes[0]) == ("tiny", 16, "Ak")
    assert (description.max_image_bytes, "PNG" in description.formats) == (20_000_000, True)


def test_a_server_that_is_not_vinegrape(connect, tiny_server):
    """The operations port speaks HTTP, and its responses are no predictions."""
    with connect(f"http://127.0.0.1:{tiny_server.ports['operations_port']}", retries=ONCE) as client:
        with pytest.raises(VinegrapeError) as raised:
            client.predict(b"image")
        assert isinstance(raised.value, NotFound | UnexpectedResponse) or raised.value.code == 405
        assert not client.ready()
    with connect(f"grpc://127.0.0.1:{tiny_server.rest_port}", retries=ONCE) as client:
        with pytest.raises(VinegrapeError):
            client.predict(b"image", timeout_s=5)
        assert not client.ready()


@pytest.fixture(scope="module")
def busy_server(tiny_archive, tmp_path_factory):
    """A server whose worker can be suspended, with a queue of one request."""
    with serving(tiny_archive, tmp_path_factory.mktemp("busy") / "log", queue_size=1) as live:
        yield live


@pytest.mark.xdist_group("busy_client_server")
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_deadline_and_a_full_queue(connect, busy_server, image, scheme):
    """Calls that are late fill the queue; a further one is refused, and succeeds once the worker goes on."""
    url = f"{scheme}://127.0.0.1:{busy_server.rest_port if scheme == 'http' else busy_server.grpc_port}"
    refused = Overloaded if scheme == "grpc" else Unavailable  # TorchServe's own refusal does not state its reason
    (worker,) = workers(busy_server.process)
    ends, delays = [], []

    def resume(seconds: float) -> None:
        delays.append(seconds)
        worker.resume()
        wait_until(lambda: busy_server.post(image).status_code == 200)

    worker.suspend()
    try:
        with connect(url, retries=ONCE) as impatient:
            while refused not in ends and len(ends) < 10:
                with pytest.raises((DeadlineExceeded, refused)) as raised:
                    impatient.predict(image, timeout_s=0.5)
                ends.append(raised.type)
        assert ends[0] is DeadlineExceeded
        assert ends[-1] is refused
        with connect(url, sleep=resume) as client:
            assert client.predict(image).label == "Ak"
        assert len(delays) == 1
    finally:
        worker.resume()
        wait_until(lambda: busy_server.post(image).status_code == 200)
