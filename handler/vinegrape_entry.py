"""What TorchServe loads. It demands a file with exactly one class; all that is ours is in `vinegrape_handler`."""

from vinegrape_handler.handler import Handler


class VinegrapeHandler(Handler):
    """TorchServe calls `initialize(context)` once a worker, then `handle(data, context)` once a batch."""
