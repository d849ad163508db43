"""clients/inference.proto agrees with TorchServe's inference.proto, and the generated code with it."""

import importlib.util
import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
OURS = ROOT / "clients" / "inference.proto"
GOOGLE = Path(importlib.util.find_spec("grpc_tools").origin).parent / "_proto"  # google/protobuf/empty.proto
TORCHSERVE = Path(importlib.util.find_spec("ts").origin).parent


def compile_proto(folder) -> FileDescriptorProto:
    """Compile `folder`/inference.proto, which may import files of the same folder."""
    out = folder / "descriptors"
    assert protoc.main(["protoc", f"-I{folder}", f"-I{GOOGLE}", f"--descriptor_set_out={out}", "inference.proto"]) == 0
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
    assert ours.message_type
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

    assert methods(ours) == methods(torchserve)


CLIENT, GATEWAY = ROOT / "clients" / "vinegrape_client", ROOT / "server" / "vinegrape_server" / "gateway"


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    """The folder of what `make proto` writes."""
    folder = tmp_path_factory.mktemp("generated")
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    arguments = [f"-Ivinegrape_client={OURS.parent}", f"-I{GOOGLE}", *outputs, str(OURS)]
    assert protoc.main(["protoc", *arguments]) == 0
    return folder / "vinegrape_client"


@pytest.mark.parametrize("name", ["inference_pb2.py", "inference_pb2.pyi", "inference_pb2_grpc.py"])
def test_the_clients_messages_and_stubs_are_generated_from_it(generated, name):
    assert (CLIENT / name).read_text() == (generated / name).read_text()


@pytest.mark.parametrize("name", ["inference_pb2.py", "inference_pb2.pyi"])
def test_the_gateways_messages_are_those_of_the_client(generated, name):
    """The same bytes: protobuf refuses two files that define the same messages, and a test may import both."""
    assert (GATEWAY / name).read_text() == (generated / name).read_text()


@pytest.mark.parametrize("name", ["open_inference_pb2.py", "open_inference_pb2.pyi"])
def test_the_gateways_messages_of_the_open_inference_protocol_are_generated_from_it(tmp_path, name):
    source = OURS.with_name("open_inference.proto")
    arguments = [f"-I{source.parent}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(source)]
    assert protoc.main(["protoc", *arguments]) == 0
    assert (GATEWAY / name).read_text() == (tmp_path / name).read_text()


@pytest.mark.parametrize("project", ["pyproject.toml", "clients/pyproject.toml"])
def test_the_lower_bounds_of_protobuf_and_grpc_fit_the_generated_code(project):
    """Older ones refuse it at import."""
    (protobuf,) = re.findall(
        r"^# Protobuf Python Version: (\S+)$", (CLIENT / "inference_pb2.py").read_text(), re.MULTILINE
    )
    (grpcio,) = re.findall(
        r"^GRPC_GENERATED_VERSION = '(\S+)'$", (CLIENT / "inference_pb2_grpc.py").read_text(), re.MULTILINE
    )
    dependencies = tomllib.loads((ROOT / project).read_text())["project"]["dependencies"]
    assert {f"protobuf>={protobuf}", f"grpcio>={grpcio}"} <= set(dependencies)


def test_code_for_go_and_java_can_be_generated(ours):
    assert ours.options.go_package == "vinegrape/inference"
    assert ours.options.java_multiple_files
