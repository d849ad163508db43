"""The handler with TorchServe's own loader, service and context."""

import base64
import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ts.context import Context, RequestProcessor
from ts.model_loader import ModelLoaderFactory

from tests.handler.test_classifier import Fails
from tests.support.images import encode, gradient, grey
from tests.support.metadata import METADATA
from vinegrape_handler import handler as module
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.decode import Limits
from vinegrape_handler.errors import ArchiveError, InferenceFailed, SettingError
from vinegrape_handler.handler import Handler
from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.self_check import check_answers
from vinegrape_handler.settings import CPU_CALL_SIZE, WorkerSettings
from vinegrape_handler.weights import BACKENDS


@pytest.fixture(scope="module")
def model_dir(small_archive, tmp_path_factory) -> Path:
    """The archive as TorchServe unpacks it."""
    folder = tmp_path_factory.mktemp("model")
    with zipfile.ZipFile(small_archive) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def tampered(model_dir, tmp_path) -> Path:
    """A copy, to be changed."""
    return shutil.copytree(model_dir, tmp_path / "tampered")


def context(folder, requests=1, gpu=None, headers=None) -> Context:
    made = Context("vinegrape", str(folder), {}, 1, gpu, "0.12.0")
    made.request_processor = [RequestProcessor(headers or {}) for _ in range(requests)]
    return made


def started(folder) -> Handler:
    handler = Handler()
    handler.initialize(context(folder))
    return handler


def ask(handler, *rows, headers=None) -> tuple[list, list[int]]:
    """The bodies and the statuses of a batch."""
    batch = context("", len(rows), headers=headers)
    bodies = [json.loads(body) for body in handler.handle(list(rows), batch)]
    assert {batch.get_response_content_type(index) for index in range(len(rows))} == {"application/json"}
    return bodies, [batch.get_response_status(index)[0] for index in range(len(rows))]


def pictures(folder) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / SELF_CHECK_FOLDER).iterdir())]


def b64(data) -> dict:
    return {"b64": base64.b64encode(data).decode()}


# A batch


@pytest.fixture(scope="module")
def handler(model_dir) -> Handler:
    return started(model_dir)


def test_the_archives_pictures_have_the_answers_that_it_carries(handler, model_dir):
    bodies, statuses = ask(handler, *({"body": bytearray(picture)} for picture in pictures(model_dir)))
    metadata = Metadata.read(model_dir)
    for body, check in zip(bodies, metadata.self_check, strict=True):
        np.testing.assert_allclose(list(body["probabilities"].values()), check.probabilities["onnx_int8"], atol=1e-3)
        assert list(body["probabilities"]) == list(metadata.classes)
        assert body["model"] == {"name": "vinegrape", "version": metadata.version}
    assert statuses == [200] * 5


def test_a_batch_of_everything(handler, model_dir):
    """Each request gets what it would get alone, whatever its neighbours are."""
    first, second, third, *_ = pictures(model_dir)
    rows = [
        {"body": first},
        {"body": b"no image"},
        {"body": json.dumps({"instances": [b64(second), b64(b"no image"), {"b64": "?"}, b64(third)]}).encode()},
        {},
        {"data": second},
        {"body": b'{"instances": []}'},
        {"body": b"{"},
        {"image": third[:1000]},
        {"file": third},
    ]
    bodies, statuses = ask(handler, *rows)
    assert statuses == [200, 415, 200, 400, 200, 400, 400, 422, 200]
    alone = [ask(handler, row)[0][0] for row in rows]
    for body, expected in zip(bodies, alone, strict=True):
        assert_same(body, expected)
    answers = bodies[2]["predictions"]
    assert [each.get("label") or each["error"]["code"] for each in answers] == [
        bodies[4]["label"], 415, 400, bodies[8]["label"],
    ]  # fmt: skip


