"""The program `python -m vinegrape_server.gateway`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from vinegrape_server.gateway.options import Options
from vinegrape_server.gateway.server import serve


def main() -> None:
    """Serve gRPC until SIGTERM."""
    options = Options.parse()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="%(name)s: %(message)s")
    # grpcio logs what clients send, with a traceback of several lines
    logging.getLogger("grpc").setLevel(logging.CRITICAL + 1)
    try:
        asyncio.run(serve(options))
    except OSError as error:
        sys.stdout.write(f"Cannot listen on {options.listen} ({error.strerror or error}).\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
