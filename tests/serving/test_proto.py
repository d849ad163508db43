"""clients/inference.proto agrees with the inference.proto in TorchServe's jar file."""

import importlib.util
import zipfile
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

OURS = Path(__file__).parents[2] / "clients" / "inference.proto"
TORCHSERVE = Path(importlib.util.find_spec("ts").origin).parent


def compile_proto(folder) -> FileDescriptorProto:
    """Compile `folder`/inference.proto, which may import files of the same folder."""
    out = folder / "descriptors"
    assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={out}", "inference.proto"]) == 0
    (descriptor,) = FileDescriptorSet.FromString(out.read_bytes()).file
    return descriptor


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> FileDescriptorProto:
    folder = tmp_path_factory.mktemp("ours")
    (folder / "inference.proto").write_text(OURS.read_text())
    return compile_proto(folder)


@pytest.fixture(scope="module")
def torchserve(tmp_path_factory) -> FileDescriptorProto:
    folder = tmp_path_factory.mktemp("torchserve")
    with zipfile.ZipFile(TORCHSERVE / "frontend" / "model-server.jar") as jar:
        for name in ("inference.proto", "google/protobuf/empty.proto", "google/protobuf/any.proto",
                     "google/rpc/status.proto"):  # fmt: skip
            jar.extract(name, folder)
    return compile_proto(folder)


def fields(message) -> dict:
    """Name, type, label and type name of each field by its number, and the fields of nested messages by their name."""
    direct = {field.number: (field.name, field.type, field.label, field.type_name) for field in message.field}
    return direct | {nested.name: fields(nested) for nested in message.nested_type}


def test_the_package_is_the_same(ours, torchserve):
    assert ours.package == torchserve.package == "org.pytorch.serve.grpc.inference"


def test_every_field_is_the_same(ours, torchserve):
    known = {message.name: fields(message) for message in torchserve.message_type}
    assert {message.name for message in ours.message_type} == {"PredictionsRequest", "PredictionResponse"}
    for message in ours.message_type:
        assert fields(message).items() <= known[message.name].items()


def test_every_method_is_the_same(ours, torchserve):
    def methods(descriptor) -> dict:
        (service,) = descriptor.service
        assert service.name == "InferenceAPIsService"
        return {
            method.name: (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
            for method in service.method
        }

    assert methods(ours).keys() == {"Predictions"}
    assert methods(ours).items() <= methods(torchserve).items()
