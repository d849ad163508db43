"""The process of the edge: start, reload, stop."""

import os
import signal

import pytest

from tests.server.edge.test_connections import post
from tests.server.edge.test_security import make_certificate, presented
from tests.support.edge import read_to_end, running_edge
from tests.support.server import wait_until
from vinegrape_server.edge.process import EdgeProcess
from vinegrape_server.errors import ServeError
from vinegrape_server.host.processes import is_running
from vinegrape_server.plan import Served

pytestmark = pytest.mark.tools


def test_leaving_the_block_kills_it(tmp_path):
    with running_edge(tmp_path) as edge:
        assert edge.process.is_running()
        edge.process.check()
        pid = edge.process.pid
    assert not is_running(pid)


def test_an_end_is_reported_and_another_can_take_its_place(tmp_path):
    with running_edge(tmp_path) as edge:
        os.kill(edge.process.pid, signal.SIGKILL)
        wait_until(lambda: not edge.process.is_running())
        with pytest.raises(ServeError, match=r"HAProxy was killed by SIGKILL\."):
            edge.process.check()
        with EdgeProcess(Served(edge.plan), edge.haproxy, edge.folder, edge.log) as process:
            assert edge.refuses_connections()  # until it is opened
            process.open()
            assert not edge.refuses_connections()
            assert edge.post(b"image").status_code == 200


def test_a_reload_changes_keys_and_loses_no_connection(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first 0123456789abcdef-1\n")
    (tmp_path / "edge").mkdir()
    with running_edge(tmp_path / "edge", api_keys=str(keys)) as edge:

        def status(key: str) -> int:
            return edge.exchange(post(b"image", f"x-api-key: {key}", "Connection: close")).status

        waiting = edge.connect()
        waiting.sendall(post(b'{"wait": true}', "x-api-key: 0123456789abcdef-1"))
        wait_until(lambda: edge.torchserve.waiting == 1)
        assert not edge.process.files_changed()
        keys.write_text("second 0123456789abcdef-2\n")
        assert edge.process.files_changed()
        old = edge.process.pid
        assert edge.process.reload()
        assert edge.process.pid != old
        assert not edge.process.files_changed()
        assert (status("0123456789abcdef-1"), status("0123456789abcdef-2")) == (403, 200)
        edge.torchserve.release()
        exchange = read_to_end(waiting)
        waiting.close()
        assert (exchange.status, exchange.end) == (200, "FIN")
        assert b"connection: close" in exchange.data
        wait_until(lambda: not is_running(old))


def test_a_reload_with_an_invalid_file_keeps_what_was(tmp_path, capsys):
    keys = tmp_path / "keys"
    keys.write_text("first 0123456789abcdef-1\n")
    (tmp_path / "edge").mkdir()
    with running_edge(tmp_path / "edge", api_keys=str(keys)) as edge:
        keys.write_text("first\n")
        old = edge.process.pid
        assert not edge.process.reload()
        assert edge.process.pid == old
        assert not edge.process.files_changed()  # it is not tried again until the file changes again
        assert edge.post(b"image", headers={"x-api-key": "0123456789abcdef-1"}).status_code == 200
    assert "keeps its keys" in capsys.readouterr().err


def test_a_reload_changes_the_certificate(tmp_path):
    certificate, key = make_certificate(tmp_path)
    other, other_key = make_certificate(tmp_path, "other")
    (tmp_path / "edge").mkdir()
    with running_edge(tmp_path / "edge", tls=True, tls_certificate=str(certificate), tls_key=str(key)) as edge:
        assert presented(edge.port) == certificate.read_text().strip()
        key.write_text(other_key.read_text())
        certificate.write_text(other.read_text())
        assert edge.process.reload()
        assert presented(edge.port) == other.read_text().strip()


def test_a_graceful_stop_answers_open_connections_once_more(tmp_path):
    with running_edge(tmp_path) as edge:
        idle, busy = edge.connect(), edge.connect()
        idle.sendall(post())
        assert b"connection: close" not in idle.recv(1 << 16)
        busy.sendall(post(b'{"wait": true}'))
        wait_until(lambda: edge.torchserve.waiting == 1)
        edge.process.stop_gracefully()
        wait_until(edge.refuses_connections)
        idle.sendall(post())
        exchange = read_to_end(idle)
        assert (exchange.status, exchange.end) == (200, "FIN")
        assert b"connection: close" in exchange.data
        edge.torchserve.release()
        exchange = read_to_end(busy)
        assert (exchange.status, exchange.end) == (200, "FIN")
        idle.close()
        busy.close()


def test_the_chatter_of_a_start_is_not_logged(tmp_path, capsys):
    with running_edge(tmp_path):
        pass
    assert capsys.readouterr().err == ""
