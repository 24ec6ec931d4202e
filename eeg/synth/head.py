"""Where electrodes are, and what a source looks like on one subject's scalp.

Places are points of the unit sphere: x right, y front, z up. A map is (129,) float32, after
reference to Cz.
"""

import functools
import zlib
from collections.abc import Sequence

import numpy as np

from eeg.models.montage import CHANNELS, GROUPS
from eeg.synth.subjects import stream
from eeg.synth.table import NUMBER, SITES

PARIETAL = [CHANNELS.index(name) for name in GROUPS["parietal"]]
BACKGROUND_SOURCES = 64


@functools.cache
def electrodes() -> np.ndarray:
    """(129, 3): the net's electrodes on the unit sphere."""
    import mne

    net = mne.channels.make_standard_montage("GSN-HydroCel-129").get_positions()["ch_pos"]
    xyz = np.array([net[name] for name in CHANNELS])
    xyz -= xyz.mean(0) * [1, 1, 0]
    return xyz / np.linalg.norm(xyz, axis=1, keepdims=True)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def place_of(names: Sequence[str]) -> np.ndarray:
    """(3,): the middle of these electrodes."""
    return unit(electrodes()[[CHANNELS.index(name) for name in names]].mean(0))


class Head:
    """One subject's head: how the net sits on it, where its sources are, how wide they spread."""

    def __init__(self, seed: int, release: str, index: int):
        self._whose = seed, release, index
        rng = stream(*self._whose, "head")
        turn = NUMBER["cap_sd"] * rng.standard_normal(3)
        xyz = electrodes()
        self.xyz = unit(xyz + np.cross(turn, xyz))
        self.width = np.exp(NUMBER["width_sd"] * rng.standard_normal())

    def bump(self, centre: np.ndarray, width: float) -> np.ndarray:
        """(129,): 1 at the centre and smaller around it, before any reference; width in rad."""
        angle = np.arccos(np.clip(self.xyz @ centre, -1, 1))
        return np.exp(-0.5 * (angle / (width * self.width)) ** 2)

    def site(self, name: str) -> np.ndarray:
        """The map of a source of the table: 1 where it is largest, at a place of the subject's
        own.
        """
        names, width = SITES[name]
        rng = stream(*self._whose, "source", zlib.crc32(name.encode()))
        spread = NUMBER["place_sd"] * (4 if name.startswith("own") else 1)
        centre = unit(place_of(names) + spread * rng.standard_normal(3))
        return self.referenced(self.bump(centre, width * np.exp(0.15 * rng.standard_normal())))

    def over(self, names: Sequence[str], width: float) -> np.ndarray:
        """(129,): a bump over the middle of these electrodes, before any reference."""
        return self.bump(place_of(names), width)

    def referenced(self, topography: np.ndarray) -> np.ndarray:
        """The map after reference to Cz, with a largest value of 1."""
        topography = topography - topography[128]
        return (topography / np.abs(topography).max()).astype(np.float32)

    def background(self) -> np.ndarray:
        """(64, 129): sources everywhere, radial and tangential, that together have 1 uV rms around
        Pz.
        """
        rng = stream(*self._whose, "head", 1)
        maps = []
        for _ in range(BACKGROUND_SOURCES):
            centre = unit(rng.standard_normal(3))
            direction, angle = unit(rng.standard_normal(3)), rng.uniform(0, np.pi)
            width = rng.uniform(0.3, 0.8)
            tilt = (self.xyz - centre) @ direction / width
            topography = self.bump(centre, width) * (np.cos(angle) + np.sin(angle) * tilt)
            maps.append(topography - topography[128])
        maps = np.array(maps)
        return (maps / np.sqrt((maps[:, PARIETAL] ** 2).sum(0).mean())).astype(np.float32)
