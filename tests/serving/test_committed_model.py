"""The committed model, on real images."""

import json

import numpy as np

from tests.support.payloads import instances
from tests.support.repack import read_metadata, read_self_check


def test_the_self_check_images_have_their_recorded_probabilities(server, archive):
    metadata, images = read_self_check(archive)
    predictions = server.post(instances(*images)).json()["predictions"]
    for prediction, check in zip(predictions, metadata.self_check, strict=True):
        recorded = check.probabilities["onnx_int8"]
        np.testing.assert_allclose(list(prediction["probabilities"].values()), recorded, atol=0.05)


def test_images_of_one_batch_have_the_same_probabilities_as_alone(server, archive):
    """The int8 network computes slightly different numbers in batches of another size."""
    _, images = read_self_check(archive)
    predictions = server.post(instances(*images)).json()["predictions"]
    for prediction, image in zip(predictions, images, strict=True):
        alone = server.post(image).json()["probabilities"]
        np.testing.assert_allclose(list(prediction["probabilities"].values()), list(alone.values()), atol=2e-3)


def test_get_describes_the_model(server, archive):
    metadata = read_metadata(archive)
    response = server.client.get(server.url, headers={"accept": "application/json"})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    description = response.json()
    assert description["classes"] == list(metadata.classes)
    assert (description["name"], description["version"]) == ("vinegrape", metadata.version)
    assert (description["input_size"], description["backend"]) == (metadata.input_size, "onnx_int8")
    assert description["limits"] == {"image_bytes": 20_000_000, "image_pixels": 50_000_000, "instances": 32}
    assert description["metrics"] == metadata.metrics


def test_real_leaves_get_their_variety(server, leaves):
    """Ten leaves of each class. The model was trained on them: this tests the service, not the model's accuracy."""
    paths = [path for folder in sorted(leaves.iterdir()) for path in sorted(folder.iterdir())[:10]]
    correct = [server.post(path.read_bytes()).json()["label"] == path.parent.name for path in paths]
    assert len(correct) == 50
    assert sum(correct) >= 47


def test_a_real_leaf_gets_the_same_answer_over_rest_and_grpc(server, leaves):
    leaf = (leaves / "Nazli" / "Nazli (1).png").read_bytes()
    answer = server.post(leaf).json()
    assert answer["label"] == "Nazli"
    assert json.loads(server.call(leaf)) == answer


def test_a_photo_of_something_else_gets_valid_probabilities(server, foreign_images):
    paths = sorted(foreign_images.iterdir())
    assert paths
    for path in paths:
        response = server.post(path.read_bytes())
        assert response.status_code == 200, path
        assert abs(sum(response.json()["probabilities"].values()) - 1) < 1e-4
