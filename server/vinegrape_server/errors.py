"""Errors of a running server. `vinegrape_handler.errors` holds the errors of settings and archives."""

from vinegrape_handler.errors import VinegrapeError


class ServeError(VinegrapeError):
    """TorchServe did not start, or ended by itself."""


class NotReady(VinegrapeError):
    """The server is not running or not accepting requests."""
