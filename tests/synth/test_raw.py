"""run/synth.py --raw500: the same simulation as at 100 Hz, as an amplifier recorded it."""

import json

import mne
import numpy as np
import pytest

from eeg.data.release import find_release
from eeg.data.trials import build_trials, read_events
from eeg.raw.preprocess import preprocess
from eeg.raw.preprocessing import Preprocessing
from eeg.synth.release import simulate_release
from tests.synth.test_release import command


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """[(raw, 100 Hz)]: the recordings of one release, simulated twice."""
    data = tmp_path_factory.mktemp("both")
    found = []
    for place, raw in (("raw", True), ("bdf", False)):
        simulate_release(data / place, "R1", 1, runs=2, seed=3, raw=raw)
        found.append(find_release("R1", data / place).recordings(("contrastChangeDetection",)))
    return list(zip(*found))


def test_it_lies_where_the_originals_do(both):
    for raw, ready in both:
        assert "cmi_bids_R1" in str(raw.signal) and raw.signal.name.endswith("_eeg.set")
        assert raw.signal.with_suffix(".fdt").exists()
        about = json.loads(raw.signal.with_suffix(".json").read_text())
        assert about["SamplingFrequency"] == 500
        lines = [line.split("\t") for line in raw.events.read_text().splitlines()]
        assert lines[0][:3] == ["onset", "duration", "sample"]
        assert all(round(float(row[0]) * 500, 6) == int(row[2]) for row in lines[1:])
        one, other = (build_trials(*read_events(each.events)) for each in (raw, ready))
        assert one.tobytes() == other.tobytes()  # with its NaN


def test_filtered_it_is_the_100_hz_simulation(both):
    for raw, ready in both:
        ours = preprocess(raw.signal, Preprocessing())
        theirs = mne.io.read_raw_bdf(ready.signal, verbose="error").get_data() * 1e6
        theirs = mne.filter.filter_data(theirs, 100, 0.5, None, verbose="error")
        inner = slice(1000, -1000)  # the high-pass of the drift needs 7 s at each end
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs)[:, inner].std() < 0.05 * theirs.std()


def test_the_mains_and_offsets_are_in_it(both):
    raw = mne.io.read_raw_eeglab(both[0][0].signal, preload=True, verbose="error")
    assert raw.info["sfreq"] == 500 and not raw.get_data("Cz").any()
    power, hertz = mne.time_frequency.psd_array_welch(
        raw.get_data("E62")[0], 500, n_fft=1000, verbose="error"
    )
    mains, beside = (power[np.argmin(np.abs(hertz - each))] for each in (60, 55))
    assert mains > 100 * beside
    assert np.abs(raw.get_data().mean(1)).max() > 1e-3


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for place, jobs in (("a", 1), ("b", 2)):
        simulate_release(tmp_path / place, "R1", 2, runs=1, raw=True, jobs=jobs)
    one, other = (
        {path.relative_to(tmp_path / place): path.read_bytes()
         for path in (tmp_path / place).rglob("*") if path.is_file()}
        for place in ("a", "b")
    )  # fmt: skip
    assert one == other and len(one) > 10


def test_mistakes(tmp_path):
    for more in (["--mini"], ["--plot", "x.png"]):
        said = command("--release", "R1", "--raw500", *more, "--data", tmp_path)
        assert said.returncode == 2
