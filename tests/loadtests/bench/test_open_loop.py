import contextlib
import http.server
import itertools
import threading

import pytest

from vinegrape_loadtests.bench import open_loop


@contextlib.contextmanager
def serving(respond):
    """A server with one thread per connection; `respond(body)` returns the status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            status = respond(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            if status != 200:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_due_times_are_even_or_exponentially_distributed():
    assert open_loop.due_times(4, 1, poisson=False) == [0.25, 0.5, 0.75, 1.0]
    due = open_loop.due_times(100, 50, poisson=True)
    assert due == open_loop.due_times(100, 50, poisson=True)
    assert due != open_loop.due_times(100, 50, poisson=True, seed=1)
    assert due == sorted(due)
    assert due[-1] == pytest.approx(50, rel=0.05)
    gaps = [after - before for before, after in itertools.pairwise(due)]
    assert sum(gap > 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)  # 1/e exceed the mean


def test_a_request_is_sent_when_due_without_waiting_for_responses():
    """A closed loop on one connection would wait forever here. Latencies count from the due time."""
    arrived, all_there = [], threading.Event()

    def respond(body):
        arrived.append(body)
        if len(arrived) == 3:
            all_there.set()
        return 200 if all_there.wait(30) else 500

    with serving(respond) as url:
        load, latencies = open_loop.run(url, [b"a", b"b"], [0.0, 0.2, 0.4])
    assert (load.requests, load.failed) == (3, 0)
    assert sorted(arrived) == [b"a", b"a", b"b"]  # in turn
    assert latencies[0] > latencies[1] > latencies[2]
    assert latencies[0] > 400


def test_an_error_status_is_a_failure_and_its_connection_is_not_reused():
    with serving(lambda body: 200 if body == b"good" else 503) as url:
        load, latencies = open_loop.run(url, [b"good", b"bad"], [0.0, 0.1, 0.2, 0.3])
    assert (load.requests, load.failed, len(latencies)) == (2, 2, 2)


def test_a_refused_connection_is_a_failure():
    load, latencies = open_loop.run("http://127.0.0.1:1/", [b"a"], [0.0])
    assert (load.requests, load.failed, latencies, load.latency_ms) == (0, 1, [], {})
