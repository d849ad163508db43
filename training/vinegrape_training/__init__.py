"""Training: from images to weights to an archive.

Commands import libraries when they run, because serving environments do not install the training extra.
"""

import vinegrape_handler  # noqa: F401  # must come before ONNX Runtime: it switches off ONNX Runtime's telemetry