def assert_same(body, expected):
    """The same but for what a batch of another size may change: int8's third decimal."""
    if isinstance(expected, dict):
        assert body.keys() == expected.keys()
        for key in expected:
            assert_same(body[key], expected[key])
    elif isinstance(expected, list):
        for one, other in zip(body, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert body == pytest.approx(expected, abs=1e-3)
    else:
        assert body == expected


def test_all_images_of_a_batch_are_one_call_of_the_network(handler, model_dir, monkeypatch):
    sizes = []
    network = handler.classifier._network
    monkeypatch.setattr(handler.classifier, "_network", lambda batch: (sizes.append(len(batch)), network(batch))[1])
    picture = pictures(model_dir)[0]
    ask(handler, {"body": picture}, {"body": b""}, {"body": json.dumps({"instances": [b64(picture)] * 3}).encode()})
    assert sizes == [4]


def test_a_network_that_fails_is_503(handler, monkeypatch):
    monkeypatch.setattr(handler.classifier, "_network", Fails())
    bodies, statuses = ask(handler, {"body": grey(1)}, {"body": b"no image"})
    assert statuses == [503, 415]
    assert bodies[0]["error"]["type"] == InferenceFailed.type


def test_a_get_describes_the_model(handler, model_dir):
    (body,), (status,) = ask(handler, {}, headers={"accept": "application/json", "content-length": "0"})
    metadata = Metadata.read(model_dir)
    assert status == 200
    assert body["classes"] == list(metadata.classes)
    assert (body["input_size"], body["version"], body["backend"]) == (32, metadata.version, "onnx_int8")


# The start


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend(model_dir, monkeypatch, backend):
    monkeypatch.setenv("VINEGRAPE_BACKEND", backend)
    handler = started(model_dir)
    assert handler.backend == backend
    picture, check = pictures(model_dir)[2], handler.metadata.self_check[2]
    (body,), _ = ask(handler, {"body": picture})
    np.testing.assert_allclose(list(body["probabilities"].values()), check.probabilities[backend], atol=1e-3)


def test_limits_come_from_the_environment(model_dir, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_MAX_IMAGE_BYTES", "100000")
    monkeypatch.setenv("VINEGRAPE_MAX_INSTANCES", "1")
    handler = started(model_dir)
    two = json.dumps({"instances": [{}, {}]}).encode()
    assert ask(handler, {"body": bytes(100_001)}, {"body": two})[1] == [413, 413]


def test_a_setting_that_cannot_be_stops_the_start(model_dir, monkeypatch, capsys):
    monkeypatch.setenv("VINEGRAPE_THREADS", "many")
    with pytest.raises(SettingError):
        started(model_dir)
    assert capsys.readouterr().err.count(f"{module.START_FAILED}VINEGRAPE_THREADS is 'many'") == 1


def test_device_cuda_without_a_gpu_stops_the_start(model_dir, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_DEVICE", "cuda")
    with pytest.raises(SettingError, match="TorchServe gave this worker no GPU"):
        started(model_dir)


def certain_of(metadata, index) -> Metadata:
    """Metadata whose self-check says that every picture is the class of an index, for certain."""
    certain = [float(each == index) for each in range(len(metadata.classes))]
    checks = (
        dataclasses.replace(check, probabilities=dict.fromkeys(BACKENDS, certain)) for check in metadata.self_check
    )
    return dataclasses.replace(metadata, self_check=tuple(checks))


@pytest.mark.parametrize("index", [0, 4])
def test_a_tampered_self_check_stops_the_start(tampered, index, capsys):
    (tampered / METADATA_FILE).write_text(certain_of(Metadata.read(tampered), index).to_json())
    with pytest.raises(ArchiveError, match=r"self-check of .\.png with onnx_int8 is off by [01]\.\d+, more than 0\.05"):
        started(tampered)
    assert f"{module.START_FAILED}The self-check of " in capsys.readouterr().err


def test_weights_of_another_input_size_stop_the_start(tampered):
    metadata = dataclasses.replace(Metadata.read(tampered), input_size=8)
    (tampered / METADATA_FILE).write_text(metadata.to_json())
    with pytest.raises(ArchiveError, match=r"self-check picture 0\.png failed"):
        started(tampered)


def test_a_broken_self_check_picture_stops_the_start(tampered):
    (tampered / SELF_CHECK_FOLDER / "1.png").write_bytes(b"no image")
    with pytest.raises(ArchiveError, match=r"self-check picture 1\.png failed"):
        started(tampered)


def test_no_numbers_are_no_right_answer(tmp_path):
    """A network that gives NaN, as a half-precision overflow does, is off by nothing and by everything."""
    (tmp_path / "0.png").write_bytes(encode(gradient(), "PNG"))
    classifier = Classifier(
        METADATA, lambda batch: np.full((len(batch), 2), np.nan, np.float32), Limits.of(WorkerSettings())
    )
    with pytest.raises(ArchiveError, match="is off by nan"):
        check_answers(classifier, tmp_path, "onnx_int8", METADATA.self_check)


def test_a_folder_that_is_no_archive(tmp_path):
    with pytest.raises(ArchiveError, match=r"has no metadata\.json"):
        started(tmp_path)


# What is counted


def value(handler, name, **labels) -> float | None:
    return handler.metrics.registry.get_sample_value(name, labels)


def counted(handler) -> dict[tuple[str, ...], float]:
    """Requests by transport, status and error, where there were any."""
    (family,) = [each for each in handler.metrics.registry.collect() if each.name == "vinegrape_requests"]
    return {
        (each.labels["transport"], each.labels["status"], each.labels["error"]): each.value
        for each in family.samples
        if each.name.endswith("_total") and each.value
    }


def test_on_a_cpu_a_call_of_the_network_is_small(model_dir):
    handler = started(model_dir)
    picture = pictures(model_dir)[0]
    ask(handler, *[{"data": picture}] * (CPU_CALL_SIZE + 1))
    assert value(handler, "vinegrape_inference_seconds_count") == 2
    assert value(handler, "vinegrape_batch_size_bucket", le="1.0") == 1
    assert value(handler, "vinegrape_batch_size_sum") == CPU_CALL_SIZE + 1


def test_every_request_and_image_is_counted_once(model_dir):
    handler = started(model_dir)
    first, second, *_ = pictures(model_dir)
    instances = json.dumps({"instances": [b64(first), b64(second), b64(first[:1000]), {"b64": "?"}]}).encode()
    ask(handler, {"body": first}, {"body": b"no image"}, {"body": instances}, headers={"Host": "here"})
    bodies, _ = ask(handler, {"data": second}, {}, headers={"data": {"content-type": ""}})
    ask(handler, {}, headers={"accept": "application/json", "content-length": "0"})
    assert counted(handler) == {
        ("rest", "200", ""): 3,  # one image, the instances, the description
        ("rest", "415", "unsupported_format"): 1,
        ("grpc", "200", ""): 1,
        ("grpc", "400", "no_image"): 1,
    }
    errors = {"": 4, "unsupported_format": 1, "broken_image": 1, "bad_request": 1, "too_large": 0}
    assert {error: value(handler, "vinegrape_images_total", error=error) for error in errors} == errors
    labels = Metadata.read(model_dir).classes
    assert sum(value(handler, "vinegrape_predictions_total", label=label) for label in labels) == 4
    assert value(handler, "vinegrape_predictions_total", label=bodies[0]["label"]) >= 1
    assert value(handler, "vinegrape_confidence_count") == 4
    assert value(handler, "vinegrape_request_seconds_count") == 6
    assert value(handler, "vinegrape_decode_seconds_count") == 6  # all but the one that is not base64
    assert value(handler, "vinegrape_inference_seconds_count") == 2  # batches with an image that can be decoded
    assert value(handler, "vinegrape_batch_size_sum") == 4
    assert value(handler, "vinegrape_batch_size_bucket", le="2.0") == 1  # of one; the other had three
    assert value(handler, "vinegrape_batches_in_progress") == 0


def test_a_batch_is_in_progress_while_the_network_runs(model_dir, monkeypatch):
    handler, seen = started(model_dir), []
    network = handler.classifier._network

    def watched(batch):
        seen.append(value(handler, "vinegrape_batches_in_progress"))
        return network(batch)

    monkeypatch.setattr(handler.classifier, "_network", watched)
    ask(handler, {"body": pictures(model_dir)[0]})
    assert seen == [1]


def test_a_self_check_asks_the_network_and_counts_nothing(model_dir, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_SELF_CHECK", "secret")
    handler = started(model_dir)
    assert value(handler, "vinegrape_workers_ready") == 1
    (body,), (status,) = ask(handler, {}, headers={"X-Vinegrape-Self-Check": "secret", "content-length": "0"})
    assert status == 200
    assert body == {
        "worker": os.getpid(), "model": {"name": "vinegrape", "version": Metadata.read(model_dir).version},
    }  # fmt: skip
    assert counted(handler) == {}
    for name in ("decode_seconds", "inference_seconds", "batch_size", "request_seconds", "confidence"):
        assert value(handler, f"vinegrape_{name}_count") == 0


@pytest.mark.parametrize("given", ["", "secret"])
def test_a_self_check_is_for_who_started_the_worker(model_dir, monkeypatch, given):
    monkeypatch.setenv("VINEGRAPE_SELF_CHECK", given)
    handler = started(model_dir)
    for sent in ("", "1", "secrät"):
        _, (status,) = ask(handler, {}, headers={"X-Vinegrape-Self-Check": sent})
        assert status == 400
    assert counted(handler) == {("rest", "400", "no_image"): 3}


def test_a_self_check_that_is_wrong_is_503(tampered, monkeypatch):
    monkeypatch.setenv("VINEGRAPE_SELF_CHECK", "1")
    handler = started(tampered)
    picture = tampered / SELF_CHECK_FOLDER / handler.metadata.self_check[0].file
    picture.write_bytes(b"no image")
    (body,), (status,) = ask(handler, {}, headers={"x-vinegrape-self-check": "1"})
    assert status == 503
    assert body["error"]["type"] == "inference_failed"
    assert "self-check picture" in body["error"]["message"]


# Loaded by TorchServe


def test_torchserves_loader_and_service(model_dir, monkeypatch):
    """A batch as its worker hands it over: names, content types and headers as bytes."""
    monkeypatch.syspath_prepend(str(model_dir))
    service = ModelLoaderFactory.get_model_loader().load("vinegrape", str(model_dir), "vinegrape_entry.py", None, 8)
    batch = [
        {
            "requestId": b"first",
            "headers": [{"name": b"Accept", "value": b"*/*"}],
            "parameters": [{"name": "body", "contentType": "image/png", "value": bytearray(pictures(model_dir)[0])}],
        },
        {"requestId": b"second", "headers": [], "parameters": []},
    ]
    processors, rows, _ = service.retrieve_data_for_inference(batch)
    service.context.request_processor = processors
    good, bad = map(json.loads, service._entry_point(rows, service.context))
    assert good["label"] in Metadata.read(model_dir).classes
    assert bad["error"]["code"] == service.context.get_response_status(1)[0] == 400
