"""Recordings at other rates against plain MNE on the whole recording, and what the filters do."""

import subprocess
import sys

import mne
import numpy as np
import pytest
import scipy.io
import scipy.signal

import eeg.raw.preprocess as module
from eeg.raw.preprocess import preprocess
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.source import Source, Unusable
from tests.conftest import LABELS, ROOT, bdf_bytes
from tests.raw.helpers import eeg, write_brainvision, write_edf, write_set

USUAL = Preprocessing()


def padding(samples, step):
    """A multiple of step, 100 or more, with which all is a product of 2, 3 and 5."""
    npad = -(-100 // step) * step
    while True:
        left = samples + 2 * npad
        for prime in (2, 3, 5):
            while left % prime == 0:
                left //= prime
        if left == 1:
            return npad
        npad += step


def by_mne(raw, bandpass=(0.5, 50), notch=60, step=5):
    """(129, samples) microvolts: MNE's own chain on a whole recording in memory.

    npad is a multiple of 5, and so is the length; npad="auto" would move events.
    """
    raw = raw.load_data().filter(*bandpass, verbose="error")
    if notch:
        raw.notch_filter(notch, verbose="error")
    return raw.resample(100, npad=padding(raw.n_times, step), verbose="error").get_data() * 1e6


def in_memory(x, sfreq):
    info = mne.create_info(LABELS[: len(x)], sfreq, "eeg")
    return mne.io.RawArray(np.asarray(x, float) * 1e-6, info, verbose="error")


def assert_same(ours, theirs):
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-6 * np.abs(theirs).max()


@pytest.mark.parametrize(
    "sfreq, seconds, step",
    [(128, 12, 32), (250, 12.34, 5), (500, 12.34, 5), (512, 12, 128), (1000, 12.34, 10)],
)
def test_equals_mne_on_the_whole_recording(tmp_path, monkeypatch, sfreq, seconds, step):
    x = eeg(seconds, sfreq)
    write_set(tmp_path / "x.set", x, sfreq)
    monkeypatch.setattr(module, "BLOCK_BYTES", 10 * 8 * x.shape[1])  # 10 channels at a time
    theirs = by_mne(mne.io.read_raw_eeglab(tmp_path / "x.set", verbose="error"), step=step)
    assert_same(preprocess(tmp_path / "x.set", USUAL), theirs)


@pytest.mark.parametrize("samples", [5001, 5002, 5003, 5004])
def test_a_length_that_is_no_whole_number_of_samples(tmp_path, samples):
    x = eeg(12)[:, :samples]
    write_set(tmp_path / "x.set", x)
    theirs = in_memory(x, 500).filter(0.5, 50, verbose="error").notch_filter(60, verbose="error")
    theirs = theirs.get_data()[:, ::5] * 1e6  # only the resampling differs, and at the edge
    ours = preprocess(tmp_path / "x.set", USUAL)
    assert ours.shape == (129, round(samples / 5))
    inner = slice(100, 900)
    low = lambda y: scipy.signal.sosfiltfilt(scipy.signal.butter(4, 20, fs=100, output="sos"), y)
    assert np.abs(low(ours) - low(theirs[:, : ours.shape[1]]))[:, inner].max() < 0.1


@pytest.mark.parametrize(
    "settings", [Preprocessing((1, 45), 50), Preprocessing((0.1, 40), 0), Preprocessing((2, 30))]
)
def test_other_filters_equal_mne(tmp_path, settings):
    x = eeg(20)
    write_set(tmp_path / "x.set", x)
    theirs = by_mne(in_memory(x, 500), settings.bandpass, settings.notch)
    assert_same(preprocess(tmp_path / "x.set", settings), theirs)


@pytest.mark.parametrize("kind", ["fdt", "struct", "fields", "hdf5"])
def test_every_kind_of_eeglab_file(tmp_path, kind):
    x = eeg(10)
    write_set(tmp_path / "x.set", x, kind=kind)
    assert_same(preprocess(tmp_path / "x.set", USUAL), by_mne(in_memory(x, 500)))


def test_edf(tmp_path):
    write_edf(tmp_path / "x.edf", eeg(10))
    raw = mne.io.read_raw_edf(tmp_path / "x.edf", verbose="error")
    assert_same(preprocess(tmp_path / "x.edf", USUAL), by_mne(raw))


@pytest.mark.parametrize("format", ["INT_16", "IEEE_FLOAT_32"])
def test_brainvision(tmp_path, format):
    write_brainvision(tmp_path / "x.vhdr", eeg(10), format=format)
    raw = mne.io.read_raw_brainvision(tmp_path / "x.vhdr", verbose="error")
    assert_same(preprocess(tmp_path / "x.vhdr", USUAL), by_mne(raw))


def test_bdf_at_another_rate(tmp_path):
    digital = np.round(eeg(10) * 1000).astype(int)
    (tmp_path / "x.bdf").write_bytes(bdf_bytes(digital, record=500))
    raw = mne.io.read_raw_bdf(tmp_path / "x.bdf", verbose="error")
    assert_same(preprocess(tmp_path / "x.bdf", USUAL), by_mne(raw))


def test_channels_in_another_order(tmp_path):
    x = eeg(8)
    mixed = np.random.default_rng(3).permutation(129)
    write_set(tmp_path / "x.set", x)
    write_set(tmp_path / "y.set", x[mixed], names=[LABELS[i] for i in mixed])
    straight = preprocess(tmp_path / "x.set", USUAL)
    np.testing.assert_array_equal(preprocess(tmp_path / "y.set", USUAL), straight)


def test_100_hz_is_not_filtered(tmp_path):
    x = eeg(10, 100)
    write_set(tmp_path / "x.set", x, 100)
    np.testing.assert_allclose(preprocess(tmp_path / "x.set", USUAL), x, rtol=1e-6)


def gain_db(tmp_path, hertz):
    """How each of these sines comes out, each on a channel of its own."""
    t = np.arange(60 * 500) / 500
    x = np.zeros((129, len(t)))
    x[: len(hertz)] = 100 * np.sin(2 * np.pi * np.array(hertz)[:, None] * t)
    write_set(tmp_path / "x.set", x)
    out = preprocess(tmp_path / "x.set", USUAL)[: len(hertz), 1000:5000].astype(float)
    return 20 * np.log10(np.sqrt(2) * out.std(1) / 100)


def test_the_pass_band_is_flat_and_the_mains_are_gone(tmp_path):
    # MNE's band-pass of 0.5-50 Hz falls off below 0.5 and above 50, resampling cuts at 50
    inside = gain_db(tmp_path, [1, 1.5, 2, 3, 5, 8, 10, 13, 20, 25, 30, 35, 40, 42, 45, 47, 49])
    assert np.abs(inside).max() < 0.1
    # what lies beyond 50 Hz would fold back into the band: 60 Hz to 40, 130 to 30
    assert gain_db(tmp_path, [60, 120, 130, 180, 240]).max() < -40


@pytest.mark.parametrize("samples", [10000, 20003, 45500])
def test_events_do_not_shift(tmp_path, samples):
    """Impulses at 500 Hz come out at those seconds, to a hundredth of a sample, to the last."""
    at = np.arange(1500, samples - 1500, 501)
    x = np.zeros((129, samples))
    x[np.arange(len(at)), at] = 1000  # one a channel
    write_set(tmp_path / "x.set", x)
    out = preprocess(tmp_path / "x.set", USUAL).astype(float)
    fine = scipy.signal.resample(out[: len(at)], 100 * out.shape[1], axis=1)
    assert np.abs(np.argmax(fine, 1) - 20 * at).max() <= 1
    assert np.abs(np.argmax(out[: len(at)], 1) - at / 5).max() <= 0.5


def test_real_eeglab_files(eeg_files):
    """Files from MNE's testing data; none is of this net, so they are read, and no more."""
    for path in sorted(eeg_files.rglob("*.set")):
        raw = mne.io.read_raw_eeglab(path, preload=True, verbose="error")
        source = Source(path)
        assert [name.strip() for name in source.names] == raw.ch_names
        assert (source.sfreq, source.n_times) == (raw.info["sfreq"], raw.n_times)
        some = list(range(min(5, len(raw.ch_names))))
        np.testing.assert_allclose(source.part(some).get_data(), raw.get_data(some), atol=1e-14)
        with pytest.raises(Unusable, match="not the 129 of the net"):
            preprocess(path, USUAL)


def test_a_real_recording_equals_mne(eeg_files, monkeypatch):
    path = eeg_files / "eeglab_visual" / "eeglab_data.set"
    raw = mne.io.read_raw_eeglab(path, preload=True, verbose="error")
    monkeypatch.setattr(module, "order", lambda names: list(range(len(names))))
    ours = preprocess(path, USUAL)
    raw.filter(0.5, 50, verbose="error").notch_filter(60, verbose="error")
    # 128 Hz: 32 samples become 25
    whole = np.pad(raw.get_data(), ((0, 0), (0, -raw.n_times % 32)), "edge")
    theirs = mne.filter.resample(whole, 100, 128, npad=padding(whole.shape[1], 32)) * 1e6
    assert_same(ours, theirs[:, : round(raw.n_times / 1.28)])


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def spoilt(path, fault):
    x = eeg(4)
    if fault == "nan":
        x[7, 300] = np.nan
    kinds = {"epochs": {"trials": 2.0}, "pnts": {"pnts": 7.0, "data": x}}
    write_set(path, x[:6] if fault == "six" else x, **kinds.get(fault, {}))
    if fault == "no fdt":
        path.with_suffix(".fdt").unlink()
    if fault == "short fdt":
        cut(path.with_suffix(".fdt"), 5000)
    if fault == "short set":
        cut(path, 2000)
    if fault == "text":
        path.write_text("name\tvalue\n" * 50)
    if fault == "empty":
        path.write_bytes(b"")
    if fault == "slow":
        write_set(path, x, 64)
    if fault == "another mat":
        scipy.io.savemat(path, {"x": x}, appendmat=False)


FAULTS = {
    "nan": r"1 of its samples are not finite \(first in E8\)",
    "six": "6 channels, not the 129",
    "no fdt": "there is no x.fdt, which holds its samples",
    "short fdt": "x.fdt has 5,000 bytes; 1,032,000 are expected",
    "short set": "it cannot be read: ",
    "text": "it cannot be read: ",
    "empty": "it cannot be read: ",
    "slow": "64 samples a second; 100 or more",
    "epochs": "2 epochs, not one continuous recording",
    "pnts": "holds 2000 samples, its header says 7",
    "another mat": "no EEG.data",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_refused_with_its_reason(tmp_path, fault):
    spoilt(tmp_path / "x.set", fault)
    with pytest.raises(Unusable, match=FAULTS[fault]):
        preprocess(tmp_path / "x.set", USUAL)


@pytest.mark.parametrize("name", ["x.edf", "x.vhdr", "x.bdf", "x.set"])
def test_text_is_no_recording(tmp_path, name):
    (tmp_path / name).write_text("onset\tduration\n" * 100)
    with pytest.raises(Unusable, match="it cannot be read: "):
        preprocess(tmp_path / name, USUAL)


def discontinuous(path, times, kind="EDF"):
    """An EDF+D or BDF+D at 500 Hz in records of 1 s that say these times."""
    width, top = {"EDF": (2, 32767), "BDF": (3, 8388607)}[kind]
    names, counts = [*LABELS, f"{kind} Annotations"], [500] * 129 + [20]
    fit = lambda values, size: b"".join(str(v).ljust(size).encode() for v in values)
    head = b"\xffBIOSEMI" if kind == "BDF" else fit(["0"], 8)
    head += fit(["X X X X", "Startdate X X X X"], 80) + b"01.01.1500.00.00"
    head += fit([256 * 131], 8) + fit([f"{kind}+D"], 44) + fit([len(times), 1], 8) + fit([130], 4)
    head += fit(names, 16) + fit([""] * 130, 80) + fit(["uV"] * 130, 8)
    head += fit([-4000] * 130, 8) + fit([4000] * 130, 8) + fit([-top] * 130, 8)
    head += fit([top] * 130, 8) + fit([""] * 130, 80) + fit(counts, 8) + fit([""] * 130, 32)
    steps = np.rint(eeg(len(times)) * (top / 4000)).astype("<i4")
    body = b""
    for i, time in enumerate(times):
        samples = np.ascontiguousarray(steps[:, 500 * i : 500 * i + 500]).view(np.uint8)
        body += samples.reshape(-1, 4)[:, :width].tobytes()
        body += f"{time}\x14\x14".encode().ljust(20 * width, b"\0")
    path.write_bytes(head + body)


@pytest.mark.parametrize("kind", ["EDF", "BDF"])
def test_records_with_gaps_between_them(tmp_path, kind):
    """MNE reads on as if there were none: events after a gap would be at other samples."""
    path = tmp_path / f"x.{kind.lower()}"
    discontinuous(path, ["+3", "+4", "+5.0", "+6"], kind)  # without gaps, it may be called so
    assert preprocess(path, USUAL).shape == (129, 400)
    discontinuous(path, ["+0", "+1", "+2.5", "+3.5"], kind)
    with pytest.raises(Unusable, match="discontinuous: 0.5 s are missing before record 2"):
        preprocess(path, USUAL)
    discontinuous(path, ["+0", "+1", "two", "+3"], kind)
    with pytest.raises(Unusable, match="its record 2 has no time"):
        preprocess(path, USUAL)


def test_a_unit_that_is_not_understood(tmp_path):
    """MNE takes microvolts, written in UTF-8 in an EDF, for volts."""
    x = eeg(4)
    write_edf(tmp_path / "x.edf", x)
    content = (tmp_path / "x.edf").read_bytes()
    (tmp_path / "x.edf").write_bytes(content.replace(b"uV      ", "µV".encode().ljust(8), 129))
    with pytest.raises(Unusable, match="its samples are .* V: the unit in its header"):
        preprocess(tmp_path / "x.edf", USUAL)
    latin = "µV".encode("latin-1").ljust(8)
    (tmp_path / "x.edf").write_bytes(content.replace(b"uV      ", latin, 129))
    write_edf(tmp_path / "y.edf", x)
    assert_same(preprocess(tmp_path / "x.edf", USUAL), preprocess(tmp_path / "y.edf", USUAL))


PEAK = """
import sys
from pathlib import Path
import eeg.raw.preprocess as module
from eeg.raw.preprocessing import Preprocessing
from eeg.raw.signals import memory_peak
module.BLOCK_BYTES = float(sys.argv[1])
module.preprocess(Path(sys.argv[2]), Preprocessing())  # imports what there is to import
before = memory_peak()
module.preprocess(Path(sys.argv[3]), Preprocessing())
print(memory_peak() - before)
"""


@pytest.mark.parametrize("kind, inside", [("fdt", 0), ("struct", 4)])
def test_memory_is_bounded_in_bytes_a_sample(tmp_path, kind, inside):
    """What a recording takes: the result (0.8 bytes), what a .set holds inside (4), and the block
    that is filtered, with its copies. The whole recording in double precision would be 8 alone.
    """
    samples, block = 150_000, 2e6  # one channel at a time
    paths = []
    for name, seconds in (("small", 20), ("large", samples / 500)):
        x = np.tile(eeg(20), round(seconds / 20))
        paths.append(tmp_path / f"{name}.set")
        write_set(paths[-1], x, kind=kind)
    command = [sys.executable, "-c", PEAK, str(block), *paths]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    bytes_a_sample = int(done.stdout) / (129 * samples)
    assert bytes_a_sample < inside + 0.8 + 2
