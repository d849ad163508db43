"""Stands in for torch in a worker that serves ONNX.

TorchServe's worker imports torch whatever the model, for one `isinstance(value, torch.Tensor)` on the way out. This
module satisfies it: without torch's 1.3 s and 200 MB or more a worker, and without torch being installed at all.
"""


class Tensor:
    """Nothing is an instance of this."""
