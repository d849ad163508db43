"""Write the generated parts of README.md and docs/: `make docs`.

A page marks a part with the lines `<!-- generated: NAME -->` and `<!-- end -->`. `PARTS` maps each NAME to the function
that returns its text, from the code, the committed archive, or the measurements in docs/model/ and docs/performance/.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import yaml
from prometheus_client import Metric

from vinegrape_handler.contract import BATCH_FINISHED, BATCH_STARTED, HISTOGRAMS
from vinegrape_handler.errors import REFUSALS, WORKER_ERRORS
from vinegrape_handler.fields import ENVIRONMENT_PREFIX, choices
from vinegrape_handler.handler import Handler
from vinegrape_handler.images.structure import limits as structure
from vinegrape_handler.metadata import METADATA_FILE, Metadata
from vinegrape_handler.metrics import Metrics
from vinegrape_handler.reference import Distribution, Reference
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import BACKENDS
from vinegrape_loadtests.bench.report import edge_table
from vinegrape_loadtests.bench.report import report as benchmark_report
from vinegrape_loadtests.bench.results import Results
from vinegrape_loadtests.chaos.report import markdown as fault_table
from vinegrape_loadtests.chaos.row import Report
from vinegrape_loadtests.worst_images.results import WorstImageResults
from vinegrape_loadtests.worst_images.results import markdown as worst_image_table
from vinegrape_server import settings as server_settings
from vinegrape_server.drift.metrics import DriftMetrics
from vinegrape_server.drift.window import Window
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.edge.metrics import occupancy
from vinegrape_server.feedback.metrics import FeedbackMetrics
from vinegrape_server.feedback.request import Feedback
from vinegrape_server.feedback.store import FeedbackStore
from vinegrape_server.gateway.outcome import GRPC_CODES
from vinegrape_server.operations.metrics import ModelInfo, ServerMetrics
from vinegrape_server.operations.torchserve_metrics import TorchServeMetrics
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Served
from vinegrape_server.settings import MIN_DRIFT_ANSWERS
from vinegrape_server.torchserve.own_requests import OwnRequests
from vinegrape_training.evaluation.corruptions import CORRUPTIONS
from vinegrape_training.evaluation.robustness import Robustness

ROOT = Path(__file__).parents[1]
ARCHIVE = ROOT / "model_store" / "vinegrape.mar"
EVALUATION = ROOT / "docs" / "model" / "evaluation.json"
ROBUSTNESS = ROOT / "docs" / "model" / "robustness.json"
COMPARISON = ROOT / "docs" / "model" / "comparison.json"
WORST_IMAGES = ROOT / "docs" / "performance" / "worst_images.json"
FAULTS = ROOT / "docs" / "reliability.json"
BENCHMARK = ROOT / "docs" / "performance" / "bench.json"
EDGE_BENCHMARK = ROOT / "docs" / "performance" / "edge.json"

# int8 kernels of different processors give slightly different probabilities
PROBABILITY_TOLERANCE = 0.02

# A line of HAProxy's log, from which the access log counts one request
_EDGE_LINE: dict[str, Any] = {
    "time": 0, "transport": "rest", "status": 200, "error": "", "server": "torchserve", "termination": "--",
    "queue_ms": 0, "Tw": 0, "Tr": 0, "Ta": 0, "timing": "", "call_error": "", "version": "",
    **dict.fromkeys(
        ("id", "traceparent", "client", "key", "method", "path", "bytes_in", "bytes_out", "grpc_status"), ""
    ),
}  # fmt: skip

_PART = re.compile(r"^<!-- generated: (\S+) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A generated part of a page.

    Attributes:
        text: returns the part's Markdown.
        is_current: returns whether a page may keep its text. Arguments: the text in the page, the new text.
    """

    text: Callable[[], str]
    is_current: Callable[[str, str], bool] = str.__eq__


def pages(root: Path = ROOT) -> list[Path]:
    """List README.md and every page of docs/."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def outdated(page: str) -> list[str]:
    """Return the names of the parts in a page's text that are out of date."""
    return [name for name, old in _PART.findall(page) if not PARTS[name].is_current(old, _text(name))]


def update(page: str) -> str:
    """Return a page's text with its outdated parts replaced."""

    def replace(match: re.Match[str]) -> str:
        name, old = match.groups()
        if PARTS[name].is_current(old, _text(name)):
            return match[0]
        return f"<!-- generated: {name} -->\n{_text(name)}<!-- end -->"

    return _PART.sub(replace, page)


@cache
def _text(name: str) -> str:
    return PARTS[name].text().strip("\n") + "\n"


def _table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


# The archive and its responses


