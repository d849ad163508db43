"""The handler with the tiny model, and with TorchServe's own loader, service and context."""

import base64
import dataclasses
import itertools
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ts.context import Context, RequestProcessor
from ts.model_loader import ModelLoaderFactory

from tests.support.images import encode, gradient, grey, solid
from tests.support.tiny_archive import BLACK, BLUE, CLASSES, GREEN, RED, SIDE, probabilities
from vinegrape_handler.contract import (
    DEADLINE_HEADER,
    ERROR_HEADER,
    PATH_HEADER,
    START_FAILED,
    TIMING_HEADER,
    TRANSPORT_HEADER,
    VERSION_HEADER,
)
from vinegrape_handler.errors import ArchiveError, InferenceFailed, SettingError
from vinegrape_handler.handler import Handler
from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.settings import CPU_CALL_SIZE
from vinegrape_handler.weights import BACKENDS

GRADIENT = encode(gradient(), "PNG")
BROKEN = GRADIENT[: len(GRADIENT) // 2]
DESCRIBE = {"accept": "application/json", "content-length": "0"}


@pytest.fixture(scope="module")
def model_dir(tiny_archive, tmp_path_factory) -> Path:
    """The archive as TorchServe unpacks it."""
    folder = tmp_path_factory.mktemp("model")
    with zipfile.ZipFile(tiny_archive) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def changed_model(model_dir, tmp_path) -> Path:
    """A copy of the unpacked archive, which the test changes."""
    return shutil.copytree(model_dir, tmp_path / "changed")


def batch_context(folder, requests=1, gpu=None, headers=None) -> Context:
    context = Context("vinegrape", str(folder), {}, 1, gpu, "0.12.0")
    context.request_processor = [RequestProcessor(headers or {}) for _ in range(requests)]
    return context


def start(folder) -> Handler:
    handler = Handler()
    handler.initialize(batch_context(folder))
    return handler


def handle(handler, *rows, headers=None) -> tuple[list, list[int]]:
    """Process a batch. Return the bodies and the statuses."""
    context = batch_context("", len(rows), headers=headers)
    bodies = [json.loads(body) for body in handler.handle(list(rows), context)]
    for index, body in enumerate(bodies):
        error = body["error"]["type"] if "error" in body else "none"
        headers = dict(context.get_response_headers(index))
        headers.pop(TIMING_HEADER, None)
        assert headers == {"content-type": "application/json", ERROR_HEADER: error, VERSION_HEADER: "tiny"}
    return bodies, [context.get_response_status(index)[0] for index in range(len(rows))]


def b64(data) -> dict:
    return {"b64": base64.b64encode(data).decode()}


def instances(*items) -> bytes:
    return json.dumps({"instances": list(items)}).encode()


def assert_prediction(body: Mapping, colour: Sequence[int]) -> None:
    """Check a body against the probabilities that the tiny model has for a colour."""
    expected = probabilities(colour)
    assert list(body) == ["label", "probability", "probabilities", "model"]
    assert body["label"] == CLASSES[expected.index(max(expected))]
    assert body["probability"] == body["probabilities"][body["label"]]
    assert list(body["probabilities"]) == list(CLASSES)
    assert list(body["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
    assert body["model"] == {"name": "vinegrape", "version": "tiny"}


# A batch


@pytest.fixture(scope="module")
def handler(model_dir) -> Handler:
    return start(model_dir)


def test_every_request_of_a_batch_gets_its_prediction(handler):
    colours = (RED, GREEN, BLUE, BLACK)
    bodies, statuses = handle(handler, *({"body": bytearray(solid(colour))} for colour in colours))
    for body, colour in zip(bodies, colours, strict=True):
        assert_prediction(body, colour)
    assert statuses == [200] * 4


def test_a_response_states_the_time_of_decoding_and_of_the_network(handler):
    context = batch_context("", 2)
    handler.handle([{"body": solid(RED)}, {}], context)
    durations = re.fullmatch(
        r"decode;dur=(\d+\.\d), inference;dur=(\d+\.\d)", context.get_response_headers(0)[TIMING_HEADER]
    )
    timing = handler.classifier.timing
    assert [float(value) for value in durations.groups()] == pytest.approx([1000 * part for part in timing], abs=0.06)
    assert all(part > 0 for part in timing)
    assert TIMING_HEADER not in context.get_response_headers(1)  # the request has no image


def test_each_request_of_a_mixed_batch_gets_the_response_that_it_gets_alone(handler):
    rows = [
        {"body": solid(RED)},
        {"body": b"no image"},
        {"body": instances(b64(solid(GREEN)), b64(b"no image"), {"b64": "?"}, b64(solid(BLUE)))},
        {},
        {"data": solid(GREEN)},
        {"body": b'{"instances": []}'},
        {"body": b"{"},
        {"image": BROKEN},
        {"file": solid(BLUE)},
    ]
    bodies, statuses = handle(handler, *rows)
    assert statuses == [200, 415, 200, 400, 200, 400, 400, 422, 200]
    for index, colour in ((0, RED), (4, GREEN), (8, BLUE)):
        assert_prediction(bodies[index], colour)
    green, not_an_image, not_base64, blue = bodies[2]["predictions"]
    assert_prediction(green, GREEN)
    assert_prediction(blue, BLUE)
    assert (not_an_image["error"]["code"], not_base64["error"]["code"]) == (415, 400)
    assert bodies == [handle(handler, row)[0][0] for row in rows]


def test_requests_of_different_protocols_share_a_batch(handler, monkeypatch):
    sizes = []
    network = handler.classifier._network
    monkeypatch.setattr(handler.classifier, "_network", lambda batch: (sizes.append(len(batch)), network(batch))[1])
    context = batch_context("")
    infer = {PATH_HEADER: "/v2/models/vinegrape/infer"}
    huggingface = {PATH_HEADER: "/predictions/vinegrape?format=huggingface&top_k=1"}
    context.request_processor = [RequestProcessor(headers) for headers in ({}, infer, infer, huggingface)]
    pixels = {"name": "pixels", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3], "data": [0] * (3 * SIDE * SIDE)}
    rows = [{"body": solid(RED)}, {"body": json.dumps({"inputs": [pixels]}).encode()}, {"body": b"{}"}]
    own, tensors, error, labels = map(json.loads, handler.handle([*rows, {"body": solid(GREEN)}], context))
    assert sizes == [3]
    assert_prediction(own, RED)
    assert tensors["outputs"][0]["data"] == pytest.approx(probabilities(BLACK), abs=1e-5)
    assert error == {"error": error["error"]}
    assert error["error"].startswith('"inputs" must be a list')
    assert [label["label"] for label in labels] == ["Ala_Idris"]
    assert [context.get_response_status(index)[0] for index in range(4)] == [200, 200, 400, 200]


def test_all_images_of_a_batch_go_through_one_call_of_the_network(handler, monkeypatch):
    sizes = []
    network = handler.classifier._network
    monkeypatch.setattr(handler.classifier, "_network", lambda batch: (sizes.append(len(batch)), network(batch))[1])
    image = solid(RED)
    handle(handler, {"body": image}, {"body": b""}, {"body": instances(*[b64(image)] * 3)})
    assert sizes == [4]


def test_an_error_of_the_network_is_status_503(handler, monkeypatch):
    def fails(batch):
        raise RuntimeError

    monkeypatch.setattr(handler.classifier, "_network", fails)
    bodies, statuses = handle(handler, {"body": grey(1)}, {"body": b"no image"})
    assert statuses == [503, 415]
    assert bodies[0]["error"]["type"] == InferenceFailed.type


def test_a_request_on_which_the_handler_fails_does_not_fail_the_others_of_its_batch(model_dir, capsys):
    class Fails(Handler):
        def classify(self, images):
            if any(image.data == b"fail" for image in images):
                raise ValueError("requested\nby the test")
            if any(image.data == b"exhaust" for image in images):
                raise MemoryError
            return super().classify(images)

    handler = Fails()
    handler.initialize(batch_context(model_dir))
    rows = ({"body": solid(RED)}, {"body": b"fail"}, {"body": b"exhaust"}, {"body": solid(BLUE)})
    bodies, statuses = handle(handler, *rows)
    assert statuses == [200, 503, 413, 200]
    assert_prediction(bodies[0], RED)
    assert_prediction(bodies[3], BLUE)
    assert [body["error"]["type"] for body in bodies[1:3]] == ["inference_failed", "too_large"]
    assert counted_requests(handler) == {
        ("rest", "200", ""): 2, ("rest", "503", "inference_failed"): 1, ("rest", "413", "too_large"): 1,
    }  # fmt: skip
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("The handler failed on a request. | Traceback")
    assert line.endswith("| ValueError: requested | by the test")


# Deadlines


def deadline_in(seconds: float) -> dict[str, str]:
    return {DEADLINE_HEADER: str(int((time.time() + seconds) * 1000))}


def test_a_request_whose_deadline_has_passed_is_not_classified(model_dir):
    handler = start(model_dir)
    for body in (solid(RED), b"no image", instances(b64(solid(RED)), b64(b"no image"))):
        (body,), (status,) = handle(handler, {"body": body}, headers=deadline_in(-1))
        assert (status, body["error"]["type"]) == (504, "deadline_exceeded")
    assert counted_requests(handler) == {("rest", "504", "deadline_exceeded"): 3}
    assert value(handler, "vinegrape_decode_seconds_count") == 0


@pytest.mark.parametrize("headers", [deadline_in(3600), {DEADLINE_HEADER: "soon"}])
def test_a_request_before_its_deadline_or_with_a_malformed_one_is_classified(handler, headers):
    (body,), _ = handle(handler, {"body": solid(RED)}, headers=headers)
    assert_prediction(body, RED)


def test_a_deadline_that_passes_between_the_images_of_a_request_ends_it(model_dir, monkeypatch):
    """A clock that counts how often it was read replaces the time."""
    handler, reads = start(model_dir), itertools.count()
    monkeypatch.setattr(time, "time", lambda: float(next(reads)))
    # Read once for the request, four times for the sizes of the images, once for the batch, and before each decoding
    three = instances(*[b64(solid(RED))] * 4)
    (body,), (status,) = handle(handler, {"body": three}, headers={DEADLINE_HEADER: "7500"})
    assert (status, body["error"]["type"]) == (504, "deadline_exceeded")
    assert value(handler, "vinegrape_decode_seconds_count") == 2
    assert value(handler, "vinegrape_images_total", error="") == 2
    assert value(handler, "vinegrape_images_total", error="deadline_exceeded") == 2
    assert counted_requests(handler) == {("rest", "504", "deadline_exceeded"): 1}


def test_a_batch_without_deadlines_ends_before_its_worker_would_be_replaced(model_dir, monkeypatch):
    """A clock that advances by 4 s whenever it is read replaces the time: two images are decoded within 10 s."""
    handler, clock = start(model_dir), itertools.count(step=4)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    (body,), (status,) = handle(handler, {"body": instances(*[b64(solid(RED))] * 5)})
    assert (status, body["error"]["type"]) == (504, "deadline_exceeded")
    assert value(handler, "vinegrape_decode_seconds_count") == 2


def test_instances_with_too_many_pixels_together_are_rejected(model_dir, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_MAX_IMAGE_PIXELS", "1000")
    handler = start(model_dir)
    image = b64(solid(RED, side=20))  # 400 pixels
    two, three = instances(image, image), instances(image, b64(b"no image"), image, image)
    bodies, statuses = handle(handler, {"body": two}, {"body": three}, {"body": solid(RED)})
    assert statuses == [200, 413, 200]
    assert "images take longer to decode than 1000 pixels" in bodies[1]["error"]["message"]


def test_a_get_returns_the_description(handler):
    (body,), (status,) = handle(handler, {}, headers=DESCRIBE)
    assert status == 200
    assert body["classes"] == list(CLASSES)
    assert (body["input_size"], body["version"], body["backend"]) == (SIDE, "tiny", "onnx_int8")


def test_a_subclass_can_measure_the_classification_of_requests(model_dir):
    """The benchmark does so. The self-check is not part of it."""

    class Recording(Handler):
        batches = []  # noqa: RUF012

        def classify(self, images):
            self.batches.append(len(images))
            return super().classify(images)

    handler = Recording()
    handler.initialize(batch_context(model_dir))
    assert handler.batches == []
    bodies, _ = handle(handler, {"body": solid(RED)}, {}, {"body": instances(b64(solid(BLUE)), {"b64": "?"})})
    assert handler.batches == [3]
    assert_prediction(bodies[0], RED)


def test_a_model_with_a_threshold_abstains(abstaining_archive, tmp_path):
    """The tiny model does not know blue images."""
    with zipfile.ZipFile(abstaining_archive) as archive:
        archive.extractall(tmp_path)
    handler = start(tmp_path)
    bodies, _ = handle(handler, {"body": solid(BLUE)}, {"body": solid(RED)})
    assert [(body["label"], body["known"], body["ood_score"]) for body in bodies] == [(None, False, 1), ("Ak", True, 0)]
    assert bodies[0]["probability"] == bodies[0]["probabilities"]["Buzgulu"]
    assert value(handler, "vinegrape_predictions_total", label="unknown", version="tiny") == 1
    (body,), _ = handle(handler, {}, headers=DESCRIBE)
    assert body["ood_threshold"] == 0.5


def test_the_settings_change_when_and_how_a_model_abstains(abstaining_archive, tmp_path, monkeypatch):
    """Blue has the OOD score 1, and a pale image 0.4."""
    monkeypatch.setenv("VINEGRAPE_OOD_THRESHOLD", "0.25")
    monkeypatch.setenv("VINEGRAPE_ABSTAIN", "known")
    with zipfile.ZipFile(abstaining_archive) as archive:
        archive.extractall(tmp_path)
    handler = start(tmp_path)
    bodies, _ = handle(handler, {"body": solid(BLUE)}, {"body": solid((255, 255, 102))}, {"body": solid(RED)})
    assert [(body["label"], body["known"]) for body in bodies] == [("Buzgulu", False), ("Ak", False), ("Ak", True)]
    assert value(handler, "vinegrape_predictions_total", label="unknown", version="tiny") == 2
    assert value(handler, "vinegrape_predictions_total", label="Buzgulu", version="tiny") == 0


def test_a_threshold_for_a_network_without_ood_scores_ends_the_start(tiny_export, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_OOD_THRESHOLD", "0.25")
    with pytest.raises(ArchiveError, match=r"ood_threshold is 0\.25.*Leave the setting ood_threshold empty"):
        start(tiny_export)


# The start


@pytest.mark.xdist_group("torch")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_worker_starts_with_every_backend(tiny_torch_model, monkeypatch, backend):
    monkeypatch.setenv("VINEGRAPE_BACKEND", backend)
    handler = start(tiny_torch_model)
    assert handler.backend == backend
    (body,), _ = handle(handler, {"body": solid(BLUE)})
    assert_prediction(body, BLUE)


def test_limits_come_from_the_environment(model_dir, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_MAX_IMAGE_BYTES", "100000")
    monkeypatch.setenv("VINEGRAPE_MAX_INSTANCES", "1")
    handler = start(model_dir)
    assert handle(handler, {"body": bytes(100_001)}, {"body": instances({}, {})})[1] == [413, 413]


def test_an_invalid_setting_stops_the_start_and_is_logged_once(model_dir, monkeypatch, capsys):
    monkeypatch.setenv("VINEGRAPE_THREADS", "many")
    with pytest.raises(SettingError):
        start(model_dir)
    assert capsys.readouterr().err.count(f"{START_FAILED}VINEGRAPE_THREADS is 'many'") == 1


def test_device_cuda_without_a_gpu_stops_the_start(model_dir, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_DEVICE", "cuda")
    with pytest.raises(SettingError, match="TorchServe gave this worker no GPU"):
        start(model_dir)


def with_certain_self_check(metadata, index) -> Metadata:
    """Metadata whose self-check expects probability 1 for the class of an index, for every image."""
    certain = [float(i == index) for i in range(len(metadata.classes))]
    checks = (
        dataclasses.replace(check, probabilities=dict.fromkeys(BACKENDS, certain)) for check in metadata.self_check
    )
    return dataclasses.replace(metadata, self_check=tuple(checks))


@pytest.mark.parametrize(("index", "difference"), [(0, "0.250"), (4, "0.900")])
def test_a_failed_self_check_stops_the_start(changed_model, index, difference, capsys):
    (changed_model / METADATA_FILE).write_text(with_certain_self_check(Metadata.read(changed_model), index).to_json())
    with pytest.raises(ArchiveError, match=rf"self-check of 0\.png with onnx_int8 is off by {difference}"):
        start(changed_model)
    assert f"{START_FAILED}The self-check of " in capsys.readouterr().err


def test_weights_of_another_input_size_stop_the_start(changed_model):
    metadata = dataclasses.replace(Metadata.read(changed_model), input_size=8)
    (changed_model / METADATA_FILE).write_text(metadata.to_json())
    with pytest.raises(ArchiveError, match=r"self-check image 0\.png failed"):
        start(changed_model)


def test_a_broken_self_check_image_stops_the_start(changed_model):
    (changed_model / SELF_CHECK_FOLDER / "1.png").write_bytes(b"no image")
    with pytest.raises(ArchiveError, match=r"self-check image 1\.png failed"):
        start(changed_model)


def test_a_folder_without_metadata_stops_the_start(tmp_path):
    with pytest.raises(ArchiveError, match=r"has no metadata\.json"):
        start(tmp_path)


# Metrics


def value(handler, name, **labels) -> float | None:
    return handler.metrics.registry.get_sample_value(name, labels)


def counted_requests(handler) -> dict[tuple[str, ...], float]:
    """Requests by transport, status and error, without zeros."""
    (family,) = [family for family in handler.metrics.registry.collect() if family.name == "vinegrape_requests"]
    return {
        (sample.labels["transport"], sample.labels["status"], sample.labels["error"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }


def test_calls_of_the_network_are_small_on_a_cpu(model_dir):
    handler = start(model_dir)
    handle(handler, *[{"data": solid(RED)}] * (CPU_CALL_SIZE + 1))
    assert value(handler, "vinegrape_inference_seconds_count") == 2
    assert value(handler, "vinegrape_batch_size_bucket", le="1.0") == 1
    assert value(handler, "vinegrape_batch_size_sum") == CPU_CALL_SIZE + 1


def test_every_request_and_image_is_counted_once(model_dir):
    handler = start(model_dir)
    three = instances(b64(solid(RED)), b64(solid(BLACK)), b64(BROKEN), {"b64": "?"})
    handle(handler, {"body": solid(RED)}, {"body": b"no image"}, {"body": three}, headers={"Host": "here"})
    handle(handler, {"data": solid(BLACK)}, {}, headers={TRANSPORT_HEADER: "grpc"})
    handle(handler, {}, headers=DESCRIBE)
    assert counted_requests(handler) == {
        ("rest", "200", ""): 3,  # one image, the instances, the description
        ("rest", "415", "unsupported_format"): 1,
        ("grpc", "200", ""): 1,
        ("grpc", "400", "no_image"): 1,
    }
    errors = {"": 4, "unsupported_format": 1, "broken_image": 1, "bad_request": 1, "too_large": 0, "no_image": 0}
    assert {error: value(handler, "vinegrape_images_total", error=error) for error in errors} == errors
    labels = {"Ak": 2, "Ala_Idris": 0, "Buzgulu": 0, "Dimnit": 2, "Nazli": 0}
    assert {
        label: value(handler, "vinegrape_predictions_total", label=label, version="tiny") for label in labels
    } == labels
    assert value(handler, "vinegrape_confidence_count", version="tiny") == 4
    assert value(handler, "vinegrape_confidence_sum", version="tiny") == pytest.approx(2 * 0.75 + 2 * 0.6)
    assert value(handler, "vinegrape_request_seconds_count") == 6
    assert value(handler, "vinegrape_decode_seconds_count") == 6  # every image except the invalid base64
    assert value(handler, "vinegrape_inference_seconds_count") == 2  # one per batch with a valid image
    assert value(handler, "vinegrape_batch_size_sum") == 4
    assert value(handler, "vinegrape_batch_size_bucket", le="2.0") == 1  # the batch of 1; the other has 3
    assert value(handler, "vinegrape_batches_in_progress") == 0


BATCH_GAUGES = ("batches_in_progress", "batch_started_seconds", "batch_finished_seconds")


def batch_gauges(handler) -> list[float | None]:
    return [value(handler, f"vinegrape_{name}") for name in BATCH_GAUGES]


def test_the_gauges_of_a_batch_while_the_network_runs_and_after_it(model_dir, monkeypatch):
    handler, values = start(model_dir), []
    network = handler.classifier._network

    def record_gauges(batch):
        values.extend(batch_gauges(handler))
        return network(batch)

    assert batch_gauges(handler) == [0, 0, 0]
    monkeypatch.setattr(handler.classifier, "_network", record_gauges)
    before = time.monotonic()
    handle(handler, {"body": solid(RED)})
    after = time.monotonic()
    in_progress, started, finished = values
    assert (in_progress, finished) == (1, 0)
    assert before <= started
    in_progress, idle, finished = batch_gauges(handler)
    assert (in_progress, idle) == (0, 0)
    assert started <= finished <= after


# A self-check of a running worker


def test_a_self_check_runs_the_network_and_is_not_counted(model_dir, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_SELF_CHECK", "secret")
    handler = start(model_dir)
    calls = []
    network = handler._self_check_classifier._network
    monkeypatch.setattr(
        handler._self_check_classifier, "_network", lambda batch: (calls.append(len(batch)), network(batch))[1]
    )
    assert value(handler, "vinegrape_workers_ready") == 1
    (body,), (status,) = handle(handler, {}, headers={"x-vinegrape-self-check": "secret", "content-length": "0"})
    assert status == 200
    assert body == {"worker": os.getpid(), "model": {"name": "vinegrape", "version": "tiny"}}
    assert calls == [1]
    assert counted_requests(handler) == {}
    for name in ("decode_seconds", "inference_seconds", "batch_size", "request_seconds"):
        assert value(handler, f"vinegrape_{name}_count") == 0
    assert value(handler, "vinegrape_confidence_count", version="tiny") == 0


@pytest.mark.parametrize("token", ["", "secret"])
def test_a_self_check_needs_the_token(model_dir, monkeypatch, token):
    monkeypatch.setenv("VINEGRAPE_SELF_CHECK", token)
    handler = start(model_dir)
    for wrong in ("", "1", "secrät"):
        _, (status,) = handle(handler, {}, headers={"x-vinegrape-self-check": wrong})
        assert status == 400
    assert counted_requests(handler) == {("rest", "400", "no_image"): 3}


def test_a_failed_self_check_is_status_503(changed_model, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_SELF_CHECK", "1")
    handler = start(changed_model)
    (changed_model / SELF_CHECK_FOLDER / "0.png").write_bytes(b"no image")
    (body,), (status,) = handle(handler, {}, headers={"x-vinegrape-self-check": "1"})
    assert status == 503
    assert body["error"]["type"] == "inference_failed"
    assert "self-check image" in body["error"]["message"]
    assert counted_requests(handler) == {}


# TorchServe's loader


def test_torchserve_loads_the_entry_file_and_runs_a_batch(model_dir, monkeypatch):
    """The batch is as TorchServe's worker passes it: names, content types and headers are bytes."""
    monkeypatch.syspath_prepend(str(model_dir))
    service = ModelLoaderFactory.get_model_loader().load("vinegrape", str(model_dir), "vinegrape_entry.py", None, 8)
    batch = [
        {
            "requestId": b"first",
            "headers": [{"name": b"Accept", "value": b"*/*"}],
            "parameters": [{"name": "body", "contentType": "image/png", "value": bytearray(solid(GREEN))}],
        },
        {"requestId": b"second", "headers": [], "parameters": []},
    ]
    processors, rows, _ = service.retrieve_data_for_inference(batch)
    service.context.request_processor = processors
    prediction, error = map(json.loads, service._entry_point(rows, service.context))
    assert_prediction(prediction, GREEN)
    assert error["error"]["code"] == service.context.get_response_status(1)[0] == 400
