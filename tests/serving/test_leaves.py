"""The committed model on real pictures."""

import json


def test_real_leaves_get_their_variety(server, leaves):
    """Ten of each; the model was trained on them, so this checks the way to it and not its accuracy."""
    asked = [path for folder in sorted(leaves.iterdir()) for path in sorted(folder.iterdir())[:10]]
    right = [server.post(path.read_bytes()).json()["label"] == path.parent.name for path in asked]
    assert len(right) == 50
    assert sum(right) >= 47


def test_grpc_says_of_a_real_leaf_what_rest_says(server, leaves):
    leaf = (leaves / "Nazli" / "Nazli (1).png").read_bytes()
    assert json.loads(server.call(leaf)) == server.post(leaf).json()
    assert server.post(leaf).json()["label"] == "Nazli"


def test_any_photo_is_answered(server, strangers):
    pictures = sorted(strangers.iterdir())
    assert pictures
    for picture in pictures:
        answer = server.post(picture.read_bytes())
        assert answer.status_code == 200, picture
        assert abs(sum(answer.json()["probabilities"].values()) - 1) < 1e-4
