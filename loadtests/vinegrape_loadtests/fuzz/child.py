"""One process that fuzzes `decode`.

Its arguments are the files and folders STATE, FAILURES and CORPUS, then SEED, IMAGES and PIXELS.

Atheris chooses the inputs by the lines of Python that they reach, in the handler and in Pillow's plugins. Without it
(there is no wheel for every platform), the inputs are random changes of the seeds.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vinegrape_loadtests.fuzz.failures import Failures
from vinegrape_loadtests.fuzz.state import State

_LARGEST = 1 << 17  # bytes of an input
_NEVER_S = 10**6  # 0 would end the process after the first second
_DESTROY_EVERY = 8  # images: how often the header of one is destroyed
_INSTRUMENTED = ["PIL", "vinegrape_handler"]


def main(arguments: list[str]) -> None:
    """Decode a number of images, and end."""
    state_file, failures, corpus, seed, count, pixels = arguments
    warnings.simplefilter("ignore")
    engine = _load_atheris()
    run = _make_run(State(Path(state_file)), Failures(Path(failures)), int(pixels))
    rng = random.Random(int(seed))  # noqa: S311
    (_run_atheris if engine else _run_changes)(engine, run, rng, Path(corpus), int(count))


def _load_atheris() -> Any | None:
    """Import Atheris, and with its instrumentation what it observes; None if it is not installed."""
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        return None
    with atheris.instrument_imports(include=_INSTRUMENTED, enable_loader_override=False):
        from PIL import Image

        import vinegrape_handler.images.decode  # noqa: F401

        Image.init()  # imports all of Pillow's plugins
    return atheris


def _make_run(state: State, failures: Failures, pixels: int) -> Callable[[bytes], None]:
    from vinegrape_handler.images.decode import Limits
    from vinegrape_loadtests.fuzz.checks import Violation, check_destroyed, outcome

    limits = Limits(_LARGEST, pixels)
    images = 0

    def run(data: bytes) -> None:
        nonlocal images
        images += 1
        data = data[:_LARGEST]
        state.begin(data)
        status = None
        try:
            status = outcome(data, limits)
            if images % _DESTROY_EVERY == 0:
                check_destroyed(data, limits)
        except Violation as error:
            failures.save(data, str(error))
        state.end(status)

    return run


def _run_atheris(atheris: Any, run: Callable[[bytes], None], rng: random.Random, corpus: Path, count: int) -> None:
    """Let libFuzzer run; it ends the process after `count` images."""

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        from vinegrape_loadtests.fuzz.mutations import apply, random_changes
        from vinegrape_loadtests.fuzz.seeds import seeds

        own = random.Random(seed)  # noqa: S311
        if own.random() < 0.25:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        if own.random() < 0.5:
            data = own.choice(tuple(seeds().values()))
        return apply(data, random_changes(own), own.choice(tuple(seeds().values())))[:max_size]

    # Its own limits of time and memory are off: the parent watches both
    options = [f"-runs={count}", f"-seed={rng.randrange(1, 2**31)}", f"-max_len={_LARGEST}", "-len_control=0",
               f"-timeout={_NEVER_S}", "-rss_limit_mb=0", "-malloc_limit_mb=0", "-print_final_stats=1",
               f"-artifact_prefix={corpus.parent}/"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], run, custom_mutator=change)
    atheris.Fuzz()


def _run_changes(_engine: None, run: Callable[[bytes], None], rng: random.Random, _corpus: Path, count: int) -> None:
    """Change a seed, or an image that was changed before, again and again."""
    from vinegrape_loadtests.fuzz.mutations import apply, random_changes
    from vinegrape_loadtests.fuzz.seeds import seeds

    pool = list(seeds().values())
    for _ in range(count):
        run(apply(rng.choice(pool), random_changes(rng), rng.choice(pool)))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
