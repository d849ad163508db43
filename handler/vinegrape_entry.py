"""The entry file of the archive. TorchServe requires exactly one class in it; the code is in `vinegrape_handler`."""

from vinegrape_handler.handler import Handler


class VinegrapeHandler(Handler):
    """TorchServe calls `initialize(context)` once per worker and `handle(data, context)` once per batch."""
