"""What mixes electrodes: interpolation of bad ones and the average reference, as one matrix."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from eeg.models.montage import CHANNELS, SFREQ
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.source import Unusable


def matrix(settings: Preprocessing, bad: Iterable[str]) -> np.ndarray | None:
    """(129, 129) float64 by which samples are multiplied, None where nothing changes.

    bad: names of electrodes. They are interpolated (MNE's spherical splines on the
    GSN-HydroCel-129 net) or, if they are not, left out of the average. Raises Unusable where too
    few are good.
    """
    names = tuple(sorted(set(bad) & set(CHANNELS), key=CHANNELS.index))
    average = settings.reference == "average"
    if not average and not (settings.interpolate_bad and names):
        return None
    if len(names) > len(CHANNELS) // 2:
        raise Unusable(f"channels.tsv calls {len(names)} of its {len(CHANNELS)} electrodes bad")
    return _matrix(average, settings.interpolate_bad, names)


@lru_cache(64)
def _matrix(average, interpolate, bad):
    """What MNE makes of the unit vectors: both steps are linear."""
    import mne

    info = mne.create_info(list(CHANNELS), SFREQ, "eeg")
    raw = mne.io.RawArray(np.eye(len(CHANNELS)), info, verbose="error")
    raw.set_montage("GSN-HydroCel-129", verbose="error")
    raw.info["bads"] = list(bad)
    if interpolate and bad:
        raw.interpolate_bads(verbose="error")
    if average:
        raw.set_eeg_reference("average", verbose="error")
    return raw.get_data()
