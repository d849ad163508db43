"""Images to weights to archive. It imports what it needs lazily: serving environments have `click` alone."""

import vinegrape_handler  # noqa: F401  # before ONNX Runtime, whose reports it switches off
