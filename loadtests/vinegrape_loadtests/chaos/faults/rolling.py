"""A rolling restart of two servers behind clients that keep their connections."""

from __future__ import annotations

import os
import signal
import time

from vinegrape_loadtests.chaos.good_clients import GoodClients, Load
from vinegrape_loadtests.chaos.target import Target, public_ports
from vinegrape_loadtests.chaos.trial import Trial

_TIMEOUT_S = 10
_OPTIONS = ("--workers", "1")  # each: two servers share this machine's cores
_SHARE = 0.5  # of the usual rate, because each server is also started on these cores


def rolling_restart(trial: Trial) -> None:
    """Restart one server after the other: SIGTERM, wait for its end, start it again on the same ports, wait."""
    ports = [public_ports(), public_ports()]
    rounds = trial.count(1, 3)
    rates = {transport: _SHARE * rate for transport, rate in trial.rates.items()}
    if trial.edge:
        rates["http2"] = rates["rest"] = rates["rest"] / 2
    with _Server(trial, ports[0]) as first, _Server(trial, ports[1]) as second:
        for server in (first, second):
            server.target.server.wait_until_ready()
        endpoints = (first.target.endpoint, second.target.endpoint)
        with GoodClients(Load(endpoints, trial.images, rates, _TIMEOUT_S)) as clients:
            trial.clients = clients
            trial.require(clients.wait_for_right_answers(0, 20), "no right answers before the restart")
            trial.begin()
            for _ in range(rounds):
                for server in (first, second):
                    trial.note(f"ended after {server.restart():.1f} s")
                    time.sleep(1)  # clients find it again
            trial.require(clients.wait_for_right_answers(time.monotonic(), 10), "no right answers after the restart")
            clients.stop()


class _Server:
    """A server that can be restarted on the same ports. As a context manager it ends with the block."""

    def __init__(self, trial: Trial, ports: dict[str, int]) -> None:
        self._trial, self._ports = trial, ports

    def __enter__(self) -> _Server:
        self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.__exit__(None, None, None)

    def restart(self) -> float:
        """Restart the server; return the seconds that its end took."""
        begin = time.monotonic()
        os.kill(self.target.pid, signal.SIGTERM)
        code = self.target.wait_for_exit(40)
        seconds = time.monotonic() - begin
        self._trial.require(code == 0, f"exit code {code} after SIGTERM")
        self._context.__exit__(None, None, None)
        self._start()
        self.target.server.wait_until_ready()
        return seconds

    def _start(self) -> None:
        self._context = self._trial.serve(*_OPTIONS, ports=self._ports)
        self.target: Target = self._context.__enter__()
