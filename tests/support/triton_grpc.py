"""Triton's gRPC client, unchanged, in a process that also knows the gateway's messages of the same names."""

from unittest import mock

from google.protobuf import descriptor_pool

with mock.patch.object(descriptor_pool, "Default", return_value=descriptor_pool.DescriptorPool()):
    import tritonclient.grpc as triton

__all__ = ["triton"]
