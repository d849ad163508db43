"""The program `python -m vinegrape_server.gateway`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from vinegrape_server.gateway.options import Options
from vinegrape_server.gateway.server import serve
from vinegrape_server.json_log import JsonFormatter


def main() -> None:
    """Serve gRPC until SIGTERM."""
    options = Options.parse()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handler = logging.StreamHandler()
    text = logging.Formatter("%(name)s: %(message)s")
    handler.setFormatter(JsonFormatter("gateway") if options.log_format == "json" else text)
    logging.basicConfig(handlers=[handler])
    # grpcio logs what clients send, with a traceback of several lines
    logging.getLogger("grpc").setLevel(logging.CRITICAL + 1)
    try:
        asyncio.run(serve(options))
    except OSError as error:
        sys.stdout.write(f"Cannot listen on {options.listen} ({error.strerror or error}).\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
