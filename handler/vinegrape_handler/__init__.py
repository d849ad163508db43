"""Classify encoded images and build the responses: the code inside the model archive. Does not import TorchServe."""

import os

# ONNX Runtime 1.29 and later send usage data to Microsoft unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
