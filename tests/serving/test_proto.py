"""clients/inference.proto against the one that TorchServe's own jar carries."""

import importlib.util
import zipfile
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

OURS = Path(__file__).parents[2] / "clients" / "inference.proto"
TORCHSERVE = Path(importlib.util.find_spec("ts").origin).parent


def compiled(folder, includes) -> FileDescriptorProto:
    out = folder / "descriptors"
    arguments = [f"-I{each}" for each in (folder, *includes)]
    assert protoc.main(["protoc", *arguments, f"--descriptor_set_out={out}", "inference.proto"]) == 0
    (descriptor,) = FileDescriptorSet.FromString(out.read_bytes()).file
    return descriptor


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> FileDescriptorProto:
    folder = tmp_path_factory.mktemp("ours")
    (folder / "inference.proto").write_text(OURS.read_text())
    return compiled(folder, ())


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> FileDescriptorProto:
    folder = tmp_path_factory.mktemp("theirs")
    with zipfile.ZipFile(TORCHSERVE / "frontend" / "model-server.jar") as jar:
        for name in ("inference.proto", "google/protobuf/empty.proto", "google/protobuf/any.proto",
                     "google/rpc/status.proto"):  # fmt: skip
            jar.extract(name, folder)
    return compiled(folder, ())


def fields(message) -> dict:
    """By number: name, type, whether repeated, and the type's name; of a map, its key and value too."""
    own = {field.number: (field.name, field.type, field.label, field.type_name) for field in message.field}
    return own | {nested.name: fields(nested) for nested in message.nested_type}


def test_the_package_is_the_same(ours, theirs):
    assert ours.package == theirs.package == "org.pytorch.serve.grpc.inference"


def test_every_field_is_theirs(ours, theirs):
    known = {message.name: fields(message) for message in theirs.message_type}
    assert {message.name for message in ours.message_type} == {"PredictionsRequest", "PredictionResponse"}
    for message in ours.message_type:
        assert fields(message).items() <= known[message.name].items()


def test_every_method_is_theirs(ours, theirs):
    def methods(descriptor) -> dict:
        (service,) = descriptor.service
        assert service.name == "InferenceAPIsService"
        return {each.name: (each.input_type, each.output_type, each.client_streaming, each.server_streaming)
                for each in service.method}  # fmt: skip

    assert methods(ours).keys() == {"Predictions"}
    assert methods(ours).items() <= methods(theirs).items()
