import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from tests.conftest import program
from tests.support import stand_in
from tests.support.processes import running
from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests import memory
from vinegrape_loadtests.bench.command import bench
from vinegrape_loadtests.memory import (
    COLUMNS,
    LoadRequest,
    MemoryRow,
    PeakMemory,
    make_requests,
    measure_memory,
    send_all,
)


def test_requests_go_up_to_the_limits_of_the_settings():
    settings = WorkerSettings(max_image_bytes=1_000_000, max_image_pixels=1_000_000)
    requests = make_requests(b"image", settings)
    assert requests["the image"].body == b"image"
    largest = requests["most bytes"].body
    assert 0.9 * 1_000_000 < len(largest) <= 1_000_000
    assert requests["most instances"].body.count(b"b64") == settings.max_instances
    assert largest in requests["most bytes, as a form"].body
    assert requests["most bytes, over gRPC"] == LoadRequest(largest, content_type="")


def server_at(url: str, grpc_address: str = "") -> SimpleNamespace:
    """The addresses of a running server."""
    return SimpleNamespace(predictions_url=url, grpc_address=grpc_address, edge=False)


def test_each_status_and_each_kind_of_error_is_counted():
    with stand_in.stand_in(stand_in.in_turn(stand_in.correct, stand_in.failing)) as server:
        responses = send_all(server_at(server.url), LoadRequest(b"image"), connections=2, seconds=0.2)
        assert responses.keys() == {"200", "500"}
        assert responses.total() == server.requests
    nowhere = server_at("http://127.0.0.1:1/", "127.0.0.1:1")
    assert send_all(nowhere, LoadRequest(b"image"), 1, 1).keys() == {"ConnectionRefusedError"}
    assert send_all(nowhere, LoadRequest(b"image", content_type=""), 1, 1).keys() == {"WrongResponse"}


def test_a_refused_client_waits_as_long_as_it_is_told_to():
    with stand_in.stand_in(stand_in.refusing(retry_after=600)) as server:
        assert send_all(server_at(server.url), LoadRequest(b"image"), connections=2, seconds=0.2) == {"429": 2}


@pytest.mark.parametrize(
    ("responses", "complete"),
    [
        ({}, True),
        ({"200": 9}, True),
        ({"200": 1, "429": 8}, True),
        ({"429": 9}, False),
        ({"200": 8, "503": 1}, False),
        ({"200": 8, "TimeoutError": 1}, False),
    ],
)
def test_a_measurement_is_complete_if_requests_were_answered_and_none_failed(responses, complete):
    assert MemoryRow("photo", {}, Counter(responses)).complete is complete


_ALLOCATES = """
import sys
for line in sys.stdin:
    block = b"x" * int(line)
    print(len(block), flush=True)
"""


@pytest.mark.xdist_group("timing")
def test_the_peak_of_a_process_includes_memory_that_it_has_freed():
    """The process holds 100 MiB while its memory is sampled, and nothing at the end."""
    command = [sys.executable, "-c", _ALLOCATES]
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def allocate(size: int) -> None:
            process.stdin.write(f"{size}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{size}\n"

        allocate(1)
        with PeakMemory(process.pid) as empty:
            pass
        with PeakMemory(process.pid) as peak:
            allocate(100 * 2**20)
            while peak.mib["all"] < empty.mib["all"] + 90:
                time.sleep(0.01)
            allocate(1)
        with PeakMemory(process.pid) as at_the_end:
            pass
    assert peak.mib["all"] >= empty.mib["all"] + 90
    assert at_the_end.mib["all"] < empty.mib["all"] + 90
    assert peak.mib.keys() == set(COLUMNS)


def test_the_command_fails_if_a_response_is_not_200(monkeypatch):
    peak_mib = {"Java": 200.0, "largest worker": 100.0, "gateway": 30.0, "edge": 0.0, "serve": 30.0, "all": 360.0}
    rows = [
        MemoryRow("started", peak_mib, Counter()),
        MemoryRow("the image", peak_mib, Counter({"200": 9})),
        MemoryRow("most bytes", peak_mib, Counter({"200": 1, "503": 8})),
    ]
    monkeypatch.setattr(memory, "measure_memory", lambda *_, **__: iter(rows))
    result = CliRunner().invoke(bench, ["memory"])
    assert result.exit_code == 1
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["Java", "largest", "worker", "gateway", "edge", "serve", "all", "responses"]
    assert lines[0].split() == ["started", "200", "100", "30", "0", "30", "360"]
    assert lines[2].split()[-4:] == ["200:", "1", "503:", "8"]
    assert result.stderr == "Error: A request failed, or all were refused: most bytes.\n"


@pytest.mark.live
@pytest.mark.tools
@pytest.mark.xdist_group("timing")
def test_the_memory_of_the_edge_is_measured_with_as_many_large_requests_as_it_accepts(tiny_archive, leaf, monkeypatch):
    """The edge accepts 4 requests of more than 8 MB of one address at the same time, but 16 of all addresses."""
    program("haproxy", "haproxy")
    for name, value in {"ARCHIVE": tiny_archive, "WORKERS": 1, "MAX_IMAGE_BYTES": 9_000_000}.items():
        monkeypatch.setenv(f"VINEGRAPE_{name}", str(value))
    rows = {row.name: row for row in measure_memory(connections=8, seconds=1, image=leaf, edge=True)}
    assert all(row.complete for row in rows.values()), rows
    assert rows["most bytes"].peak_mib["edge"] > rows["started"].peak_mib["edge"] + 4 * 9
    assert rows["most bytes"].responses.keys() == {"200"}


@pytest.mark.live
@pytest.mark.xdist_group("timing")
def test_a_real_servers_memory_is_measured_for_every_request(tiny_archive, leaf, monkeypatch):
    for name, value in {"ARCHIVE": tiny_archive, "WORKERS": 1, "MAX_IMAGE_BYTES": 4_000_000}.items():
        monkeypatch.setenv(f"VINEGRAPE_{name}", str(value))
    rows = list(measure_memory(connections=2, seconds=0.1, image=leaf))
    assert [row.name for row in rows][:2] == ["started", "the image"]
    assert len(rows) == 10
    for row in rows:
        assert row.complete, row
        assert row.responses or row.name == "started"
        assert row.peak_mib["all"] > row.peak_mib["Java"] > 10
        assert row.peak_mib["largest worker"] > 10
