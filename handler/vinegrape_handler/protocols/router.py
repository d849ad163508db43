"""Choose the protocol of a request by its path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from vinegrape_handler.contract import EXPLAIN_HEADER, PATH_HEADER
from vinegrape_handler.errors import BadRequest, NotFound
from vinegrape_handler.protocols import explanations, open_inference, predictions, web
from vinegrape_handler.protocols.route import Call, Model, Pending, Route, error_response

_MAX_PARAMETERS = 32


class Router:
    """The routes of all paths. The edge and the gateway state the path in a header.

    Without it, TorchServe passes on predictions and explanations only, and does not tell their paths.

    Args:
        model: the model that is served.
    """

    def __init__(self, model: Model) -> None:
        self._default = predictions.route(model)
        self._explained = explanations.route(model)
        self._routes = {
            **predictions.routes(model),
            **explanations.routes(model),
            **open_inference.routes(model),
            **web.ROUTES,
        }

    def choose(self, headers: Mapping[str, Any]) -> Route:
        """Return the route of a request with these headers."""
        path, _, _ = _target(headers).partition("?")
        if path:
            return self._routes.get(path, _NOT_FOUND)
        return self._explained if headers.get(EXPLAIN_HEADER) == "True" else self._default

    @staticmethod
    def call(row: Mapping[str, Any], headers: Mapping[str, Any]) -> Call:
        """Return a request with its query, which only the edge states.

        Raises:
            BadRequest: the query cannot be read.
        """
        try:
            query = parse_qs(_target(headers).partition("?")[2], keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
        except ValueError as error:
            raise BadRequest(f"The query cannot be read: {error}.") from error
        return Call(row, headers, query)


def _target(headers: Mapping[str, Any]) -> str:
    """Return path and query that the edge states; empty without the edge."""
    target = headers.get(PATH_HEADER, "")
    return target if isinstance(target, str) else ""


def _not_found(call: Call) -> Pending:
    raise NotFound(f"The path {_target(call.headers)[:100]!r} is not served.")


_NOT_FOUND = Route(_not_found, error_response)
