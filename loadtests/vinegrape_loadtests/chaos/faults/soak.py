"""A long load: memory must not grow."""

from __future__ import annotations

import time

from vinegrape_loadtests.chaos.sockets import post
from vinegrape_loadtests.chaos.trial import Trial
from vinegrape_loadtests.images import draw_photo
from vinegrape_loadtests.local.processes import pss_mib

MOST_GROWTH = 0.02  # of the memory of all processes
_FLAT_AFTER = 1 / 3  # of the time
_SAMPLE_S = 5


def soak(trial: Trial) -> None:
    """Serve good clients, photos, broken images, forms and JSON for a long time, and watch the memory."""
    photo, image = draw_photo(), trial.images[0].image
    mix = (
        (photo, "image/jpeg", "200"),
        (image[: len(image) // 2], "image/png", "422"),
        (b"This is no image.", "text/plain", "415"),
        (b'{"instances": [0]}', "application/json", "200"),
        (bytes(31_000_000), "image/bmp", "413"),
    )
    seconds = 60 * trial.soak_minutes
    samples: list[tuple[float, float]] = []  # seconds since the start, MiB of all processes
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        body, content_type, status = mix[len(samples) % len(mix)]
        response, _ = post(trial.target.rest, body, content_type)
        trial.expect(response.outcome, {status})
        samples.append((elapsed, sum(mib for _, mib in pss_mib(trial.target.pid))))
        time.sleep(_SAMPLE_S)
    early = [mib for at, mib in samples if _FLAT_AFTER * seconds * 0.8 <= at <= _FLAT_AFTER * seconds * 1.2]
    late = [mib for at, mib in samples if at >= 0.8 * seconds]
    if not early or not late:
        trial.require(False, f"{seconds:.0f} s are too short to see whether memory grows")
        return
    before, after = _median(early), _median(late)
    trial.note(f"memory {before:.0f} MiB after a third of {seconds / 60:.0f} minutes, {after:.0f} MiB at the end")
    trial.require(after <= (1 + MOST_GROWTH) * before, f"memory grew from {before:.0f} to {after:.0f} MiB")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
