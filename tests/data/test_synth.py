"""Simulated releases: read by MNE, with the physiology and the irregularities they are said to
have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mne
import numpy as np
import pytest
import scipy.signal

from eeg import UserError
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release, read_tsv
from eeg.data.synth import draw_subject, simulate_release
from eeg.data.trials import build_trials, read_events
from eeg.models.montage import CHANNELS

REAL_COLUMNS = (
    "participant_id release_number sex age ehq_total commercial_use full_pheno p_factor attention internalizing externalizing RestingState DespicableMe FunwithFractals "
    "ThePresent DiaryOfAWimpyKid contrastChangeDetection_1 contrastChangeDetection_2 contrastChangeDetection_3 surroundSupp_1 surroundSupp_2 seqLearning6target "
    "seqLearning8target symbolSearch"
).split()
REAL_WORDS = {
    "break cnt",
    "9999",
    "boundary",
    "contrastChangeB1_start",
    "contrastChangeB2_start",
    "contrastChangeB3_start",
    "contrastTrial_start",
    "left_target",
    "right_target",
    "left_buttonPress",
    "right_buttonPress",
    "resting_start",
    "instructed_toOpenEyes",
    "instructed_toCloseEyes",
    "video_start",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth")
    simulate_release(root, "R1", 8, tasks=("contrastChangeDetection", "RestingState"))
    return root


@pytest.fixture(scope="module")
def cache(data):
    return Cache(build(find_release("R1", data), Settings(), data / "cache").path)


def row(cache, name):
    return cache.parts[0][:, CHANNELS.index(name)]


def locked_to_response(cache, name, before=60, after=20):
    """(n, T) microvolts around the response, each without its mean; trials whose stretch lies in
    the window."""
    at = np.round((cache.y - 0.5) * 100).astype(int)
    good = np.flatnonzero((at - before >= 0) & (at + after < 200) & ~cache.metadata["fast"])
    x = np.stack([row(cache, name)[i, at[i] - before : at[i] + after] for i in good])
    return x - x.mean(1, keepdims=True), good


def test_mne_reads_what_is_written(data):
    files = sorted(data.glob("R1_L100_bdf/sub-*/eeg/*_eeg.bdf"))
    assert len(files) == 8 * 4 - 1  # one file that participants.tsv calls available is not there
    raw = mne.io.read_raw_bdf(files[0], verbose="error")
    assert raw.info["sfreq"] == 100 and tuple(raw.ch_names) == CHANNELS
    x = raw.get_data() * 1e6
    assert (x[128] == 0).all() and 3 < np.median(x[:128].std(1)) < 60 and np.abs(x).max() < 5000
    assert (
        raw.times[-1] < 8 * 60
        and json.loads(
            (files[0].parent / files[0].name.replace("_eeg.bdf", "_eeg.json")).read_text()
        )["RecordingDuration"]
        == len(raw.times) / 100
    )


def test_real_releases_have_these_columns_and_words(hbn):
    assert list(read_tsv(hbn / "R1" / "participants.tsv")) == REAL_COLUMNS
    assert REAL_WORDS <= {
        v for p in hbn.glob("R*/sub-*/eeg/*events.tsv") for v in read_events(p)[1]
    }


def test_participants_are_laid_out_as_the_real_ones(data):
    table = read_tsv(data / "R1_L100_bdf" / "participants.tsv")
    assert list(table) == REAL_COLUMNS
    assert "n/a" in table["externalizing"] and all(5 <= float(a) <= 22 for a in table["age"])
    on_disk = {p.name for p in (data / "R1_L100_bdf").glob("sub-*")}
    assert (
        on_disk == set(table["participant_id"])
        and "Simulated" in (data / "R1_L100_bdf/dataset_description.json").read_text()
    )


def test_events_have_the_real_words(data):
    ours = {v for p in data.glob("R1_L100_bdf/sub-*/eeg/*events.tsv") for v in read_events(p)[1]}
    assert (
        ours <= REAL_WORDS
        and {
            "contrastTrial_start",
            "left_target",
            "right_buttonPress",
            "break cnt",
            "9999",
            "resting_start",
        }
        <= ours
    )


def test_many_subjects_have_the_labels_of_the_real_ones():
    subjects = [draw_subject("R3", i, 0) for i in range(3000)]
    age, externalizing, trait = (
        np.array([f(s) for s in subjects])
        for f in (lambda s: s.age, lambda s: s.factors[3], lambda s: s.trait)
    )
    assert np.corrcoef(age, externalizing)[0, 1] == pytest.approx(-0.24, abs=0.05)
    assert 0.1 < np.corrcoef(trait, externalizing)[0, 1] < 0.3
    assert 9.5 < age.mean() < 11 and np.mean([s.sex == "M" for s in subjects]) == pytest.approx(
        0.65, abs=0.04
    )
    names = {s.name for s in subjects} | {draw_subject("R4", i, 0).name for i in range(3000)}
    assert len(names) == 6000


def test_response_times(cache):
    assert (
        1.4 < cache.y.mean() < 1.8
        and 0.3 < cache.y.std() < 0.55
        and cache.y.min() >= 0
        and cache.y.max() < 2.5
    )
    assert (cache.metadata["correct"] == 0).any() and (cache.metadata["correct"] == 1).mean() > 0.8


def test_irregularities_are_there(data, cache):
    release = find_release("R1", data)
    report = build(release, Settings(), data / "cache", force=True)
    assert report.flagged["copy"] >= 15 and report.flagged["fast"] >= 20
    assert (
        report.dropped["past the end of the recording"] >= 1 and report.dropped["no response"] > 30
    )
    assert any("no valid trial" in why for _, why in report.skipped)
    table, files = (
        read_tsv(release.folder / "participants.tsv"),
        [p.name for p in release.folder.glob("sub-*/eeg/*_run-3_eeg.bdf")],
    )
    said = [
        name
        for name, has in zip(table["participant_id"], table["contrastChangeDetection_3"])
        if has != "unavailable"
    ]
    assert len(said) == len(files) + 1
    early = sum(
        (np.sum(v == "left_buttonPress") + np.sum(v == "right_buttonPress"))
        - np.isfinite(build_trials(o, v, f)["response"]).sum()
        for o, v, f in (
            read_events(p) for p in release.folder.glob("sub-*/eeg/*contrast*events.tsv")
        )
    )
    assert early > 50  # presses that answer nothing


def test_a_copied_block_is_copied_in_signal_too(cache):
    meta = cache.metadata
    for i in np.flatnonzero(meta["copy"]):
        same = np.flatnonzero(
            (meta["subject"] == meta["subject"][i])
            & ~meta["copy"]
            & (np.abs(cache.y - cache.y[i]) < 1e-6)
        )
        assert any((cache[int(i)] == cache[int(j)]).all() for j in same)


def test_the_parietal_positivity_peaks_at_the_response(cache):
    x, _ = locked_to_response(cache, "E62")
    mean = np.convolve(x.mean(0), np.ones(15) / 15, "same")  # without the alpha that is left
    assert mean[45:65].mean() - mean[:20].mean() > 1.5 and 48 <= mean.argmax() <= 68


def test_the_motor_potential_is_on_the_other_side_of_the_hand(cache):
    c3, good = locked_to_response(cache, "E36")
    c4, _ = locked_to_response(cache, "E104")
    side = cache.metadata["side"][good]
    lateral = (c3 - c4)[:, 50:62].mean(1) - (c3 - c4)[:, :15].mean(1)
    assert (
        lateral[side == b"right"].mean() < -0.5 < 0.5 < lateral[side == b"left"].mean()
    )  # negative over the hemisphere that moves the hand


def test_flicker_follows_the_target(cache):
    chosen = ~cache.metadata["fast"] & (cache.metadata["correct"] == 1)
    x = row(cache, "E75")[:, 30:110] * np.hanning(
        80
    )  # 0.8 to 1.6 s after the stimulus: the contrasts have parted
    power = np.abs(np.fft.rfft(x, axis=1)) ** 2
    ratio = np.log(power[:, 16] / power[:, 20])  # 20 over 25 Hz
    side = cache.metadata["side"]
    assert (
        ratio[chosen & (side == b"left")].mean() > ratio[chosen & (side == b"right")].mean() + 0.3
    )


def test_alpha_grows_faster_with_age_and_stronger_with_closed_eyes():
    from eeg.data.synth import Head, signals

    head = Head()
    subject = draw_subject("R1", 50, 0)
    peaks, powers = [], []
    for age in (5, 8, 12, 20):
        subject.age = float(age)
        x = np.mean(
            [
                signals(np.random.default_rng(k), head, subject, 120, closed=[(0, 120)])[
                    CHANNELS.index("E75")
                ]
                for k in range(3)
            ],
            0,
        )
        f, p = scipy.signal.welch(x, 100, nperseg=400)
        inside = (f > 6) & (f < 13)
        peaks.append(f[inside][(p * f)[inside].argmax()])
    assert peaks == sorted(peaks) and peaks[0] < 9 and peaks[-1] > 9.4
    for closed in ((), [(0, 120)]):
        f, p = scipy.signal.welch(
            signals(np.random.default_rng(1), head, subject, 120, closed=closed)[
                CHANNELS.index("E75")
            ],
            100,
            nperseg=400,
        )
        powers.append(p[(f > 8.5) & (f < 11.5)].sum())
    assert powers[1] > 2 * powers[0]


def digest(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.glob("sub-*/eeg/*"))}


def test_the_same_seed_gives_the_same_bytes(data, tmp_path):
    settings = dict(tasks=("contrastChangeDetection",), runs=2)
    a = digest(simulate_release(tmp_path / "a", "R2", 3, jobs=1, **settings)[0])
    b = digest(simulate_release(tmp_path / "b", "R2", 2, jobs=3, **settings)[0])
    c = digest(simulate_release(tmp_path / "c", "R2", 2, seed=1, **settings)[0])
    assert b and all(a[name] == data for name, data in b.items()) and not set(b) & set(c)


def test_what_is_there_is_not_overwritten(tmp_path):
    folder, made = simulate_release(tmp_path, "R2", 1, runs=1)
    assert made and simulate_release(tmp_path, "R2", 1, runs=1)[1] is None
    with pytest.raises(UserError, match="--force"):
        simulate_release(tmp_path, "R2", 2, runs=1)
    assert simulate_release(tmp_path, "R2", 2, runs=1, force=True)[1]["recordings"] == 2
    (folder / "dataset_description.json").write_text('{"Name": "Healthy Brain Network"}')
    with pytest.raises(UserError, match="was not simulated"):
        simulate_release(tmp_path, "R2", 1, runs=1, force=True)
    assert folder.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--release", "../R1"],
        ["--release", "R1", "--subjects", "0"],
        ["--release", "R1", "--snr", "-1"],
        ["--release", "R1", "--tasks", "Sleep"],
        ["--release", "R1", "--seed", "-1"],
    ],
)
def test_mistakes_of_the_user(tmp_path, words):
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, root / "run" / "synth.py", *words, "--data", tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert result.returncode == 2 and "Traceback" not in result.stderr