@cache
def _metadata() -> Metadata:
    with zipfile.ZipFile(ARCHIVE) as archive:
        return Metadata.from_json(archive.read(METADATA_FILE))


class _Context:
    """The context that TorchServe passes to a handler, for a batch of one request."""

    def __init__(self, folder: Path) -> None:
        self.system_properties: dict[str, Any] = {"model_dir": str(folder), "gpu_id": None}

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        return {}

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        pass

    def set_response_content_type(self, idx: int, value: str) -> None:
        pass

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        pass


@cache
def _response(file: str) -> dict[str, Any]:
    """The response to a file of the repository: by the committed weights and the present handler, without a server."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(folder)
        context, handler = _Context(Path(folder)), Handler()
        handler.initialize(context)
        (body,) = handler.handle([{"body": (ROOT / file).read_bytes()}], context)
    response: dict[str, Any] = json.loads(body)
    return response


def _json_block(value: dict[str, Any]) -> str:
    """A Markdown block of JSON with one line per key; an error's keys also get one line each."""
    if "error" in value:
        return f"```json\n{json.dumps(value, indent=2)}\n```"
    lines = [f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
    return "```json\n{\n" + ",\n".join(lines) + "\n}\n```"


def answer() -> str:
    """The response to docs/leaf.png."""
    return _json_block(_response("docs/leaf.png"))


def same_answer(old: str, new: str) -> bool:
    """Return whether two responses have the same label and model, and probabilities that differ by at most 0.02."""
    try:
        first, second = (
            json.loads(text.strip("\n").removeprefix("```json").removesuffix("```")) for text in (old, new)
        )
        before, after = first["probabilities"], second["probabilities"]
        return (
            all(first[key] == second[key] for key in ("label", "model"))
            and before.keys() == after.keys()
            and all(abs(before[name] - after[name]) <= PROBABILITY_TOLERANCE for name in after)
        )
    except (ValueError, LookupError, TypeError):
        return False


def invalid_image() -> str:
    """The response to a file that is no image."""
    return _json_block(_response("README.md"))


# Errors, settings, metrics: from the code


def errors() -> str:
    """The table of all errors that a request or an image can get."""
    senders = {**dict.fromkeys(WORKER_ERRORS, "worker"), **dict.fromkeys(REFUSALS, "edge or gateway")}
    kinds = sorted(senders, key=lambda error: (error.status, error.type))
    return _table(
        ["status", "gRPC status", "`type`", "meaning", "sent by"],
        [
            [error.status, GRPC_CODES[error.status].name, f"`{error.type}`", _first_line(error), senders[error]]
            for error in kinds
        ],
    )


def _first_line(documented: type) -> str:
    return (inspect.getdoc(documented) or "").splitlines()[0]


def settings() -> str:
    """The table of all settings of `vinegrape serve`."""
    rows = []
    for name, (owner, field) in server_settings.fields().items():
        allowed = ", ".join(f"`{value}`" for value in choices(owner, name))
        meaning = str(field.metadata["meaning"])
        meaning = f"{meaning}; one of {allowed}" if allowed else meaning
        rows.append([_option(name), f"`{ENVIRONMENT_PREFIX}{name.upper()}`", f"`{field.default}`", meaning])
    return _table(["option", "environment variable", "default", "meaning"], rows)


def limits() -> str:
    """The table of the settings that limit a request."""
    fields = {name: field for name, (_, field) in server_settings.fields().items() if name.startswith("max_image")}
    fields |= {name: server_settings.fields()[name][1] for name in ("max_instances", "worker_memory_mb")}
    rows = [[_option(name), f"{field.default:,}", field.metadata["meaning"]] for name, field in fields.items()]
    return _table(["option of `vinegrape serve`", "default", "meaning"], rows)


def structure_limits() -> str:
    """The table of the limits of an image's structure."""
    rows = [[f"{limit.most:,} {limit.parts}", limit.reason] for limit in structure.LIMITS]
    return _table(["maximum", "reason"], rows)


def _option(setting: str) -> str:
    return f"`--{setting.replace('_', '-')}`"


def metrics() -> str:
    """The table of all metrics of the operations port."""
    return _table(["metric", "type", "labels", "meaning"], (_metric_row(metric) for metric in _metrics()))


def _metric_row(metric: Metric) -> list[str]:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    labels = dict.fromkeys(label for sample in metric.samples for label in sample.labels if label != "le")
    return [f"`{name}`", metric.type, ", ".join(f"`{label}`" for label in labels), metric.documentation]


def _metrics() -> Iterator[Metric]:
    """The metrics of the workers, of the supervisor, and of TorchServe, in this order; their values are not real."""
    classes, one_bin = _metadata().classes, Distribution((1.0,), (1.0, 0.0))
    reference = Reference(1, dict.fromkeys(classes, 1 / len(classes)), dict.fromkeys(HISTOGRAMS, one_bin))
    worker = Metrics(classes, reference=reference)
    drift = DriftMetrics(worker.registry, reference, Window(MIN_DRIFT_ANSWERS, 1))
    for _ in range(MIN_DRIFT_ANSWERS):  # with fewer there are no scores
        worker.count_prediction(classes[0], 1)
    workers = {metric.name: metric for metric in worker.registry.collect()}
    plan: Any = SimpleNamespace(
        archive=SimpleNamespace(metadata=_metadata()), worker=WorkerSettings(), settings=server_settings.ServeSettings()
    )
    served = Served(plan)
    with tempfile.TemporaryDirectory() as folder:
        status: Any = SimpleNamespace(
            why_not_ready=lambda: "", pids=lambda: {"frontend": [os.getpid()]}, restarts=lambda: {"gateway": 0}
        )
        edge = AccessLog(None)
        edge.add([json.dumps(_EDGE_LINE).encode()])
        with FeedbackStore(Path(folder), 1, 1) as store:
            store.add([Feedback("", classes[0], 1, True, classes[0])])
            collectors = [
                drift, FeedbackMetrics(store, served), WorkerMetrics(Path(folder)), ModelInfo(served),
                ServerMetrics(status), edge,
            ]  # fmt: skip
            server = [metric for collector in collectors for metric in collector.collect()]
            server += occupancy("pxname,svname,qcur,scur\n")
    # Only the supervisor reads these
    yield from (metric for name, metric in workers.items() if name not in (BATCH_STARTED.name, BATCH_FINISHED.name))
    yield from (metric for metric in server if metric.name not in workers)
    yield from TorchServeMetrics(_torchserve_metrics, OwnRequests()).collect()


def _torchserve_metrics() -> str:
    """One sample of each metric that TorchServe 0.12 lists in its own configuration, in Prometheus' text format."""
    import ts

    configured = yaml.safe_load((Path(ts.__file__).parent / "configs" / "metrics.yaml").read_text())["ts_metrics"]
    lines = []
    for kind, listed in configured.items():
        for metric in listed:
            labels = ",".join(f'{name}="0"' for name in metric["dimensions"])
            lines += [f"# TYPE {metric['name']} {kind}", f"{metric['name']}{{{labels}}} 0"]
    return "\n".join(lines) + "\n"


# The model: from the archive's metadata and docs/model/


@cache
def _evaluation() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(EVALUATION.read_text())
    return values


def model_facts() -> str:
    """The main facts of the archive's metadata."""
    metadata, evaluation = _metadata(), _evaluation()
    return _table(
        ["", ""],
        [
            ["version", f"`{metadata.version}`"],
            ["architecture", f"timm's `{metadata.architecture}`, started from `{evaluation['recipe']['weights']}`"],
            ["input", f"{metadata.input_size} x {metadata.input_size} px RGB, resized {metadata.interpolation}"],
            ["classes", ", ".join(metadata.classes)],
            ["temperature", f"{metadata.temperature:.3f}"],
            ["OOD threshold", f"{metadata.ood_threshold:.2f}"],
            ["archive", f"{ARCHIVE.stat().st_size / 1e6:.1f} MB"],
        ],
    )


def model_figures() -> str:
    """The figures of the cross-validation."""
    values = _evaluation()
    low, high = values["accuracy_95"]
    seeds = ", ".join(f"{accuracy:.2%} (seed {seed})" for seed, accuracy in values["accuracy_by_seed"].items())
    changes = ", ".join(f"{count:+d} (seed {seed})" for seed, count in values["int8"]["more_wrong"].items())
    return _table(
        ["", ""],
        [
            ["images, folds, seeds", f"{values['images']}, {values['folds']}, {len(values['seeds'])}"],
            ["accuracy", f"{values['accuracy']:.2%}: {seeds}"],
            ["its 95 % Wilson interval", f"{low:.1%} to {high:.1%}"],
            ["accuracy of the int8 files", f"{values['int8']['accuracy']:.2%}; more errors than float32: {changes}"],
            *([f"recall of {name}", f"{recall:.1%}"] for name, recall in values["recall"].items()),
            ["log loss", f"{values['log_loss']:.3f}"],
            ["expected calibration error, 15 bins", f"{values['calibration_error']:.3f}"],
            ["calibration error without the temperature", f"{values['calibration_error_before']:.3f}"],
            ["calibration error of the int8 files", f"{values['int8']['calibration_error']:.3f}"],
        ],
    )


def confusion() -> str:
    """The confusion matrix of all seeds together."""
    values = _evaluation()
    rows = [[name, *counts] for name, counts in zip(values["classes"], values["confusion"], strict=True)]
    return _table(["true class \\ predicted class", *values["classes"]], rows)


def wrong_images() -> str:
    """The images that were classified wrong."""
    rows = [[f"`{path}`", ", ".join(classes)] for path, classes in _evaluation()["wrong"].items()]
    return _table(["image", "predicted class, once per seed in which it was wrong"], rows)


@cache
def _robustness() -> Robustness:
    return Robustness.read(ROBUSTNESS)


def robustness() -> str:
    """The figures of changed images, at the required strengths."""
    parameters = {corruption.name: corruption.parameter for corruption in CORRUPTIONS}
    rows = [
        [
            row.corruption.replace("_", " "),
            f"{row.strength:g} ({parameters[row.corruption]})" if row.corruption in parameters else "",
            f"{row.accuracy:.1%}",
            f"{row.known:.1%}",
            "" if row.accuracy_of_known is None else f"{row.accuracy_of_known:.1%}",
            f"{row.calibration_error:.3f}",
        ]
        for row in _robustness().rows
        if row.required
    ]
    header = ["change", "strength", "accuracy", "known", "accuracy of the known", "calibration error"]
    return f"{_robustness().note()}\n\n{_table(header, rows)}"


def foreign() -> str:
    """The figures of images that show none of the varieties, from the evaluation."""
    rows = []
    for kind, figures in _evaluation()["abstention"]["kinds"].items():
        new = [figures[name] for name in ("new_source", "new_species")]
        cells = [cell for each in new for cell in (f"{each['passed']:.1%}", f"{each['auroc']:.3f}")]
        rows.append([kind.replace("_", " "), figures["images"], *cells])
    return _table(["kind", "images", "passed, new source", "AUROC", "passed, known source", "AUROC"], rows)


def parity() -> str:
    """The differences between the exported files and the trained model."""
    figures = _metadata().metrics
    rows = [
        [
            f"`{backend}`",
            f"{figures[f'parity_{backend}_agreement']:.2%}",
            f"{figures[f'parity_{backend}_difference']:.1e}",
        ]
        for backend in BACKENDS
    ]
    return _table(["weights", "same top-1 class", "largest difference of a probability"], rows)


def comparison() -> str:
    """Accuracy and cost of several networks, the fastest first."""
    rows = []
    for row in sorted(json.loads(COMPARISON.read_text()), key=lambda row: row["relative_latency"]):
        low, high = row["accuracy_95"]
        rows.append(
            [
                f"`{row['architecture']}`",
                "ImageNet" if row["pretrained"] else "random",
                row["input_size"],
                f"{row['accuracy']:.2%}",
                f"{low:.1%} to {high:.1%}",
                f"{row['int8_accuracy']:.2%}",
                f"{row['int8_latency_ms']:.1f}",
                f"{row['relative_latency']:.2f}",
                f"{row['weights_mb']:.1f}",
            ]
        )
    columns = ["input, px", "accuracy", "95 % interval", "int8 accuracy", "ms per image", "relative time", "MB"]
    return _table(["network", "initial weights", *columns], rows)


# Performance: from docs/performance/bench.json


@cache
def _benchmark() -> Results:
    return Results.read(BENCHMARK)


def _ratio(target: str, workload: str = "png") -> str:
    ratio = _benchmark().ratio(target, workload)
    return "not measured" if ratio is None else f"{ratio:.2f}"


def summary() -> str:
    """The figures that matter most, in sentences."""
    evaluation, results = _evaluation(), _benchmark()
    low, high = evaluation["accuracy_95"]
    kinds = {kind: figures["new_source"]["passed"] for kind, figures in evaluation["abstention"]["kinds"].items()}
    others = kinds.pop("other_varieties")
    return (
        f"In cross-validation {evaluation['accuracy']:.2%} of {evaluation['images']} images are classified correctly "
        f"(95 % interval {low:.1%} to {high:.1%}).\n"
        f"Of unseen leaves {evaluation['abstention']['known']:.1%} are known; of foreign images at most "
        f"{max(kinds.values()):.1%} of each kind get a label, but {others:.0%} of other grapevine varieties.\n"
        f"The service starts in {statistics.median(results.start_s):.1f} s, uses "
        f"{sum(results.memory_mib.values()):.0f} MiB, and adds {results.overhead_cpu_ms('rest'):.1f} ms of CPU time to "
        f"each request ({results.machine.partition(',')[0]})."
    )


def ratios() -> str:
    """Throughput relative to other servers."""
    peers = {
        "the same code in two processes, without a server (the maximum)": "ceiling",
        "FastAPI with the same code": "fastapi_same_code",
        "FastAPI with Pillow and float32": "fastapi_float32",
    }
    rows = [[text, _ratio(name), _ratio(name, "photo")] for text, name in peers.items()]
    return _table(["compared with", "leaf, PNG", "12-megapixel photo"], rows)


def performance() -> str:
    """The main results of the benchmark."""
    results = _benchmark()
    rates = [statistics.median(results.rates("vinegrape", "png", transport).values()) for transport in ("rest", "grpc")]
    return _table(
        ["", "measured"],
        [
            ["requests per second, leaf as PNG, REST, at the better of 16 and 64 connections", f"{rates[0]:.1f}"],
            ["the same, gRPC", f"{rates[1]:.1f}"],
            ["throughput / TorchServe's own image_classifier", _ratio("torchserve_stock")],
            [
                "CPU time per request beyond decoding, resizing and network, REST",
                f"{results.overhead_cpu_ms('rest'):.2f} ms",
            ],
            ["the same, gRPC", f"{results.overhead_cpu_ms('grpc'):.2f} ms"],
            [
                "median latency on one connection, beyond that in process",
                f"{results.idle_overhead_ms():.2f} ms",
            ],
            ["p99 latency at 0.7 of the maximum rate / in process, even arrivals", f"{results.tail('even', 0.7):.2f}"],
            ["the same, Poisson arrivals", f"{results.tail('poisson', 0.7):.2f}"],
            ["time from start to the first correct response", f"{statistics.median(results.start_s):.1f} s"],
            ["memory of all processes (PSS)", f"{sum(results.memory_mib.values()):.0f} MiB"],
        ],
    )


def edge() -> str:
    """What the edge and the gateway cost."""
    results = Results.read(EDGE_BENCHMARK)
    table = "\n".join(edge_table(results))
    return (
        f"{table}\n\nThrough the edge, the median latency on one connection is {results.edge_latency_ms():.2f} ms "
        f"higher than without it. Machine: {results.machine}."
    )


def machine() -> str:
    """The machine and the versions of the benchmark."""
    results = _benchmark()
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return f"Machine: {results.machine}. Versions: {versions}."


def benchmark() -> str:
    """All results of the benchmark, as `vinegrape bench serving` writes them to bench.md."""
    return benchmark_report(_benchmark()) + "\n"


def faults() -> str:
    """The results of the faults."""
    return fault_table(Report.read(FAULTS))


def worst_images() -> str:
    """What the worst images cost."""
    return worst_image_table(WorstImageResults.read(WORST_IMAGES))


PARTS = {
    "answer": Part(answer, same_answer),
    "comparison": Part(comparison),
    "confusion": Part(confusion),
    "edge": Part(edge),
    "errors": Part(errors),
    "faults": Part(faults),
    "foreign": Part(foreign),
    "invalid-image": Part(invalid_image),
    "limits": Part(limits),
    "machine": Part(machine),
    "metrics": Part(metrics),
    "model-facts": Part(model_facts),
    "model-figures": Part(model_figures),
    "parity": Part(parity),
    "performance": Part(performance),
    "ratios": Part(ratios),
    "robustness": Part(robustness),
    "settings": Part(settings),
    "structure-limits": Part(structure_limits),
    "summary": Part(summary),
    "worst-images": Part(worst_images),
    "wrong-images": Part(wrong_images),
}
FILES = {BENCHMARK.with_suffix(".md"): benchmark}  # generated as a whole


def outdated_everywhere() -> dict[Path, list[str]]:
    """Map each outdated page to the names of its outdated parts; a page that is generated whole, to its own name."""
    names = {page: outdated(page.read_text(encoding="utf-8")) for page in pages()}
    names |= {file: [file.name] for file, text in FILES.items() if file.read_text(encoding="utf-8") != text()}
    return {page: parts for page, parts in names.items() if parts}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a part is out of date.")
def main(check: bool) -> None:
    """Write the generated parts of README.md and docs/, and print the names of those that changed."""
    outdated_pages = outdated_everywhere()
    for page, names in outdated_pages.items():
        click.echo(f"{page.relative_to(ROOT)}: {', '.join(names)}")
        if not check:
            text = FILES[page]() if page in FILES else update(page.read_text(encoding="utf-8"))
            page.write_text(text, encoding="utf-8")
    if check and outdated_pages:
        click.echo("These parts are out of date. Run: make docs", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
