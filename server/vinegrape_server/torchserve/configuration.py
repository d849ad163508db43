"""TorchServe's configuration file, command line, environment and folder, made from a plan."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from vinegrape_handler.errors import SettingError
from vinegrape_server.host.http import Address
from vinegrape_server.plan import Plan
from vinegrape_server.settings import LOOPBACK

METRICS_FOLDER = "metrics"  # the folder, inside an instance's folder, of the workers' metrics

# The path of a socket has at most 107 bytes. TorchServe names its sockets `.ts.sock.` and a number.
_MAX_FOLDER_BYTES = 107 - len("/.ts.sock.65535")
# Java's native library, and the files of the metrics of each process
_OTHER_BYTES = 16_000_000
# Java's memory outside its heap: what it needs without requests, and for each of the largest requests
_DIRECT_BYTES, _COPIES, _MIN_BODIES = 64 << 20, 3, 8
_QUEUE_BEHIND_EDGE = 1000  # requests
_HOME, _STORE, _PROPERTIES = "home", "store", "config.properties"
_WORKER = Path(__file__).parents[1] / "worker" / "main.py"
_CONFIG = files("vinegrape_server") / "serve_config"


def required_bytes(plan: Plan) -> int:
    """Return the free space that the folder of one instance needs, in bytes."""
    return plan.archive.packed_bytes + plan.archive.unpacked_bytes + _OTHER_BYTES


def prepare(plan: Plan, folder: Path) -> None:
    """Fill the folder of one instance: the configuration file, a copy of the archive, and TorchServe's home.

    The copy gets a plain name: TorchServe splits lists of archives at commas, and loads only files with an ASCII name
    that ends in `.mar`. TorchServe looks for its Python files in its home, where our worker replaces TorchServe's own.

    Raises:
        SettingError: torchserve is not installed, the folder cannot be written, or its path is too long for the
            workers' sockets.
    """
    package = _torchserve_folder()
    size = len(os.fsencode(folder))
    if size > _MAX_FOLDER_BYTES:
        raise SettingError(
            f"The path {folder} has {size} bytes; TorchServe's sockets allow at most {_MAX_FOLDER_BYTES}. "
            "Set TMPDIR to a folder with a shorter path."
        )
    try:
        (folder / METRICS_FOLDER).mkdir()
        (folder / _STORE).mkdir()
        home = folder / _HOME / "ts"
        home.mkdir(parents=True)
        for name in ("configs", "metrics", "version.txt"):
            (home / name).symlink_to(package / name)
        (home / "model_service_worker.py").symlink_to(_WORKER)
        shutil.copyfile(plan.archive.path, folder / _STORE / archive_name(plan))
        (folder / _PROPERTIES).write_text(properties(plan, folder))
    except OSError as error:
        raise SettingError(f"Cannot write to {folder}: {error.strerror}. Set TMPDIR to another folder.") from error


def archive_name(plan: Plan) -> str:
    """Return the name of the first archive in TorchServe's store."""
    return f"{plan.archive.metadata.name}.mar"


def store(folder: Path) -> Path:
    """Return the folder of the archives that TorchServe may load."""
    return folder / _STORE


def management(plan: Plan, folder: Path) -> Address:
    """Return the address of TorchServe's management API: by default a socket in the instance's private folder."""
    return _private_address(plan.settings.management_port, folder / "management.sock")


def metrics(plan: Plan, folder: Path) -> Address:
    """Return the address of TorchServe's own metrics: by default a socket in the instance's private folder."""
    return _private_address(plan.settings.metrics_port, folder / "metrics.sock")


def _private_address(port: int, path: Path) -> Address:
    return Address(LOOPBACK, port) if port else Address(str(path), 0)


def _torchserve_url(address: Address) -> str:
    return f"http://{address.host}:{address.port}" if address.port else f"unix:{address.host}"


