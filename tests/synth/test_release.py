"""Simulated releases: read by MNE, with the layout and the irregularities of real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mne
import numpy as np
import pytest

from eeg import UserError
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import CONTRAST, find_release, read_tsv
from eeg.data.trials import build_trials, read_events
from eeg.models.montage import CHANNELS
from eeg.synth.release import COLUMNS, described, simulate_release, write_bdf
from eeg.synth.subjects import draw_subject
from eeg.synth.worlds import WORLDS

ROOT = Path(__file__).resolve().parents[2]
REAL_WORDS = {
    *("break cnt", "9999", "boundary", "video_start", "contrastTrial_start"),
    *("contrastChangeB1_start", "contrastChangeB2_start", "contrastChangeB3_start"),
    *("left_target", "right_target", "left_buttonPress", "right_buttonPress"),
    *("resting_start", "instructed_toOpenEyes", "instructed_toCloseEyes"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth")
    simulate_release(root, "R1", 7, tasks=(CONTRAST, "RestingState"))
    return root


@pytest.fixture(scope="module")
def built(data):
    return build(find_release("R1", data), Settings(), data / "cache")


@pytest.fixture(scope="module")
def cache(built):
    return Cache(built.path)


def test_mne_reads_what_is_written(data):
    files = sorted(data.glob("R1_L100_bdf/sub-*/eeg/*_eeg.bdf"))
    assert len(files) == 7 * 4 - 1  # one file that participants.tsv calls available is not there
    raw = mne.io.read_raw_bdf(files[0], verbose="error")
    assert raw.info["sfreq"] == 100 and tuple(raw.ch_names) == CHANNELS
    x = raw.get_data() * 1e6
    assert (x[128] == 0).all() and 5 < np.median(x[:128].std(1)) < 40 and np.abs(x).max() < 5000
    about = files[0].with_name(files[0].name.replace("_eeg.bdf", "_eeg.json"))
    assert json.loads(about.read_text())["RecordingDuration"] == len(raw.times) / 100


def test_mne_reads_the_microvolts_that_were_given(tmp_path):
    x = np.random.RandomState(0).uniform(-9000, 9000, (129, 300)).astype(np.float32)
    x[0, :3] = 0, 1e9, -1e9  # 0 stays 0; what the format cannot hold is clipped
    write_bdf(tmp_path / "a_eeg.bdf", x)
    raw = mne.io.read_raw_bdf(tmp_path / "a_eeg.bdf", verbose="error").get_data() * 1e6
    np.testing.assert_allclose(raw, np.clip(x, -8388.6, 8388.6), atol=6e-4)
    assert raw[0, 0] == 0


def test_real_releases_have_these_columns_and_words(hbn):
    assert tuple(read_tsv(hbn / "R1" / "participants.tsv")) == COLUMNS
    words = {v for p in hbn.glob("R*/sub-*/eeg/*events.tsv") for v in read_events(p)[1]}
    assert REAL_WORDS <= words


def test_participants_are_laid_out_as_the_real_ones(data):
    folder = data / "R1_L100_bdf"
    table = read_tsv(folder / "participants.tsv")
    assert tuple(table) == COLUMNS and "n/a" in table["externalizing"]
    assert all(5 <= float(age) <= 22 for age in table["age"])
    assert {path.name for path in folder.glob("sub-*")} == set(table["participant_id"])


def test_events_have_the_real_words(data):
    ours = {v for p in data.glob("R1_L100_bdf/sub-*/eeg/*events.tsv") for v in read_events(p)[1]}
    assert ours <= REAL_WORDS
    assert ours >= REAL_WORDS - {"boundary", "video_start"}  # of tasks that were not asked for


def test_many_subjects_have_the_labels_of_the_real_ones(hbn):
    """Correlations of the factors, with age and with sex, as in the real tables."""
    columns = ("p_factor", "attention", "internalizing", "externalizing", "age")
    real = []
    for path in sorted(hbn.glob("R*/participants.tsv")):
        table = read_tsv(path)
        rows = zip(*(table[name] for name in columns), table["sex"])
        real += [[*map(float, row[:-1]), row[-1] == "M"] for row in rows if row[0] != "n/a"]
    subjects = [draw_subject("R3", i, 0) for i in range(3000)]
    ours = np.array([[*s.factors, s.age, s.sex == "M"] for s in subjects])
    real = np.array(real)
    np.testing.assert_allclose(np.corrcoef(ours.T), np.corrcoef(real.T), atol=0.08)
    np.testing.assert_allclose(ours.mean(0), real.mean(0), atol=0.2)
    np.testing.assert_allclose(ours.std(0), real.std(0), rtol=0.1)
    names = {s.name for s in subjects} | {draw_subject("R4", i, 0).name for i in range(3000)}
    assert len(names) == 6000


def test_response_times(cache):
    assert 1.4 < cache.y.mean() < 1.8 and 0.3 < cache.y.std() < 0.55
    assert cache.y.min() >= 0 and cache.y.max() < 2.5
    correct = cache.metadata["correct"]
    assert (correct == 0).any() and (correct == 1).mean() > 0.8


def test_irregularities_are_there(data, built):
    assert built.flagged["copy"] >= 15 and built.flagged["fast"] >= 20
    assert built.dropped["past the end of the recording"] >= 1
    assert built.dropped["no response"] > 30
    assert any("no valid trial" in why for _, why in built.skipped)
    folder = find_release("R1", data).folder
    table = read_tsv(folder / "participants.tsv")
    files = list(folder.glob("sub-*/eeg/*_run-3_eeg.bdf"))
    said = sum(has != "unavailable" for has in table["contrastChangeDetection_3"])
    assert said == len(files) + 1
    early = 0
    for path in folder.glob("sub-*/eeg/*contrast*events.tsv"):
        onsets, values, feedback = read_events(path)
        presses = sum(value.endswith("buttonPress") for value in values)
        early += presses - np.isfinite(build_trials(onsets, values, feedback)["response"]).sum()
    assert early > 50  # presses that answer nothing


def test_a_copied_block_is_copied_in_signal_too(cache):
    meta = cache.metadata
    copies = np.flatnonzero(meta["copy"])
    assert len(copies)
    for i in copies:
        same = (meta["subject"] == meta["subject"][i]) & ~meta["copy"]
        same &= np.abs(cache.y - cache.y[i]) < 1e-6
        assert any((cache[int(i)] == cache[int(j)]).all() for j in np.flatnonzero(same))


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.glob("sub-*/eeg/*"))}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """Whatever the number of subjects, threads and tasks."""
    make = lambda name, *more, **settings: contents(
        simulate_release(tmp_path / name, "R2", *more, runs=1, **settings)[0]
    )
    one = make("a", 2, jobs=1)
    more = make("b", 3, jobs=3, tasks=("RestingState", CONTRAST))
    assert one and one == {path: more[path] for path in one} and len(more) > len(one)
    assert not set(one) & set(make("c", 2, seed=1))
    easy = make("d", 2, world="easy")
    assert set(easy) == set(one)
    for path, content in one.items():  # another world: the same people and labels, other signals
        assert (easy[path] == content) == (path.suffix != ".bdf")


def test_what_is_there_is_not_overwritten(tmp_path):
    folder, made = simulate_release(tmp_path, "R2", 1, runs=1)
    assert made and simulate_release(tmp_path, "R2", 1, runs=1)[1] is None
    for others in ({"subjects": 2}, {"world": "easy"}):
        with pytest.raises(UserError, match="--force"):
            simulate_release(tmp_path, "R2", **{"subjects": 1, "runs": 1} | others)
    assert simulate_release(tmp_path, "R2", 2, runs=1, force=True)[1]["recordings"] == 2
    (folder / "dataset_description.json").write_text('{"Name": "Healthy Brain Network"}')
    with pytest.raises(UserError, match="was not simulated"):
        simulate_release(tmp_path, "R2", 1, runs=1, force=True)
    assert folder.exists()


def command(*words):
    return subprocess.run(
        [sys.executable, ROOT / "run" / "synth.py", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_the_command_says_what_the_world_allows(tmp_path):
    words = ["--release", "R3", "--subjects", "1", "--runs", "1", "--world", "network"]
    for _ in range(2):  # written, then there already
        result = command(*words, "--data", tmp_path)
        assert result.returncode == 0, result.stderr
        about = described(tmp_path / "R3_L100_bdf")
        said = f"{about['oracle']['challenge1']:.2f} (challenge 1) and "
        assert said + f"{about['oracle']['challenge2']:.2f} (challenge 2)" in result.stdout
    assert about["settings"]["world"] == "network"
    release = find_release("R3", tmp_path)
    assert release.simulated
    for challenge in (1, 2):
        cache = Cache(build(release, Settings(challenge), tmp_path / "cache").path)
        assert cache.oracle == about["oracle"][f"challenge{challenge}"]
    path = release.folder / "dataset_description.json"
    whole = json.loads(path.read_text())
    other = {"Name": "converter"}
    for text, expected in (
        (json.dumps(whole | {"GeneratedBy": [other, about]}), about["oracle"]["challenge2"]),
        (json.dumps(whole | {"GeneratedBy": [other]}), None),
        ('{"Name": "Healthy Brain Network"}', None),
        ('["simulated"]', None),
        ("no JSON", None),
    ):
        path.write_text(text)
        assert release.oracle(2) == expected


def test_help_lists_the_worlds():
    shown = command("--help").stdout
    words = " ".join(shown.split())  # it is wrapped
    for world in WORLDS.values():
        assert f"{world.name} " in shown and world.sentence in words


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--release", "../R1"], "is not a release"),
        (["--release", "R1", "--subjects", "0"], "whole number of at least 1"),
        (["--release", "R1", "--snr", "-1"], "at least 0"),
        (["--release", "R1", "--tasks", "Sleep"], "the tasks are"),
        (["--release", "R1", "--seed", "-1"], "a seed is"),
        (["--release", "R1", "--seed", str(2**64)], "a seed is"),
        (["--release", "R1", "--world", "flat"], "invalid choice: 'flat'"),
        (["--release", "R1", "--plot", "x.png"], "--plot"),
        (["--release", "R1", "--beside", "x.set"], "--plot"),
        ([], "--release"),
    ],
)
def test_mistakes_of_the_user(tmp_path, words, expected):
    result = command(*words, "--data", tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert expected in result.stderr
