"""The edge: HAProxy in front of TorchServe and the gRPC gateway."""