def properties(plan: Plan, folder: Path) -> str:
    """Return the text of TorchServe's `config.properties`."""
    settings, archive = plan.settings, plan.archive
    model = {
        archive.metadata.name: {
            archive.metadata.version: {
                "defaultVersion": True,
                "marName": archive_name(plan),
                "minWorkers": settings.workers,
                "maxWorkers": settings.workers,
                "batchSize": settings.batch_size,
                "maxBatchDelay": settings.max_batch_delay_ms,
                "responseTimeout": settings.response_timeout_s,
                "startupTimeout": settings.startup_timeout_s,
            }
        }
    }
    values = {
        "inference_address": f"http://{settings.host_of('rest_port')}:{settings.rest_port}",
        "management_address": _torchserve_url(management(plan, folder)),
        "metrics_address": _torchserve_url(metrics(plan, folder)),
        # The gateway serves gRPC. TorchServe cannot start without its own gRPC servers: on any free port, unused
        "grpc_inference_address": LOOPBACK,
        "grpc_inference_port": 0,
        "grpc_management_address": LOOPBACK,
        "grpc_management_port": settings.grpc_management_port,
        "number_of_gpu": plan.gpus,
        # Behind the edge, requests wait in the edge's queue. TorchServe's must hold what the edge lets through, and
        # requests whose clients have left: they stay until a worker has seen that their deadline has passed
        "job_queue_size": max(_QUEUE_BEHIND_EDGE, 4 * plan.slots) if settings.edge else settings.queue_size,
        "max_request_size": settings.max_request_bytes,
        "load_models": archive_name(plan),
        "models": json.dumps(model),
    }
    return _CONFIG.joinpath("torchserve.properties").read_text() + "".join(f"{k}={v}\n" for k, v in values.items())


def command(plan: Plan, java: Path, folder: Path) -> list[str]:
    """Return the command that starts TorchServe's frontend: the one that TorchServe's own launcher runs.

    We do not use the launcher: Java must be our child process, and all servers would share the launcher's PID file.

    Args:
        plan: what to start.
        java: the `java` program.
        folder: the folder of this instance, filled by `prepare`. Java writes its temporary files there too.
    """
    return [
        str(java),
        f"@{_CONFIG.joinpath('jvm.options')}",
        # On a CPU, Java's optimizing compiler (C2) would compete with the network for minutes; C1 needs less time
        *([] if plan.gpus else ["-XX:TieredStopAtLevel=1"]),
        f"-Dlog4j.configurationFile=file://{_CONFIG.joinpath('log4j2.xml')}",
        f"-Djava.util.logging.config.file={_CONFIG.joinpath('logging.properties')}",
        f"-Djava.io.tmpdir={folder}",
        "-cp",
        f"{_torchserve_folder() / 'frontend' / '*'}",
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "--ts-config-file",
        str(folder / _PROPERTIES),
        "--model-store",
        str(folder / _STORE),
        "--no-config-snapshot",
    ]


def environment(plan: Plan, folder: Path, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables of TorchServe and its workers."""
    return {
        **inherited,
        # Ours come first: Java takes the last of two. Options of its command line would take precedence over both
        "JAVA_TOOL_OPTIONS": " ".join([*_memory_options(plan), inherited.get("JAVA_TOOL_OPTIONS", "")]).strip(),
        **plan.settings.worker.to_environment(),
        "TMPDIR": str(folder),
        "TEMP": str(folder),
        "TS_MODEL_SERVER_HOME": str(folder / _HOME),  # takes precedence over the Java property of the same name
        # Otherwise Python searches the folder of our worker's script first, and `import protocol` finds our module
        "PYTHONSAFEPATH": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(folder / METRICS_FOLDER),
        # Numerical libraries read this when they are loaded, before the handler can configure them
        "OMP_NUM_THREADS": str(plan.settings.worker.threads),
    }


def _memory_options(plan: Plan) -> list[str]:
    """Return Java's options for the memory outside its heap, which holds the bodies of requests.

    A form that TorchServe cannot parse is never released. Only the collector frees it, and only without Netty's pool of
    buffers. The edge lets no form through, and the pool is cheaper.
    """
    bodies = max(plan.slots, _MIN_BODIES)
    limit = _DIRECT_BYTES + bodies * _COPIES * plan.settings.max_request_bytes
    allocator = [] if plan.settings.edge else ["-Dio.netty.allocator.type=unpooled"]
    return [*allocator, f"-XX:MaxDirectMemorySize={limit // 1024}k"]


def _torchserve_folder() -> Path:
    """Return the folder of the installed package `ts`."""
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        raise SettingError("torchserve is not installed in this environment. Run: pip install -c constraints.txt -e .")
    return Path(spec.origin).parent
