"""The server's address, and how to connect to it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}

USER_AGENT = "vinegrape-client"


@dataclass(frozen=True)
class Options:
    """How to connect to a server.

    Attributes:
        url: `http://HOST:PORT`, `https://...`, `grpc://...` or `grpcs://...`; the last letter s means TLS.
        api_key: the API key; None if the server requires none.
        ca_file: PEM file of the authority that has signed the server's certificate; None: the usual authorities.
        model: the model's name.

    Raises:
        ValueError: a value is invalid.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    ca_file: str | os.PathLike[str] | None = None
    model: str = "vinegrape"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise ValueError(
                f"The URL is {self.url!r}; it must be of the form http://HOST:PORT, without a path, and begin with one "
                f"of {', '.join(f'{scheme}://' for scheme in _PORTS)}"
            )
        _ = parts.port  # raises a ValueError if it is not a number
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError("The API key has a character that is not printable ASCII.")
        if self.ca_file is not None and not self.uses_tls:
            raise ValueError(f"ca_file is for https:// and grpcs://, and the URL is {self.url!r}.")

    @property
    def is_grpc(self) -> bool:
        """Whether the server is called over gRPC."""
        return urlsplit(self.url).scheme in ("grpc", "grpcs")

    @property
    def uses_tls(self) -> bool:
        """Whether the connection uses TLS."""
        return urlsplit(self.url).scheme in ("https", "grpcs")

    @property
    def address(self) -> str:
        """Host and port; an IPv6 address stands in brackets."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        return f"{host}:{parts.port or _PORTS[parts.scheme]}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers, or the metadata of gRPC, that each request carries."""
        return {} if self.api_key is None else {"x-api-key": self.api_key}
