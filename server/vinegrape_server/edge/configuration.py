"""HAProxy's command line, environment variables and files, made from a plan."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import secrets
import ssl
import subprocess
from importlib.resources import files
from pathlib import Path

from vinegrape_handler.errors import SettingError
from vinegrape_server.edge.openapi.document import make_document
from vinegrape_server.edge.openapi.page import POLICY, make_page
from vinegrape_server.host.http import Address, reachable
from vinegrape_server.host.machine import count_cores
from vinegrape_server.plan import Plan
from vinegrape_server.settings import ServeSettings

ADMIN_SOCKET = "admin.sock"
_INNER_SOCKET, _METRICS_SOCKET = "inner.sock", "haproxy.sock"
_KEYS, _PEM, _PROXIES, _ORIGINS, _PROBE = "keys.map", "edge.pem", "proxies.txt", "origins.txt", "probe.txt"
_OPENAPI, _DOCS = "openapi.json", "docs.html"
_CONFIG = files("vinegrape_server") / "serve_config" / "haproxy.cfg"

# HAProxy holds complete bodies, up to 16 of the largest at the same time: 2 GB with this limit.
_MAX_REQUEST_BYTES = 128_000_000
# Head of a request, and the space that HAProxy reserves for changes of it.
_HEAD_BYTES = 65_536
_HEAD_TIMEOUT_S = 10
_MEDIUM_UPLOADS = 64  # bodies between 256 KB and 8 MB: 512 MB
_CHECK_TIMEOUT_S = 30

_KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[\x21-\x7e]{16,512}")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")


def prepare(plan: Plan, haproxy: Path, folder: Path) -> None:
    """Write HAProxy's files to the folder of one instance, and let HAProxy check its configuration.

    A reload calls it again. Existing files are replaced only if all settings are valid.

    Raises:
        SettingError: a setting of the edge, or a file that it names, cannot be used.
    """
    settings = plan.settings
    if settings.max_request_bytes > _MAX_REQUEST_BYTES:
        raise SettingError(
            f"max_image_bytes is {settings.worker.max_image_bytes}, so a request can have {settings.max_request_bytes} "
            f"bytes; the edge holds complete requests of at most {_MAX_REQUEST_BYTES} bytes. Lower max_image_bytes, or "
            "serve without --edge."
        )
    document = make_document(plan)
    texts = {
        _PROXIES: _proxies(settings),
        _ORIGINS: _origins(settings),
        _KEYS: _digests(settings.api_keys),
        _PEM: _pem(settings, folder),
        _OPENAPI: json.dumps(document, separators=(",", ":")),
        _DOCS: make_page(document),
    }
    for name, text in texts.items():
        _write(folder / name, text)
    if not (folder / _PROBE).exists():
        _write(folder / _PROBE, f"{secrets.token_hex()}\n")
    _check(plan, haproxy, folder)


def probe_headers(folder: Path) -> dict[str, str]:
    """Return the header that marks a request of the server to its own public port: it is neither logged nor counted."""
    return {"x-vinegrape-probe": (folder / _PROBE).read_text().strip()}


def inner(folder: Path) -> Address:
    """Return the address of the private entry, whose requests wait in the edge's queue like those of clients."""
    return Address(str(folder / _INNER_SOCKET), 0)


def admin(folder: Path) -> Address:
    """Return the address of HAProxy's own commands."""
    return Address(str(folder / ADMIN_SOCKET), 0)


def metrics(folder: Path) -> Address:
    """Return the address of HAProxy's own metrics."""
    return Address(str(folder / _METRICS_SOCKET), 0)


def command(haproxy: Path) -> list[str]:
    """Return the command that starts HAProxy in the foreground. Its working directory must be the instance's folder."""
    return [str(haproxy), "-db", "-f", str(_CONFIG)]


