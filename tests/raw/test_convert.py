"""Raw releases as 100 Hz BDF: within one step, the same windows, resumed, nothing overwritten."""

import json
import signal
import subprocess
import sys
import time
from fractions import Fraction

import mne
import numpy as np
import pytest

from eeg import UserError
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from eeg.raw.bdf import record_samples, top, write_bdf
from eeg.raw.convert import convert, was_converted, without_sample
from eeg.raw.preprocess import preprocess
from eeg.raw.preprocessing import Preprocessing
from tests.conftest import write_recording
from tests.data.helpers import ROOT, command
from tests.raw.helpers import write_release

USUAL = Preprocessing()


def signals(folder):
    return sorted(folder.glob("sub-*/eeg/*_eeg.set"))


def converted(folder, **settings):
    target = folder.parent.parent / "new" / "R1_L100_bdf"
    return convert(folder, signals(folder), target, Preprocessing(**settings), 1)


@pytest.fixture
def raw_release(tmp_path):
    """data/cmi_bids_R1 with events as the originals have them, and other tables. -> its path."""
    folder = tmp_path / "data" / "cmi_bids_R1"
    write_release(folder)
    for path in folder.glob("sub-*/eeg/*_events.tsv"):
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        for i, row in enumerate(rows):
            row.insert(2, str(round(500 * float(row[0]))) if i else "sample")
        path.write_text("".join("\t".join(row) + "\n" for row in rows))
        about = {"SamplingFrequency": 500, "PowerLineFrequency": 60, "EEGReference": "Cz"}
        path.with_name(path.name.replace("events.tsv", "eeg.json")).write_text(json.dumps(about))
    (folder / "task-contrastChangeDetection_eeg.json").write_text('{"SamplingFrequency": 500}')
    (folder / "dataset_description.json").write_text('{"Name": "HBN", "BIDSVersion": "1.9.0"}')
    return folder


@pytest.mark.parametrize("samples", [100, 2600, 2601, 2602, 2503, 7 * 11 * 13, 1])
def test_a_bdf_holds_what_was_given_within_a_step(tmp_path, samples):
    rng = np.random.default_rng(samples)
    x = (rng.standard_normal((129, samples)) * rng.uniform(1e-3, 3e4, (129, 1))).astype(np.float32)
    x[128] = 0
    write_bdf(tmp_path / "x.bdf", x)
    raw = mne.io.read_raw_bdf(tmp_path / "x.bdf", verbose="error")
    assert raw.info["sfreq"] == 100 and raw.n_times == samples
    step = np.abs(x).max(1, keepdims=True) * 1.02 / 8388607 + 1e-9
    assert (np.abs(raw.get_data() * 1e6 - x) < step).all()
    assert not raw.get_data()[128].any()


def test_records_divide_the_recording():
    for samples in (1, 99, 100, 101, 26500, 26501, 26502, 340_000, 358_200):
        record = record_samples(samples)
        assert samples % record == 0
        # as text in the header it gives 100 Hz, not 99.99999999999999
        assert Fraction(f"{record / 100:g}") * 100 == record and len(f"{record / 100:g}") <= 8


@pytest.mark.parametrize("value", [1e-4, 0.5, 1, 9.99999, 123.456789, 9999.9999, 99999.95, 5e6])
def test_the_range_fits_its_field_and_the_samples(value):
    assert len("-" + top(value)) <= 8 and value <= float(top(value)) < value * 1.001 + 1e-4


def test_the_release_is_that_of_the_competition(raw_release):
    report = converted(raw_release)
    assert (report.made, report.found, report.skipped) == (2, 0, [])
    new = report.folder
    for path in signals(raw_release):
        bdf = (new / path.relative_to(raw_release)).with_suffix(".bdf")
        about = json.loads(bdf.with_suffix(".json").read_text())
        assert about["SamplingFrequency"] == 100 and about["EEGReference"] == "Cz"
        assert about["RecordingDuration"] == 40 and about["EEGChannelCount"] == 129
        for name in ("events.tsv", "channels.tsv"):
            old = path.with_name(path.name.replace("eeg.set", name)).read_text()
            now = bdf.with_name(bdf.name.replace("eeg.bdf", name)).read_text()
            rows = [line.split("\t") for line in old.splitlines()]
            if name == "events.tsv":
                assert rows[0][2] == "sample"
                rows = [row[:2] + row[3:] for row in rows]
            assert now.splitlines() == ["\t".join(row) for row in rows]
        assert sorted(p.suffix for p in bdf.parent.iterdir()) == [".bdf", ".json", ".tsv", ".tsv"]
    about = json.loads((new / "task-contrastChangeDetection_eeg.json").read_text())
    assert about["SamplingFrequency"] == 100
    participants = "participants.tsv"
    assert (new / participants).read_bytes() == (raw_release / participants).read_bytes()
    assert json.loads((new / "dataset_description.json").read_text())["Name"] == "HBN"
    assert was_converted(new) and not was_converted(raw_release)


