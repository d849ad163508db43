"""The OpenAPI description against a running server with the edge: schemathesis looks for a difference."""

import io
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import program
from tests.support.server import Live, serving
from vinegrape_server.edge.openapi.document import IMAGE_TYPES

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("openapi")]


def encoded(media_type: str, colour: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, media_type.removeprefix("image/").upper())
    return file.getvalue()


colours = st.tuples(*[st.integers(0, 255)] * 3)
for image_type in IMAGE_TYPES:
    schemathesis.openapi.media_type(image_type, colours.map(lambda colour, kind=image_type: encoded(kind, colour)))
schemathesis.openapi.format("binary", colours.map(lambda colour: encoded("image/png", colour)))


@pytest.fixture(scope="module")
def live(abstaining_archive, tmp_path_factory) -> Iterator[Live]:
    program("haproxy", "haproxy")
    with serving(abstaining_archive, tmp_path_factory.mktemp("openapi") / "log", edge=True) as running:
        yield running


@pytest.fixture(scope="module")
def described(live):
    config = {
        # The header x-request-timeout-ms may be 1 ms; 504 is the right answer then
        "checks": {
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 504]},
            # 413 is the answer to too many instances
            "negative_data_rejection": {"expected-statuses": ["4xx", "5xx"]},
        },
        # Unknown headers and query parameters are ignored, as HTTP demands of headers
        "generation": {"allow-extra-parameters": False},
        # A schema cannot say that a tensor's shape fits its data
        "operations": [{"include-path-regex": "/infer$", "checks": {"positive_data_acceptance": {"enabled": False}}}],
    }
    return schemathesis.openapi.from_url(
        f"http://127.0.0.1:{live.rest_port}/openapi.json", config=schemathesis.Config.from_dict(config)
    )


operations = schemathesis.pytest.from_fixture("described")


@operations.parametrize()
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_server_does_what_the_description_says(case):
    case.call_and_validate()
