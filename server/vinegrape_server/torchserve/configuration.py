"""TorchServe's configuration, command line and environment, made from a plan."""

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
from vinegrape_server.plan import Plan

METRICS = "metrics"  # where in an instance's folder the workers' numbers lie

# A socket's name may have 107 bytes; TorchServe's is `.ts.sock.` and a number
_LONGEST_FOLDER = 107 - len("/.ts.sock.65535")
_HOME, _STORE, _PROPERTIES = "home", "store", "config.properties"
_WORKER = Path(__file__).parents[1] / "worker" / "main.py"
_CONFIG = files("vinegrape_server") / "serve_config"


def prepare(plan: Plan, folder: Path) -> None:
    """Fill the folder of one instance: the configuration, the archive under a name that TorchServe can take, its home.

    Its settings split lists at commas and load nothing whose name is not ASCII or does not end in `.mar`. Its home is
    where it looks for its Python half: there our worker has the place of its own.

    Raises:
        SettingError: the temporary folder is full, or its name too long for the workers' sockets.
    """
    package = _package()
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise SettingError(f"{folder} is too long a name for TorchServe's sockets. Set TMPDIR to a shorter one.")
    try:
        (folder / METRICS).mkdir()
        (folder / _STORE).mkdir()
        home = folder / _HOME / "ts"
        home.mkdir(parents=True)
        for name in ("configs", "metrics", "version.txt"):
            (home / name).symlink_to(package / name)
        (home / "model_service_worker.py").symlink_to(_WORKER)
        shutil.copyfile(plan.archive.path, folder / _STORE / _archive_name(plan))
        (folder / _PROPERTIES).write_text(properties(plan))
    except OSError as error:
        raise SettingError(f"Cannot write to {folder}: {error.strerror}. Set TMPDIR to another place.") from error


def _archive_name(plan: Plan) -> str:
    return f"{plan.archive.metadata.name}.mar"


def properties(plan: Plan) -> str:
    """The text of TorchServe's `config.properties`."""
    settings, archive = plan.settings, plan.archive
    model = {
        archive.metadata.name: {
            archive.metadata.version: {
                "defaultVersion": True,
                "marName": _archive_name(plan),
                "minWorkers": plan.workers,
                "maxWorkers": plan.workers,
                "batchSize": plan.batch_size,
                "maxBatchDelay": settings.max_batch_delay_ms,
                "responseTimeout": settings.response_timeout_s,
                "startupTimeout": settings.startup_timeout_s,
            }
        }
    }
    values = {
        "inference_address": f"http://{settings.host}:{settings.rest_port}",
        "management_address": f"http://{settings.host_of('management_port')}:{settings.management_port}",
        "metrics_address": f"http://{settings.host_of('metrics_port')}:{settings.metrics_port}",
        "grpc_inference_address": settings.host,
        "grpc_inference_port": settings.grpc_port,
        "grpc_management_address": settings.host_of("grpc_management_port"),
        "grpc_management_port": settings.grpc_management_port,
        "number_of_gpu": plan.gpus,
        "job_queue_size": settings.queue_size,
        "max_request_size": settings.max_request_bytes,
        "load_models": _archive_name(plan),
        "models": json.dumps(model),
    }
    return _CONFIG.joinpath("torchserve.properties").read_text() + "".join(f"{k}={v}\n" for k, v in values.items())


def command(plan: Plan, java: Path, folder: Path) -> list[str]:
    """The command that starts TorchServe's frontend, as TorchServe's own launcher makes it.

    Without that launcher there is no process between us and the Java process, and no file of its id to fight over.

    Args:
        plan: what to start.
        java: the Java to start it with.
        folder: of this instance alone; filled by `prepare`; Java's temporary files come to lie there too.
    """
    return [
        str(java),
        f"@{_CONFIG.joinpath('jvm.options')}",
        # Beside a network that takes 15 ms, Java would compile for minutes; its quick compiler is soon done
        *([] if plan.gpus else ["-XX:TieredStopAtLevel=1"]),
        f"-Dlog4j.configurationFile=file://{_CONFIG.joinpath('log4j2.xml')}",
        f"-Djava.util.logging.config.file={_CONFIG.joinpath('logging.properties')}",
        f"-Djava.io.tmpdir={folder}",
        "-cp",
        f"{_package() / 'frontend' / '*'}",
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
    """The environment of TorchServe and its workers."""
    return {
        **inherited,
        **plan.worker.to_environment(),
        "TMPDIR": str(folder),
        "TEMP": str(folder),
        "TS_MODEL_SERVER_HOME": str(folder / _HOME),  # goes before the property of this name, whoever sets it
        # Else the folder of our worker, a script, is searched first, and `metrics` is the one in there
        "PYTHONSAFEPATH": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(folder / METRICS),
        # Numerical libraries read these when they load, whatever a session is told later
        "OMP_NUM_THREADS": str(plan.worker.threads),
    }


def _package() -> Path:
    """Where TorchServe is installed."""
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        raise SettingError("torchserve is not installed in this environment. Run: pip install -e .")
    return Path(spec.origin).parent
