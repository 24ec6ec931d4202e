"""Caches of raw releases: their windows, their settings, and builds that are interrupted."""

import signal
import subprocess
import sys
import time

import h5py
import mne
import numpy as np
import pytest

from eeg import UserError
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from eeg.raw.preprocess import preprocess
from eeg.raw.preprocessing import Preprocessing
from tests.conftest import trial_events, write_recording
from tests.data.helpers import command
from tests.raw.helpers import eeg, write_release, write_set
from tests.raw.test_preprocess import padding


@pytest.fixture
def raw_release(tmp_path):
    """data/cmi_bids_R1, two subjects of 6 trials at 500 Hz. -> its path."""
    write_release(tmp_path / "data" / "cmi_bids_R1")
    return tmp_path / "data" / "cmi_bids_R1"


def made(folder, steps=Preprocessing(), force=False, **settings):
    release, cache = find_release("R1", folder.parent), folder.parent.parent / "cache"
    report = build(release, Settings(preprocessing=steps, **settings), cache, 1, force)
    return report, Cache(report.path)


def by_mne(path, change=lambda raw: None):
    """(129, samples) microvolts: the whole recording, in memory, by plain MNE calls."""
    raw = mne.io.read_raw_eeglab(path, preload=True, verbose="error")
    raw.filter(0.5, 50, verbose="error").notch_filter(60, verbose="error")
    raw.resample(100, npad=padding(raw.n_times, 5), verbose="error").set_montage(
        "GSN-HydroCel-129", verbose="error"
    )
    change(raw)
    return raw.get_data() * 1e6


def assert_windows(cache, folder, change=lambda raw: None):
    margin = cache.margin_samples
    for subject in sorted({row["subject"].decode() for row in cache.metadata}):
        path = next(folder.glob(f"sub-{subject}/eeg/*_eeg.set"))
        whole = by_mne(path, change)
        for i in np.flatnonzero(cache.metadata["subject"] == subject.encode()):
            start = cache.metadata["start"][i]
            window = whole[:, start - margin : start + cache.window_samples + margin]
            assert np.abs(cache[i] - window).max() < 1e-6 * np.abs(whole).max()


@pytest.mark.parametrize("margin_s", [0.0, 0.25])
def test_windows_are_those_of_mne(raw_release, margin_s):
    report, cache = made(raw_release, margin_s=margin_s)
    assert len(cache) == 12 and report.signals.made == 2 and not report.skipped
    stimuli = cache.metadata["stimulus"]  # times in seconds are those of the files
    np.testing.assert_allclose(stimuli[:6], 4.8 + 5.2 * np.arange(6))
    np.testing.assert_array_equal(cache.metadata["start"], np.round(100 * stimuli) + 50)
    assert_windows(cache, raw_release)
    assert [path.name for path in report.path.parent.iterdir()] == [report.path.name]


def test_challenge_2_and_float16(raw_release):
    _, cache = made(raw_release, challenge=2)
    assert len(cache) == 2 * 19
    assert_windows(cache, raw_release)
    single = cache[3].copy()
    _, half = made(raw_release, challenge=2, dtype="float16", force=True)
    np.testing.assert_array_equal(half[3], single.astype(np.float16))


@pytest.mark.parametrize("ending", ["edf", "vhdr"])
def test_other_formats_hold_the_same(tmp_path, ending):
    for each in ("set", ending):
        write_release(tmp_path / each / "data" / "ds005505", 1, ending=each)
    _, one = made(tmp_path / "set" / "data" / "ds005505")
    _, other = made(tmp_path / ending / "data" / "ds005505")
    step = {"edf": 4000 / 32767, "vhdr": 1e-3}[ending]  # an EDF rounds to 0.12 microvolts
    assert len(other) == 6
    assert max(np.abs(one[i] - other[i]).max() for i in range(6)) < step


def average(raw):
    raw.set_eeg_reference("average", verbose="error")


def interpolated(raw):
    raw.info["bads"] = ["E7", "E50", "E110"]
    raw.interpolate_bads(verbose="error")


def mark_bad(folder, names):
    for path in folder.glob("sub-*/eeg/*_channels.tsv"):
        text = path.read_text()
        for name in names:
            text = text.replace(f"{name}\tEEG\tuV\tgood", f"{name}\tEEG\tuV\tbad")
        path.write_text(text)


def test_the_average_reference(raw_release):
    _, cache = made(raw_release, Preprocessing(reference="average"))
    assert_windows(cache, raw_release, average)
    assert np.abs(np.array([cache[i].mean(0) for i in range(12)])).max() < 1e-4


def test_bad_electrodes_are_interpolated(raw_release):
    mark_bad(raw_release, ["E7", "E50", "E110"])
    steps = Preprocessing(interpolate_bad=True)
    _, cache = made(raw_release, steps)
    assert_windows(cache, raw_release, interpolated)
    steps = Preprocessing(interpolate_bad=True, reference="average")
    _, cache = made(raw_release, steps, force=True)
    assert_windows(cache, raw_release, lambda raw: (interpolated(raw), average(raw)))


def test_bad_electrodes_are_left_out_of_the_average(raw_release):
    mark_bad(raw_release, ["E7", "E50"])

    def change(raw):
        raw.info["bads"] = ["E7", "E50"]
        average(raw)

    _, cache = made(raw_release, Preprocessing(reference="average"))
    assert_windows(cache, raw_release, change)