@pytest.mark.parametrize("challenge", [1, 2])
def test_windows_are_those_of_the_raw_release(raw_release, tmp_path, challenge):
    new = converted(raw_release).folder
    caches = [
        Cache(build(find_release("R1", folder.parent), Settings(challenge), tmp_path / name).path)
        for name, folder in (("raw", raw_release), ("bdf", new))
    ]
    one, other = caches
    np.testing.assert_array_equal(one.metadata, other.metadata)
    np.testing.assert_array_equal(one.y, other.y)
    largest = np.max([np.abs(preprocess(path, USUAL)).max(1) for path in signals(raw_release)], 0)
    step = (largest * 1.001 + 1e-4) / 8388607
    apart = np.abs(one.parts[0] - other.parts[0]).max((0, 2))
    assert (apart <= step + 1e-7 * largest).all()  # and float32


def test_a_killed_conversion_continues(tmp_path):
    folder = tmp_path / "data" / "cmi_bids_R1"
    write_release(folder, subjects=5)
    words = [ROOT / "run" / "convert.py", "--release", "R1", "--data", tmp_path / "data"]
    child = subprocess.Popen([sys.executable, *map(str, words), "--jobs", "1"])
    new, partial = (tmp_path / "data" / f"R1_L100_bdf{end}" for end in ("", ".partial"))
    while child.poll() is None and not list(partial.glob("sub-*/eeg/*_eeg.json")):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished = len(list(partial.glob("sub-*/eeg/*_eeg.json")))
    assert not new.exists() and 0 < finished < 5
    report = convert(folder, signals(folder), new, USUAL, 1)
    assert report.found >= finished and report.made == 5 - report.found
    assert not partial.exists()
    assert not list(new.rglob("*.partial"))
    for path in signals(folder):
        bdf = (new / path.relative_to(folder)).with_suffix(".bdf")
        read = mne.io.read_raw_bdf(bdf, verbose="error").get_data() * 1e6
        expected = preprocess(path, USUAL)
        assert np.abs(read - expected).max() < 1e-6 * np.abs(expected).max()


def test_only_what_has_changed_is_converted_again(raw_release):
    converted(raw_release)
    assert (converted(raw_release).made, converted(raw_release).found) == (0, 2)
    signals(raw_release)[0].with_suffix(".fdt").touch()
    report = converted(raw_release)
    assert (report.made, report.found) == (1, 1)
    report = converted(raw_release, notch=50)
    assert (report.made, report.found) == (2, 0)


def test_recordings_that_cannot_be_used_are_named(raw_release):
    signals(raw_release)[0].write_text("no recording")
    report = converted(raw_release)
    ((path, reason),) = report.skipped
    assert report.made == 1 and path == signals(raw_release)[0] and "cannot be read" in reason
    said = command(raw_release, "--release", "R1", script="convert")
    assert said.returncode == 0 and "skipped   1 recording:" in said.stdout


def test_a_release_from_elsewhere_is_left_as_it_is(raw_release):
    other = raw_release.with_name("R1_L100_bdf")
    path = write_recording(other, "NDARAA001AAA", "")
    before = path.read_bytes()
    said = command(raw_release, "--release", "R1", script="convert")
    assert said.returncode == 1 and "exists and is no conversion of this program" in said.stderr
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="--out-data DIR"):
        convert(raw_release, signals(raw_release), other, USUAL)


def test_no_raw_release(release_folder):
    said = command(release_folder, "--release", "R1", script="convert")
    assert said.returncode == 1 and "no release R1 under" in said.stderr
    assert "run/synth.py --release R1 --raw500" in said.stderr and "cmi_bids_R1" in said.stderr


def test_columns_of_events():
    assert without_sample(b"onset\tsample\tvalue\n1\t500\ta b\n") == b"onset\tvalue\n1\ta b\n"
    assert without_sample(b"sample\r\n5\r\n") == b"\n\n"
    for same in (b"onset\tvalue\n1\tsample\n", b"", b"\xff\xfe\n"):
        assert without_sample(same) == same
