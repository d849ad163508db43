"""Train a classifier on images, evaluate it, and pack it into an archive.

Commands import libraries when they run, because serving environments do not install the training extra.
"""

import vinegrape_handler  # noqa: F401  # must come before ONNX Runtime: it switches off ONNX Runtime's telemetry
