"""Every level of the extension that this processor can run says the same, but for rounding."""

import os
import subprocess
import sys

import numpy as np
import pytest

from eeg import _native

# the levels, from the last to the first, and what Linux calls what they need of a processor
NEEDED = {
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx2": {"avx2", "fma", "bmi2"},
}

COMPUTE = """
import sys
import numpy as np
from eeg import _native
rng = np.random.default_rng(0)
X = (30 * rng.standard_normal((9, 37, 260))).astype(np.float32)
half = X.astype(np.float16).view(np.uint16)
zero, rows = np.zeros(18, np.int32), np.tile(np.arange(9), 2)
part, window = np.repeat([0, 1], 9).astype(np.int32), np.arange(18)
mirror = np.arange(37, dtype=np.int32)[::-1].copy()
made = {"level": np.array(_native.LEVEL)}
strengths = dict(scale=0.2, dropout=0.1, noise=0.1, mask=0.2, mirror=0.5, mix=0.2, shift=5, seed=2)
for name, zscore, augment in (("copied", False, {}), ("augmented", True, strengths)):
    out, mix = np.zeros((18, 37, 201), np.float32), np.zeros(18, np.float32)
    places = part, rows, zero + 30, window, mirror
    _native.gather([X, half], *places, out, zero.copy(), mix, zscore, _native.Augment(**augment), 1)
    made |= {name: out, name + " mix": mix}
x, w = X[:, :, :37].copy(), X[0, :, :15].copy()
made["forward"], made["backward"], gw = np.zeros_like(x), np.zeros_like(x), np.zeros_like(w)
_native.depthwise_forward(x, w, None, 2, made["forward"], 1)
_native.depthwise_backward(x, w, x, 2, made["backward"], gw, None, 1)
made["weights"] = gw
groups = np.arange(37, dtype=np.int32), np.arange(20, dtype=np.int32), np.full(5, 4, np.int32)
made["features"] = np.zeros((9, len(_native.FEATURES)), np.float32)
_native.window_features(X, 3, 200, *groups, made["features"], 1)
made["channels"] = np.zeros((9, 37, 10), np.float32)
_native.channel_features(X, 3, 200, made["channels"], 1)
made["lagged"] = np.zeros((9, 2, 4), np.float32)
_native.lagged_correlations(X, 3, 200, np.array([0, 7], np.int32), made["lagged"], 1)
np.savez(sys.argv[1], **made)
"""


def here():
    """The levels that this processor has, the best first."""
    try:
        lines = open("/proc/cpuinfo").read().splitlines()
    except OSError:
        pytest.skip("the processor's abilities are read from /proc/cpuinfo")
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return [level for level, needed in NEEDED.items() if needed <= flags] + ["baseline"]


@pytest.fixture(scope="module", autouse=True)
def chosen_at_import():
    if not os.path.exists(_native.__file__.replace("_native.", "_native_avx2.")):
        pytest.skip("the extension was built for one processor (EEG_MARCH), or it is no x86-64")


def compute(level, path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "EEG_LEVEL": level}
    command = [sys.executable, "-c", COMPUTE, path]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_levels_agree(tmp_path):
    results = {}
    for level in ["", *here()]:  # "": what is chosen
        path = tmp_path / f"{level}.npz"
        done = compute(level, path)
        assert done.returncode == 0, done.stderr
        results[level] = dict(np.load(path))
    assert [results[level].pop("level") for level in results] == [here()[0], *here()]
    for level in here():
        for name, found in results[level].items():
            wanted = results[""][name]
            scale = np.nanmax(np.abs(wanted))
            equal = {"copied", "copied mix", "augmented mix"}  # nothing is computed with vectors
            tolerance = 0 if name in equal else 3e-6
            np.testing.assert_allclose(
                found, wanted, rtol=tolerance, atol=tolerance * scale, err_msg=f"{level}: {name}"
            )


def test_a_level_that_there_is_not(tmp_path):
    done = compute("sse9", tmp_path / "x.npz")
    assert done.returncode and "EEG_LEVEL must be baseline, avx2 or avx512" in done.stderr
