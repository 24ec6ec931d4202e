"""What is done to training windows, and how strongly. csrc/augment.hpp does it, in the gather.

Draws are keyed by (seed, epoch, window): a window gets the same whatever batch, thread or resumed
run it is in.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from eeg import UserError

# Electrodes of the HydroCel net that mirror each other; the others (E6, E11, ... Cz) lie on the
# midline.
_PAIRS = (
    "1-32 2-26 3-23 4-19 5-12 7-106 8-25 9-22 10-18 13-112 14-21 20-118 24-124 27-123 28-117 "
    "29-111 30-105 31-80 33-122 34-116 35-110 36-104 37-87 38-121 39-115 40-109 41-103 42-93 "
    "43-120 44-114 45-108 46-102 47-98 48-119 49-113 50-101 51-97 52-92 53-86 54-79 56-107 57-100 "
    "58-96 59-91 60-85 61-78 63-99 64-95 65-90 66-84 67-77 68-94 69-89 70-83 71-76 73-88 74-82 "
    "125-128 126-127"
)
PAIRS = tuple(tuple(map(int, pair.split("-"))) for pair in _PAIRS.split())


@dataclass(frozen=True)
class Augment:
    """Strengths; 0 is off, and with all off a window comes out bit for bit as it is stored."""

    scale: float = 0.0  # amplitude x (1 - scale .. 1 + scale)
    dropout: float = 0.0  # share of channels set to 0
    noise: float = 0.0  # normal noise, of each channel's standard deviation
    shift: float = 0.0  # seconds, either way; within what is stored around the window
    mask: float = 0.0  # a stretch of up to this share of the window is set to 0
    mirror: float = 0.0  # share of windows whose left and right are exchanged
    mix: float = 0.0  # alpha of mixup's Beta(alpha, alpha)

    def __post_init__(self):
        for name, value in asdict(self).items():
            most = {"noise": 100, "shift": 10}.get(name, 1)
            least = {"mix": 0.001}.get(name, 0)
            if value != 0 and not least <= value <= most:
                known = f"must be 0 or lie from {least} to {most}" if least else (
                    f"must lie from 0 to {most}")  # fmt: skip
                raise UserError(f"the augmentation {name} {known}, got {value}")

    def native(self, seed: int, epoch: int, sfreq: float) -> Any:
        """These strengths as the gather takes them."""
        from eeg.native import _native

        strengths = asdict(self) | {"shift": round(self.shift * sfreq)}
        return _native.Augment(seed=seed & 0xFFFFFFFF, epoch=epoch, **strengths)


AUGMENTATIONS = tuple(field.name for field in fields(Augment))


def mirrored(channels: Sequence[str]) -> Any:
    """(C,) int32: for each channel the number of the one on the other side of the head.

    Channels of another net stay where they are.
    """
    import numpy as np

    other = {f"E{a}": f"E{b}" for pair in PAIRS for a, b in (pair, pair[::-1])}
    place = {name: i for i, name in enumerate(channels)}
    return np.array([place.get(other.get(name), i) for i, name in enumerate(channels)], np.int32)
