"""The error of a registry."""

from vinegrape_handler.errors import VinegrapeError


class RegistryError(VinegrapeError):
    """A registry, or a file in it, cannot be read or written, or does not hold what was asked for."""
