"""BDF files, written: 24-bit samples in records of about a second."""

import math
from pathlib import Path

import numpy as np

from eeg.models.montage import CHANNELS, SFREQ

TOP_STEP = 8388607  # the largest of 24 bits; with its negative as the least, 0 is exactly 0
CHUNK_SAMPLES = 20_000


def write_bdf(
    path: Path,
    x: np.ndarray,
    top_uv: list[str] | None = None,
    about: str = "X",
    filters: str = "",
) -> None:
    """Write (129, N) microvolts at 100 Hz.

    top_uv: the largest value of each channel, as its header says it; None: what its samples need.
    """
    channels, samples = x.shape
    tops = top_uv or [top(np.abs(one).max()) for one in x]
    record = record_samples(samples)
    header = b"\xffBIOSEMI" + _text(["X X X X", f"Startdate X X X {about}"], 80)
    header += b"01.01.1500.00.00" + _text([256 * (channels + 1)], 8) + _text(["24BIT"], 44)
    header += _text([samples // record, f"{record / SFREQ:g}"], 8) + _text([channels], 4)
    header += _text(CHANNELS, 16)
    for values, width in (
        ([""] * channels, 80),  # transducer
        (["uV"] * channels, 8),
        ([f"-{each}" for each in tops], 8),
        (tops, 8),
        ([-TOP_STEP] * channels, 8),
        ([TOP_STEP] * channels, 8),
        ([filters] * channels, 80),
        ([record] * channels, 8),
        ([""] * channels, 32),
    ):
        header += _text(values, width)
    steps_per_uv = TOP_STEP / np.array(tops, float)[:, None]
    many = max(1, CHUNK_SAMPLES // record) * record
    with open(path, "wb") as file:
        file.write(header)
        for first in range(0, samples, many):
            steps = np.rint(x[:, first : first + many] * steps_per_uv)
            whole = np.clip(steps, -TOP_STEP, TOP_STEP).astype("<i4")
            records = whole.reshape(channels, -1, record).transpose(1, 0, 2)
            bytes3 = np.ascontiguousarray(records).view(np.uint8).reshape(-1, 4)[:, :3]
            file.write(bytes3.tobytes())


def top(largest: float) -> str:
    """A header's text for a range that holds +- this many microvolts: at most 7 characters."""
    if not largest:
        return "1"  # a constant channel, the reference
    decimals = max(0, 6 - len(f"{largest:.0f}"))
    value = math.ceil(largest * 10**decimals) / 10**decimals
    return f"{min(value, 9_999_999):.{decimals}f}"[:7]


def record_samples(samples: int) -> int:
    """How many samples of a channel make a record: as near 100 as divides them all.

    No record is then filled up, and the recording is as long as it was.
    """
    fits = [
        n for n in range(1, min(samples, 10_000) + 1)
        if samples % n == 0 and n / float(f"{n / SFREQ:g}") == SFREQ
    ]  # fmt: skip
    return min(fits, key=lambda n: abs(math.log(n / SFREQ)))


def _text(values, width):
    return b"".join(str(value).ljust(width).encode("ascii") for value in values)
