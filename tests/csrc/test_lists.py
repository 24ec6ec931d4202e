"""What is listed both in Python and in C++: the lists must agree, name by name."""

import pytest

from eeg import _native
from eeg.data.augment import AUGMENTATIONS
from eeg.models.features import FEATURES
from eeg.models.montage import LAGS

LAGGED = 4 * len(LAGS)  # which csrc/lagged.hpp computes, at the end of the table


def listed(attribute):
    names = getattr(_native, attribute, None)
    if names is None:
        pytest.fail("the extension is older than csrc/; rebuild it with: make build")
    return names


def test_every_augmentation_has_its_kernel():
    ours, kernels = set(AUGMENTATIONS), set(listed("AUGMENTATIONS"))
    assert ours == kernels, (
        f"only in eeg/data/augment.py: {sorted(ours - kernels)}; "
        f"only in csrc/augment.hpp: {sorted(kernels - ours)}"
    )


def test_every_feature_has_its_kernel():
    ours, kernels = list(FEATURES)[:-LAGGED], listed("FEATURES")
    assert set(ours) == set(kernels), (
        f"only in eeg/models/features.py: {sorted(set(ours) - set(kernels))}; "
        f"only in csrc/features.hpp: {sorted(set(kernels) - set(ours))}"
    )
    moved = [pair for pair in zip(ours, kernels) if pair[0] != pair[1]]
    assert not moved, f"in another order: {moved[0][0]} stands where csrc/ has {moved[0][1]}"