def test_a_100_hz_release_takes_a_reference_and_no_filter(release_folder):
    made(release_folder)
    plain = Cache(release_folder.parent.parent / "cache" / "challenge1_R1_windows.h5")
    windows = np.array([plain[i] for i in range(12)], float)
    _, cache = made(release_folder, Preprocessing(reference="average"), force=True)
    expected = windows - windows.mean(1, keepdims=True)
    np.testing.assert_allclose(cache.parts[0], expected, rtol=1e-6, atol=1e-3)
    for option in (["--bandpass", "1", "40"], ["--notch", "50"]):
        result = command(release_folder, "--release", "R1", "--force", *option)
        assert result.returncode == 1 and "is at 100 Hz: it has been filtered" in result.stderr


def test_settings_are_recorded_and_asked_for(raw_release):
    report, _ = made(raw_release, Preprocessing((1, 40), 50, "average", True))
    with h5py.File(report.path) as file:
        assert file.attrs["bandpass"].tolist() == [1, 40] and file.attrs["notch"] == 50
        assert file.attrs["reference"] == "average" and file.attrs["interpolate_bad"]
        assert "band-pass 1-40 Hz, notch 50 Hz" in file.attrs["filter"]
    words = "band-pass 1-40 Hz, notch 50 Hz instead of band-pass 0.5-50 Hz, notch 60 Hz, reference "
    words += "average instead of none, bad electrodes interpolated instead of as recorded.*"
    words += "--bandpass 1 40 --notch 50 --reference average --interpolate-bad"
    with pytest.raises(UserError, match=words):
        made(raw_release)


def test_caches_against_different_references_are_not_mixed(raw_release, tmp_path):
    one, _ = made(raw_release)
    other = tmp_path / "other"
    release = find_release("R1", raw_release.parent)
    two = build(release, Settings(preprocessing=Preprocessing(reference="average")), other, 1)
    with pytest.raises(UserError, match="has reference average, .* has none: they cannot be used"):
        Cache([one.path, two.path])


def test_bad_recordings_are_named_and_the_others_kept(raw_release):
    place = raw_release / "sub-NDARAA000AAA" / "eeg"
    stem = "sub-NDARAA000AAA_task-contrastChangeDetection_run-"
    (place / f"{stem}2_eeg.set").write_text("no recording")
    write_set(place / f"{stem}3_eeg.set", eeg(40)[:6])
    for run in (2, 3):
        (place / f"{stem}{run}_events.tsv").write_text(trial_events())
    write_recording(raw_release, "NDARAA000AAA", trial_events(2), run=4)  # at 100 Hz
    report, cache = made(raw_release)
    assert len(cache) == 14
    reasons = {recording.run: reason for recording, reason in report.skipped}
    assert "cannot be read" in reasons[2] and "6 channels" in reasons[3] and len(reasons) == 2


def test_files_beside_a_signal_count_as_its_own(raw_release):
    made(raw_release)
    assert not made(raw_release)[0].built
    fdt = next(raw_release.glob("sub-*/eeg/*.fdt"))
    fdt.write_bytes(b"\0" * fdt.stat().st_size)
    report, cache = made(raw_release)
    assert report.built and not cache[0].any()


def test_a_killed_build_continues(tmp_path):
    """Killed after its first finished recording; the next build does the others alone."""
    folder = tmp_path / "data" / "cmi_bids_R1"
    write_release(folder, subjects=5, seconds=60)
    cache = tmp_path / "cache"
    words = ["run/cache.py", "--release", "R1", "--data", tmp_path / "data", "--cache", cache]
    child = subprocess.Popen([sys.executable, *map(str, words), "--jobs", "1"])
    kept = cache / "challenge1_R1_windows.h5.signals"
    while child.poll() is None and not (kept.exists() and list(kept.glob("?" * 32 + ".npy"))):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in kept.glob("?" * 32 + ".npy")}
    assert not (cache / "challenge1_R1_windows.h5").exists() and 0 < len(finished) < 5
    report, interrupted = made(folder)
    assert report.signals.found == len(finished)
    assert report.signals.made == 5 - len(finished)
    assert not kept.exists()
    whole = interrupted.parts[0].copy()
    np.testing.assert_array_equal(made(folder, force=True)[1].parts[0], whole)


def test_what_was_kept_for_other_settings_is_not_used(raw_release):
    from eeg.raw.signals import Signals

    path = next(raw_release.glob("sub-*/eeg/*.set"))
    folder = raw_release.parent.parent / "kept"
    for steps in (Preprocessing(), Preprocessing(notch=50), Preprocessing((1, 40))):
        signals = Signals(folder, steps)
        signals.prepare([path])
        assert (signals.made, signals.found) == (1, 0) and len(list(folder.iterdir())) == 1
        np.testing.assert_array_equal(signals.open(path), preprocess(path, steps))
    signals.prepare([path])
    assert signals.found == 1
    path.with_suffix(".fdt").touch()
    signals.prepare([path])
    assert signals.found == 0


def test_the_number_of_processes_changes_nothing(raw_release, tmp_path):
    release = find_release("R1", raw_release.parent)
    one, two = (build(release, Settings(), tmp_path / f"{n}", n).path for n in (1, 3))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    "option, said",
    [
        (["--bandpass", "0", "40"], "expected 0 < LOW < HIGH <= 50"),
        (["--bandpass", "1", "60"], "expected 0 < LOW < HIGH <= 50"),
        (["--bandpass", "40", "1"], "expected 0 < LOW < HIGH <= 50"),
        (["--notch", "-1"], "not a number of at least 0"),
        (["--reference", "Cz"], "invalid choice"),
    ],
)
def test_mistakes(raw_release, option, said):
    result = command(raw_release, "--release", "R1", *option)
    assert result.returncode == 2 and said in result.stderr
