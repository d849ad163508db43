"""The OpenAPI document: valid, and without a difference to the configuration of the edge and to the code."""

import re

import pytest
from openapi_spec_validator import validate

from tests.support.archives import plan
from vinegrape_handler.errors import REFUSALS, WORKER_ERRORS
from vinegrape_server.edge import configuration
from vinegrape_server.edge.openapi.document import make_document


@pytest.fixture(scope="module")
def document() -> dict:
    return make_document(plan(edge=True, max_instances=7))


def test_it_is_valid(document):
    validate(document)


def test_every_path_of_the_edge_is_described_and_no_other(document):
    chosen = plan(edge=True)
    text = configuration._CONFIG.read_text()
    for name, value in configuration.environment(chosen).items():
        text = text.replace(f"${{{name}}}", value)
    lists = re.findall(
        r"^    acl (?:predictions|explanations|posted|got|constant|ready) path (.*)$", text, re.MULTILINE
    )
    offered = {path.strip('"') for line in lists for path in line.split()}
    assert set(document["paths"]) == offered


def test_every_error_is_described(document):
    described = {
        (int(status), kind)
        for status, response in document["components"]["responses"].items()
        if status.isdecimal()
        for kind in response["content"]["application/json"]["schema"]["properties"]["error"]["properties"]["type"][
            "enum"
        ]
    }
    assert described == {(error.status, error.type) for error in (*WORKER_ERRORS, *REFUSALS)}


def test_limits_and_classes_are_those_of_the_server(document):
    schemas = document["components"]["schemas"]
    classes = list(plan(edge=True).archive.metadata.classes)
    assert schemas["Instances"]["properties"]["instances"]["maxItems"] == 7
    assert list(schemas["Prediction"]["properties"]["probabilities"]["properties"]) == classes


def test_names_of_operations_are_unique(document):
    names = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert len(set(names)) == len(names)


def test_keys_are_described_where_the_server_requires_them(tmp_path, document):
    assert "security" not in document
    (tmp_path / "keys").write_text("phone 0123456789abcdef\n")
    locked = make_document(plan(edge=True, api_keys=str(tmp_path / "keys")))
    validate(locked)
    assert locked["security"] == [{"key": []}, {"bearer": []}]
    open_paths = {
        path for path, operations in locked["paths"].items() if operations.get("get", {}).get("security") == []
    }
    assert {"/ping", "/docs", "/openapi.json"} <= open_paths
    assert "401" in locked["paths"]["/predictions/vinegrape"]["post"]["responses"]
    assert "401" not in document["paths"]["/predictions/vinegrape"]["post"]["responses"]
