"""Image bytes to answers: everything the archive carries beside its weights. Imports nothing of TorchServe."""

import os

# From 1.29 on, ONNX Runtime reports its use to Microsoft, unless this is set before it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
