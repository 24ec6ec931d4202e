"""What is done to a recording before windows are cut from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BANDPASS_HZ, NOTCH_HZ = (0.5, 50.0), 60.0  # of the competition's files; the mains in America
REFERENCES = ("none", "average")


@dataclass(frozen=True)
class Preprocessing:
    """Filters are for recordings that are not at 100 Hz yet, the rest is for all."""

    bandpass: tuple[float, float] = BANDPASS_HZ
    notch: float = NOTCH_HZ  # 0: none
    reference: str = "none"  # as recorded, against Cz
    interpolate_bad: bool = False  # electrodes that channels.tsv calls bad

    @property
    def usual_filters(self) -> bool:
        return (self.bandpass, self.notch) == (BANDPASS_HZ, NOTCH_HZ)

    @property
    def across_channels(self) -> bool:
        """Whether it mixes electrodes."""
        return self.reference != "none" or self.interpolate_bad

    @property
    def filters(self) -> str:
        """The filters in words: band-pass 0.5-50 Hz, notch 60 Hz."""
        low, high = self.bandpass
        notch = f"notch {self.notch:g} Hz" if self.notch else "no notch"
        return f"band-pass {low:g}-{high:g} Hz, {notch}"

    @property
    def bad_electrodes(self) -> str:
        return "interpolated" if self.interpolate_bad else "as recorded"

    def attributes(self) -> dict[str, Any]:
        """As attributes of a file."""
        return {
            "bandpass": self.bandpass,
            "notch": self.notch,
            "reference": self.reference,
            "interpolate_bad": self.interpolate_bad,
        }

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "Preprocessing":
        """By the attributes of a file. Old caches have none, and were made with the usual ones."""
        if "bandpass" not in attributes:
            return cls()
        low, high = map(float, attributes["bandpass"])
        notch, reference = float(attributes["notch"]), str(attributes["reference"])
        return cls((low, high), notch, reference, bool(attributes["interpolate_bad"]))

    def arguments(self) -> list[str]:
        """As arguments of run/cache.py, without those that are its defaults."""
        words = []
        if self.bandpass != BANDPASS_HZ:
            words += ["--bandpass", *(f"{edge:g}" for edge in self.bandpass)]
        words += ["--notch", f"{self.notch:g}"] if self.notch != NOTCH_HZ else []
        words += ["--reference", self.reference] if self.reference != "none" else []
        return words + ["--interpolate-bad"] * self.interpolate_bad