def environment(plan: Plan) -> dict[str, str]:
    """Return HAProxy's environment variables."""
    settings = plan.settings
    medium = max(_MEDIUM_UPLOADS, plan.slots + settings.queue_size)
    # A queue of N requests lasts N / slots times the mean time of a response, which HAProxy keeps times 16, in ms
    wait_divisor = 16 * plan.slots
    values = {
        "ADDRESS": f"{settings.host}:{settings.edge_port}",
        "BUFFER_BYTES": settings.max_request_bytes + _HEAD_BYTES,
        "CORS": "none" if not settings.cors_origins else "any" if settings.cors_origins.strip() == "*" else "list",
        "DEADLINE_MS": settings.deadline_ms,
        "DOCS_POLICY": POLICY,
        "GATEWAY": f"{settings.host_of('grpc_port')}:{settings.grpc_port}",
        # After a reload the old process finishes its requests. This time includes their upload
        "HARD_STOP_S": max(settings.drain_timeout_s, settings.upload_timeout_s + settings.deadline_ms // 1000) + 5,
        "HEAD_TIMEOUT_S": min(_HEAD_TIMEOUT_S, settings.upload_timeout_s),
        "KEEP_ALIVE_S": settings.keep_alive_timeout_s,
        "KEYS": _yes_or_no(settings.api_keys),
        "MAX_CONNECTIONS": settings.max_connections,
        # A request with its own deadline passes through HAProxy twice, and HAProxy itself needs some
        "MAX_CONNECTIONS_INSIDE": 2 * settings.max_connections + 100,
        "MAX_CONNECTIONS_PER_CLIENT": settings.max_connections_per_client,
        "MAX_REQUESTS_PER_SECOND": settings.max_requests_per_second,
        "MAX_REQUEST_BYTES": settings.max_request_bytes,
        "MEDIUM_UPLOADS": medium,
        "MEDIUM_UPLOADS_PER_CLIENT": medium // 2,
        "MODEL": plan.archive.metadata.name,
        "OPERATIONS": f"{reachable(settings.operations_host)}:{settings.operations_port}",
        "PAGE": _yes_or_no(plan.archive.has_page),
        "QUEUE_SIZE": settings.queue_size,
        "QUEUE_WAIT_MS": settings.queue_wait_ms,
        "RETRY_DIVISOR": 1000 * wait_divisor,
        # One batch per worker, beside those in the slots
        "SHORT_QUEUE": plan.slots // 2,
        "SLOTS": plan.slots,
        "THREADS": min(4, 1 + count_cores() // 16),
        "TLS": _yes_or_no(settings.tls_certificate),
        "TORCHSERVE": f"{settings.host_of('rest_port')}:{settings.rest_port}",
        "UPLOAD_TIMEOUT_S": settings.upload_timeout_s,
        "VERSION": plan.archive.metadata.version,
        "WAIT_DIVISOR": wait_divisor,
    }
    return {
        **{f"VINEGRAPE_EDGE_{name}": str(value) for name, value in values.items()},
        # HAProxy's large buffers must come from the heap and stay there: otherwise the kernel clears each one again for
        # every request, which doubles the CPU time
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(128 * 1024 * 1024),
    }


def watched_files(settings: ServeSettings) -> list[Path]:
    """Return the files whose content a reload reads again."""
    return [Path(name) for name in (settings.api_keys, settings.tls_certificate, settings.tls_key) if name]


def _yes_or_no(value: object) -> str:
    return "yes" if value else "no"


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _proxies(settings: ServeSettings) -> str:
    networks = []
    for item in _items(settings.trusted_proxies):
        try:
            networks.append(ipaddress.ip_network(item, strict=False))
        except ValueError:
            raise SettingError(
                f"trusted_proxies contains {item!r}; it must be a list of addresses or networks, such as "
                "10.0.0.0/8,192.168.1.7"
            ) from None
    return "".join(f"{network}\n" for network in networks)


def _origins(settings: ServeSettings) -> str:
    origins = _items(settings.cors_origins)
    if origins == ["*"]:
        return ""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise SettingError(
                f"cors_origins contains {origin!r}; it must be * or a list of origins without a path, such as "
                "https://example.org,http://localhost:3000"
            )
    return "".join(f"{origin.lower()}\n" for origin in origins)


def _read(setting: str, name: str) -> str:
    try:
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingError(
            f"{setting} is {name!r}, which cannot be read ({reason}). Set {setting} to a readable file."
        ) from error


def _digests(path: str) -> str:
    """Return a line with the SHA-256 digest and the name of each key: HAProxy does not get the keys themselves."""
    keys: dict[str, str] = {}
    if not path:
        return ""
    for number, line in enumerate(_read("api_keys", path).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"api_keys: line {number} of {path}"
        if len(words) != 2 or not _KEY_NAME.fullmatch(words[0]) or not _KEY.fullmatch(words[1]):
            raise SettingError(
                f"{where} is not valid. A line must be NAME KEY: a name of letters, digits, '.', '_' and '-', and a "
                "key of 16 to 512 characters without spaces. Make a key with: openssl rand -hex 32"
            )
        name, digest = words[0], hashlib.sha256(words[1].encode()).hexdigest().upper()
        if name in keys.values():
            raise SettingError(f"{where} uses the name {name} again. Give each key its own name.")
        if digest in keys:
            raise SettingError(f"{where} has the same key as {keys[digest]}. Give each name its own key.")
        keys[digest] = name
    if not keys:
        raise SettingError(f"api_keys is {path!r}, which has no key. Add a line NAME KEY, or unset api_keys.")
    return "".join(f"{digest} {name}\n" for digest, name in keys.items())


def _pem(settings: ServeSettings, folder: Path) -> str:
    """Return the certificate chain and the private key in one text."""
    if not settings.tls_certificate:
        if settings.tls_key:
            raise SettingError(f"tls_key is {settings.tls_key!r}, but tls_certificate is empty. Set both.")
        return ""
    text = _read("tls_certificate", settings.tls_certificate)
    if settings.tls_key:
        text = f"{text}\n{_read('tls_key', settings.tls_key)}"
    candidate = folder / f"{_PEM}.new"
    _write(candidate, text)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(candidate, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise SettingError(
            f"tls_certificate is {settings.tls_certificate!r} and tls_key is {settings.tls_key!r}; they do not hold a "
            f"certificate in PEM format and its private key without a password ({error})."
        ) from error
    finally:
        candidate.unlink()
    return text


def _write(path: Path, text: str) -> None:
    """Write a file that only this user can read. A running HAProxy sees the old or the new text, never a part."""
    new = path.with_name(f"{path.name}.tmp")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
            file.write(text)
        new.replace(path)
    except OSError as error:
        raise SettingError(f"Cannot write to {path}: {error.strerror}. Set TMPDIR to another folder.") from error


def _check(plan: Plan, haproxy: Path, folder: Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603
            [*command(haproxy), "-c", "-q"],
            env=environment(plan),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_CHECK_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingError(f"HAProxy cannot check its configuration: {error}") from error
    if done.returncode:
        raise SettingError(f"HAProxy does not accept the settings of the edge: {first_alert(done.stderr)}")


def first_alert(text: str) -> str:
    """Return the first error of HAProxy's standard error."""
    alerts = [line for line in text.splitlines() if "[ALERT]" in line]
    first = (alerts or text.splitlines() or ["no reason given"])[0]
    return re.sub(r"^\[ALERT\]\s*\(\d+\)\s*:\s*(config\s*:\s*)?", "", first)
