"""clients/inference.proto agrees with TorchServe's inference.proto, and the gateway's messages with it."""

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


@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi"])
@pytest.mark.parametrize("proto", ["inference", "open_inference"])
def test_the_gateways_messages_are_generated_from_it(tmp_path, proto, suffix):
    """`make proto` writes them."""
    source, name = OURS.with_name(f"{proto}.proto"), f"{proto}{suffix}"
    arguments = [f"-I{ROOT}", f"-I{GOOGLE}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(source)]
    assert protoc.main(["protoc", *arguments]) == 0
    committed = ROOT / "server" / "vinegrape_server" / "gateway" / name
    assert committed.read_text() == (tmp_path / "clients" / name).read_text()


def test_the_lower_bound_of_protobuf_fits_the_generated_messages():
    """An older protobuf refuses them at import."""
    generated = (ROOT / "server" / "vinegrape_server" / "gateway" / "inference_pb2.py").read_text()
    (version,) = re.findall(r"^# Protobuf Python Version: (\S+)$", generated, re.MULTILINE)
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"protobuf>={version}" in dependencies
