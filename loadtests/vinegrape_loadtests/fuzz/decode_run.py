"""Fuzz `decode` in several processes, each of which is watched for crashes, hangs and the growth of its memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from vinegrape_loadtests.fuzz.failures import Failures
from vinegrape_loadtests.fuzz.seeds import seeds
from vinegrape_loadtests.fuzz.state import State

# Seconds of CPU time for one image, all its checks included: it is decoded up to five times
_MAX_CPU_S = 10
_MAX_GROWTH_MIB = 1024
_POLL_S = 0.2
_MOST_RESTARTS = 20


@dataclass
class DecodeRun:
    """The results of one run.

    Attributes:
        images: how many are done.
        counts: how many images got each status; images with which something was wrong are not counted.
        problems: what was wrong with how many processes: "crash", "hang", "memory".
        peak_mib: the highest resident memory of one process.
    """

    images: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    peak_mib: float = 0


def fuzz_decode(
    images: int, seed: int, processes: int, pixels: int, output: Path, progress: Callable[[int], None]
) -> DecodeRun:
    """Decode changed images.

    Args:
        images: how many, in all processes together.
        seed: equal seeds give equal images, as long as no process is restarted.
        processes: how many decode at the same time.
        pixels: the largest number of pixels of an image.
        output: folder for the images with which something was wrong, and for each process a log and a corpus.
        progress: called with the number of images that are done.
    """
    failures = Failures(output / "failures")
    share = -(-images // processes)
    children = [_Child(output, failures, seed + number, number, share, pixels) for number in range(processes)]
    with contextlib.ExitStack() as stack:
        for child in children:
            stack.callback(child.stop)
            child.start()
        while not all(list(map(_Child.watch, children))):  # every one of them, also after one that is not done
            progress(sum(child.state.ended for child in children))
            time.sleep(_POLL_S)
        progress(sum(child.state.ended for child in children))
    run = DecodeRun()
    for child in children:
        run.images += child.state.ended
        run.counts += child.state.counts
        run.problems += child.problems
        run.peak_mib = max(run.peak_mib, child.peak_mib)
    return run


class _Child:
    """A process that decodes images; it is started again after a crash or a hang."""

    def __init__(self, output: Path, failures: Failures, seed: int, number: int, images: int, pixels: int) -> None:
        self.problems: Counter[str] = Counter()
        self.peak_mib = 0.0
        self._folder = output / f"process-{number}"
        self._corpus = self._folder / "corpus"
        self._corpus.mkdir(parents=True, exist_ok=True)
        for name, data in seeds().items():
            (self._corpus / f"{name.replace(' ', '-')}.bin").write_bytes(data)
        state_file = self._folder / "state"
        state_file.unlink(missing_ok=True)
        self.state = State(state_file)
        self._failures, self._seed, self._images, self._pixels = failures, seed, images, pixels
        self._restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._present, self._cpu_before, self._first_mib = 0, 0.0, 0.0

    def start(self) -> None:
        """Start the process for the images that are left."""
        left = self._images - self.state.ended
        arguments = [self._folder / "state", self._failures.folder, self._corpus, self._seed + 1000 * self._restarts,
                     left, self._pixels]  # fmt: skip
        command = [sys.executable, "-m", "vinegrape_loadtests.fuzz.child", *map(str, arguments)]
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
        self._first_mib = 0.0

    def watch(self) -> bool:
        """Return whether all images are done; restart a process that has crashed, hangs or grows."""
        process = self._process
        if process is None:
            return True
        if process.poll() is not None:
            return self._ended(process.returncode)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._check_memory(psutil.Process(process.pid))
            self._check_time(psutil.Process(process.pid))
        return False

    def stop(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _ended(self, code: int) -> bool:
        if self.state.ended >= self._images:
            return True
        if self.state.present is not None:
            self._report("crash", f"the process ended with code {code}")
        elif code:
            self.problems[f"exit code {code}"] += 1
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            self.problems["too many restarts"] += 1
            return True
        self.start()
        return False

    def _check_memory(self, process: psutil.Process) -> None:
        mib = process.memory_info().rss / 2**20
        self.peak_mib = max(self.peak_mib, mib)
        self._first_mib = self._first_mib or mib
        if mib > self._first_mib + _MAX_GROWTH_MIB:
            self._report("memory", f"the process has {mib:.0f} MiB, and had {self._first_mib:.0f}")
            process.kill()

    def _check_time(self, process: psutil.Process) -> None:
        times = process.cpu_times()
        cpu = times.user + times.system
        number = present[0] if (present := self.state.present) else 0
        if not number or number != self._present:
            self._present, self._cpu_before = number, cpu
        elif cpu - self._cpu_before > _MAX_CPU_S:
            self._report("hang", f"not decoded after {cpu - self._cpu_before:.1f} s of CPU time")
            process.kill()

    def _report(self, kind: str, problem: str) -> None:
        if (present := self.state.present) is not None:
            self._failures.save(present[1], f"{kind}: {problem}")
            self.state.skip_present()
        self.problems[kind] += 1
