"""Metadata for tests that need no model."""

from vinegrape_handler.metadata import Metadata, SelfCheck

METADATA = Metadata(
    name="vinegrape",
    version="0123456789ab",
    architecture="small_cnn",
    classes=("Ak", "Nazli"),
    input_size=32,
    interpolation="bicubic",
    temperature=1.5,
    initial_weights="none",
    data_digest="digest",
    metrics={"test_accuracy": 0.5},
    libraries={"torch": "2.12.1"},
    self_check=(SelfCheck("0.png", {"onnx_int8": [0.25, 0.75]}),),
)
