"""What can go wrong with a server that runs; wrong settings and archives have their errors in `vinegrape_handler`."""

from vinegrape_handler.errors import VinegrapeError


class ServeError(VinegrapeError):
    """TorchServe did not start, or ended by itself."""


class NotReady(VinegrapeError):
    """A server that is not there, or wants no requests."""
