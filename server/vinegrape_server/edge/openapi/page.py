"""The page for people: the OpenAPI document as HTML without a script, and its content security policy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from vinegrape_handler.page import hash_source

_STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #fff; --line: #ccc; --soft: #f4f4f2; --link: #00558c; }
@media (prefers-color-scheme: dark) {
  :root { --text: #eee; --back: #161718; --line: #555; --soft: #26282a; --link: #8cc8ff; }
}
html { color: var(--text); background: var(--back); }
body { max-width: 50rem; margin: 0 auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
a { color: var(--link); }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { margin: 2rem 0 0.5rem; }
h4 { margin: 1rem 0 0.25rem; }
code { font-size: 0.95em; background: var(--soft); padding: 0.1em 0.3em; border-radius: 0.2em; }
dl { margin: 0; }
dt { margin-top: 0.4rem; }
dd { margin-left: 1.5rem; }
ul { padding-left: 1.5rem; }
"""

# Nothing but the style above is loaded or run. The empty icon keeps browsers from asking for /favicon.ico
_ICON = '<link rel="icon" href="data:,">'
POLICY = (
    "default-src 'none'; img-src data:; "
    f"style-src {hash_source(_STYLE.encode())}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_COMMON = {"request_id", "timeout"}  # parameters of all operations


def make_page(document: Mapping[str, Any]) -> str:
    """Return the HTML page of an OpenAPI document as `make_document` returns it."""
    title = f"{document['info']['title']}: the REST API"
    parts = [f"<h1>{escape(title)}</h1>", _introduction(document)]
    for tag in document["tags"]:
        parts += [f"<h2>{escape(tag['name'])}</h2>", *_operations(document, tag["name"])]
    common = {name: value for name, value in document["components"]["parameters"].items() if name in _COMMON}
    parts += ["<h2>Headers of every request</h2>", _parameters(common)]
    parts += ["<h2>Errors</h2>", _errors(document["components"]["responses"])]
    parts += ["<h2>Schemas</h2>", *_schemas(document["components"]["schemas"])]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n{_ICON}\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _introduction(document: Mapping[str, Any]) -> str:
    lines = [
        f"<p>{escape(document['info']['summary'])} This page shows the OpenAPI description "
        '<a href="/openapi.json">/openapi.json</a>.</p>'
    ]
    if "security" in document:
        lines.append(
            "<p>Requests need an API key: the header <code>x-api-key: KEY</code>, or "
            "<code>Authorization: Bearer KEY</code>.</p>"
        )
    return "\n".join(lines)


def _operations(document: Mapping[str, Any], tag: str) -> Iterable[str]:
    """Yield the HTML of each operation of a tag, without HEAD, which is offered wherever GET is."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if tag in operation["tags"] and method != "head":
                also = ", HEAD" if method == "get" else ""
                yield _operation(f"{method.upper()}{also}", path, operation, document)


def _operation(methods: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    parts = [
        f'<section aria-labelledby="{operation["operationId"]}">',
        f'<h3 id="{operation["operationId"]}">{methods} <code>{escape(path)}</code></h3>',
        f"<p>{_text(operation['summary'])}. {_text(operation.get('description', ''))}</p>",
    ]
    if "security" in document and operation.get("security") == []:
        parts.append("<p>Needs no API key.</p>")
    own = {p["$ref"].rpartition("/")[2] for p in operation["parameters"]} - _COMMON
    if own:
        known = document["components"]["parameters"]
        parts += ["<h4>Parameters</h4>", _parameters({name: known[name] for name in sorted(own)})]
    if "requestBody" in operation:
        parts += ["<h4>Body</h4>", _content(operation["requestBody"]["content"])]
    status, success = next(iter(operation["responses"].items()))
    content = _content(success.get("content", {}))
    parts += [f"<h4>Response {status}</h4>", f"<p>{_text(success['description'])}</p>", content]
    errors = ", ".join(f'<a href="#error-{error}">{error}</a>' for error in operation["responses"] if error != status)
    return "\n".join([*parts, "<h4>Errors</h4>", f"<p>{errors}</p>", "</section>"])


def _content(content: Mapping[str, Any]) -> str:
    """Return a list of content types, each with its schema."""
    if not content:
        return ""
    lines = []
    for media_type, value in content.items():
        schema = value.get("schema")
        lines.append(f"<li><code>{escape(media_type)}</code>{': ' + _kind(schema) if schema else ''}</li>")
    return "<ul>\n" + "\n".join(lines) + "\n</ul>"


def _parameters(parameters: Mapping[str, Any]) -> str:
    rows = ((p["name"], p["schema"] | {"description": p["description"]}) for p in parameters.values())
    return _definitions(rows)


def _errors(responses: Mapping[str, Any]) -> str:
    lines = []
    for status, response in responses.items():
        if not status.isdecimal():  # the same errors, in the form of the Open Inference Protocol
            continue
        retry = " The header <code>retry-after</code> has the seconds to wait." * ("retry-after" in response["headers"])
        lines.append(
            f'<dt id="error-{status}"><strong>{status}</strong></dt>\n<dd>{_text(response["description"])}{retry}</dd>'
        )
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def _schemas(schemas: Mapping[str, Any]) -> Iterable[str]:
    for name, schema in schemas.items():
        yield f'<h3 id="schema-{name}">{name}</h3>'
        yield f"<p>{_text(schema.get('description', ''))}</p>"
        if "properties" in schema:
            yield _definitions(schema["properties"].items())


def _definitions(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Return a list of names, each with its type and meaning, and those of the object below it."""
    lines = []
    for name, schema in rows:
        below = _definitions(schema["properties"].items()) if "properties" in schema else ""
        description = _text(schema.get("description", ""))
        lines.append(f"<dt><code>{escape(name)}</code>: {_kind(schema)}</dt>\n<dd>{description}{below}</dd>")
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return in words which values a schema allows."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return "one of " + ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = schema.get("type", "any value")
    if kind == "array":
        bounds = [
            f"{word} {schema[key]}"
            for word, key in (("at least", "minItems"), ("at most", "maxItems"))
            if key in schema
        ]
        return f"list of {_kind(schema.get('items', {}))}" + (f" ({', '.join(bounds)})" if bounds else "")
    words = [" or ".join(kind) if isinstance(kind, list) else str(kind)]
    words += [
        f"{word} {schema[key]}" for word, key in (("at least", "minimum"), ("at most", "maximum")) if key in schema
    ]
    return ", ".join(words)


def _text(text: str) -> str:
    """Return a description as HTML; what is in backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
