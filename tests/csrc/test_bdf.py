"""The native BDF reader against MNE, and against headers that lie."""

import mne
import numpy as np
import pytest
from eeg._native import Bdf

from tests.conftest import LABELS, bdf_bytes


def write(path, data):
    path.write_bytes(data)
    return path


def noise(channels, samples, seed=0):
    return np.random.default_rng(seed).integers(-(2**23), 2**23, (channels, samples))


def opened(tmp_path, data):
    path = tmp_path / "x.bdf"
    path.write_bytes(data)
    return Bdf(str(path)), path


def read(bdf, starts, T, channels=None, dtype=np.float32):
    channels = np.arange(len(bdf.labels)) if channels is None else np.asarray(channels)
    out = np.full((len(starts), len(channels), T), 7, dtype)
    bits = out.view(np.uint16) if dtype == np.float16 else out
    return out, bdf.read(np.array(starts, np.int64), channels.astype(np.int32), bits)


@pytest.mark.parametrize("C, record", [(1, 1), (1, 7), (3, 100), (129, 100), (128, 33)])
@pytest.mark.parametrize("physical", [(-5000, 5000), (-31.25, 5000.5), (-262144, 262143)])
def test_equals_mne(tmp_path, C, record, physical):
    settings = dict(record=record, seconds=record / 100, physical=physical)
    bdf, path = opened(tmp_path, bdf_bytes(noise(C, 6 * record), **settings))
    ours, _ = read(bdf, [0], 6 * record)
    theirs = mne.io.read_raw_bdf(path, verbose="error").get_data() * 1e6
    assert bdf.sfreq == pytest.approx(100)
    assert bdf.n_times == 6 * record and bdf.labels == LABELS[:C]
    np.testing.assert_allclose(ours[0], theirs, rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("T", [1, 2, 5, 6, 7, 99, 100, 101, 199, 200, 250])
def test_any_window_is_a_slice_of_the_whole(tmp_path, T):
    bdf, _ = opened(tmp_path, bdf_bytes(noise(3, 500)))
    whole = read(bdf, [0], 500)[0][0]
    starts = sorted({0, 1, 99, 100, 163, 500 - T})
    out, _ = read(bdf, starts, T, channels=[2, 0])
    for window, start in zip(out, starts):
        np.testing.assert_array_equal(window[:, : 500 - start], whole[[2, 0], start : start + T])


def test_margins_repeat_the_edge(tmp_path):
    bdf, _ = opened(tmp_path, bdf_bytes(noise(2, 300)))
    whole = read(bdf, [0], 300)[0][0]
    out, _ = read(bdf, [-5, 290], 20)
    np.testing.assert_array_equal(out[0], whole[:, np.clip(np.arange(-5, 15), 0, 299)])
    np.testing.assert_array_equal(out[1], whole[:, np.clip(np.arange(290, 310), 0, 299)])


@pytest.mark.parametrize("unit, factor", [("uV", 1), ("mV", 1e3), ("V", 1e6), ("\xb5V", 1)])
def test_units(tmp_path, unit, factor):
    digital = noise(2, 100) // 100
    one, _ = opened(tmp_path, bdf_bytes(digital, physical=(-1, 1), unit=unit))
    expected = factor * (digital + 8388608) * 2 / 16777215 - factor
    np.testing.assert_allclose(read(one, [0], 100)[0][0], expected, rtol=2e-7, atol=1e-6 * factor)


@pytest.mark.parametrize("T", [1, 7, 8, 16, 21])
def test_products_are_rounded_before_they_are_added(tmp_path, T):
    """3 steps of 0.1 less 0.3 is 5.6e-17, and half of that where the two operations are one."""
    digital = np.tile([3, 13, -5], 7)[None]
    settings = dict(record=21, physical=("-.3", ".7"), digital_range=(0, 10))
    bdf, _ = opened(tmp_path, bdf_bytes(digital, **settings))
    expected = (digital * 0.1 - 0.3).astype(np.float32)
    assert 5e-17 < expected[0, 0] < 6e-17
    for start in range(22 - T):
        np.testing.assert_array_equal(read(bdf, [start], T)[0][0], expected[:, start : start + T])


def test_annotation_and_status_channels_are_left_out(tmp_path):
    labels = ["E1", "BDF Annotations", "E2", "Status"]
    digital = noise(4, 200)
    digital[1] = 0  # MNE reads the annotations as text
    bdf, path = opened(tmp_path, bdf_bytes(digital, labels=labels))
    assert bdf.labels == ["E1", "E2"]
    raw = mne.io.read_raw_bdf(path, verbose="error", stim_channel="Status")
    theirs = raw.get_data(["E1", "E2"]) * 1e6
    np.testing.assert_allclose(read(bdf, [0], 200)[0][0], theirs, rtol=2e-7, atol=1e-12)


def test_float16_rounds_as_numpy_does_and_counts_what_it_clips(tmp_path):
    digital = noise(129, 200)
    bdf, _ = opened(tmp_path, bdf_bytes(digital, physical=(-1e5, 1e5)))
    single, half = read(bdf, [0], 200)[0], read(bdf, [0], 200, dtype=np.float16)
    expected = np.clip(single, -65504, 65504).astype(np.float16)
    np.testing.assert_array_equal(half[0].view(np.uint16), expected.view(np.uint16))
    assert half[1] == (np.abs(single) > 65504).sum() > 0
    small, _ = opened(tmp_path, bdf_bytes(digital, physical=(-2e-6, 2e-6)))  # float16's subnormals
    expected = read(small, [0], 199)[0].astype(np.float16)
    np.testing.assert_array_equal(read(small, [0], 199, dtype=np.float16)[0], expected)


def test_real_bdf_equals_mne(eeg_files):
    path = eeg_files / "test_bdf_stim_channel.bdf"
    raw = mne.io.read_raw_bdf(path, verbose="error", stim_channel="auto")
    bdf = Bdf(str(path))
    names = [n for n in bdf.labels if n in raw.ch_names]
    assert names
    theirs = raw.get_data(names) * 1e6
    ours, _ = read(bdf, [0], bdf.n_times, [bdf.labels.index(n) for n in names])
    np.testing.assert_allclose(ours[0], theirs, rtol=1e-6, atol=1e-9)


GOOD = bdf_bytes(noise(3, 300))


def with_header(**fields):
    return bdf_bytes(noise(3, 300), **fields)


def patched(at, text):
    return GOOD[:at] + text.encode() + GOOD[at + len(text) :]


BAD = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no recording" * 100, "not a BDF file"),
    "short": (GOOD[:300], "ends inside its header"),
    "tiny": (GOOD[:100], "not a BDF file"),
    "truncated": (GOOD[:-1000], r"ends 1.1 s before its header says"),
    "longer": (GOOD + b"12345", "5 bytes longer"),
    "negative records": (with_header(records=-2), "its header says -2 records"),
    "never closed, no record": (bdf_bytes(noise(3, 300), records=-1)[:1500], "no samples"),
    "no records": (bdf_bytes(noise(3, 0)), "no samples"),
    "too many records": (with_header(records=99999999), "ends .* before its header says"),
    "records are no number": (with_header(records="many"), "'many' for the number of records"),
    "records are nan": (with_header(records="nan"), "'nan' for the number of records"),
    "half a record": (with_header(records="2.5"), "not a whole number"),
    "no signals": (patched(252, "0   "), "0 signals"),
    "negative signals": (patched(252, "-3  "), "-3 signals"),
    "wrong header size": (patched(184, "256     "), "256 bytes long"),
    "zero duration": (with_header(seconds="0"), "a record lasts 0 s"),
    "negative duration": (with_header(seconds="-1"), "a record lasts -1 s"),
    "zero gain": (with_header(physical=(5, 5)), "E1 has no gain"),
    "zero digital range": (with_header(digital_range=(1, 1)), "E1 has no gain"),
    "no minimum": (with_header(physical=("", 5)), "'' for the physical minimum of channel E1"),
    "mixed rates": (with_header(samples=[100, 50, 150]), r"different rates \(100 and, for E2, 50"),
    "zero samples": (with_header(samples=[100, 0, 100]), "0 samples a record for channel E2"),
    "huge samples": (with_header(samples=[99999999] * 3), "99999999 samples a record"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_refused_with_its_reason(tmp_path, name):
    data, reason = BAD[name]
    with pytest.raises(ValueError, match=reason):
        opened(tmp_path, data)


@pytest.mark.parametrize("cut", [0, 1, 500, 899, 900, 901])
def test_a_recording_that_was_never_closed_equals_mne(tmp_path, cut):
    """Of 5 records of 900 bytes; what is left of the last one counts for nothing."""
    data = bdf_bytes(noise(3, 500), records=-1)
    bdf, path = opened(tmp_path, data[: len(data) - cut])
    with pytest.warns(RuntimeWarning, match="does not match the file size"):
        raw = mne.io.read_raw_bdf(path, verbose="warning")
    assert not bdf.closed and bdf.n_times == raw.n_times == 500 - 100 * -(-cut // 900)
    theirs = raw.get_data() * 1e6
    ours, _ = read(bdf, [0], bdf.n_times)
    np.testing.assert_allclose(ours[0], theirs, rtol=2e-7, atol=1e-12)
    assert Bdf(str(write(tmp_path / "y.bdf", GOOD))).closed


def test_a_constant_reference_may_have_no_range(tmp_path):
    settings = dict(labels=["E1", "Cz"], physical=([-5, 0], [5, 0]))
    bdf, path = opened(tmp_path, bdf_bytes(np.zeros((2, 100), int), **settings))
    theirs = mne.io.read_raw_bdf(path, verbose="error").get_data() * 1e6
    np.testing.assert_allclose(read(bdf, [0], 100)[0][0], theirs, rtol=1e-6)


def test_wrong_arguments_say_what_would_do(tmp_path):
    bdf, _ = opened(tmp_path, GOOD)
    starts, channels = np.array([0], np.int64), np.array([0, 1], np.int32)
    out = np.zeros((1, 2, 50), np.float32)
    bdf.read(starts, channels, out)
    for bad in [
        (starts.astype(float), channels, out),
        (starts, channels.astype(np.int64), out),
        (starts, channels, out.astype(float)),
        ([0], channels, out),
    ]:
        with pytest.raises(TypeError):
            bdf.read(*bad)
    for bad in [
        (starts, channels, out[:, :1]),
        (starts, channels, np.zeros((1, 2, 100), np.float32)[:, :, ::2]),
        (starts, channels[:0], out),
        (starts, channels, out[0]),
    ]:
        with pytest.raises(ValueError, match="must be"):
            bdf.read(*bad)
    for start, signal in [(300, 0), (-50, 0), (0, 3), (0, -1), (2**62, 0), (-(2**62), 0)]:
        with pytest.raises(IndexError):
            bdf.read(np.array([start]), np.array([signal, 0], np.int32), out)
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError):
        bdf.read(starts, channels, frozen)
    with pytest.raises(FileNotFoundError, match="absent.bdf"):
        Bdf(str(tmp_path / "absent.bdf"))
    with pytest.raises(OSError):
        Bdf(str(tmp_path))
