"""The cache against MNE's own samples, and what can go wrong while it is built or opened."""

import os
import pickle
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor

import h5py
import mne
import numpy as np
import pytest

from eeg import UserError, files
from eeg.data.build import Settings, build
from eeg.data.cache import Cache, cache_path, find_caches, look
from eeg.data.release import find_release, folder_names
from eeg.models.montage import CHANNELS
from tests.conftest import (
    EVENTS,
    LABELS,
    bdf_bytes,
    trial_events,
    write_participants,
    write_recording,
)
from tests.data.helpers import command, files_left, made

# --------------------------------------------------------------------------- what is in it


@pytest.mark.parametrize(
    "margin_s, dtype, tolerance",
    [(0.0, "float32", 3e-7), (0.25, "float32", 3e-7), (0.1, "float16", 6e-4)],
)
def test_windows_are_the_samples_that_mne_reads(release_folder, margin_s, dtype, tolerance):
    report, cache = made(release_folder, margin_s=margin_s, dtype=dtype)
    assert len(cache) == report.windows == 12 and report.subjects == 2
    m = cache.margin_samples
    assert m == round(100 * margin_s)
    assert cache[0].shape == (129, 200 + 2 * m) and cache[0].dtype == dtype
    for i, row in enumerate(cache.metadata):
        path = next(release_folder.glob(f"sub-{row['subject'].decode()}/eeg/*_run-1_eeg.bdf"))
        raw = mne.io.read_raw_bdf(path, verbose="error").get_data() * 1e6
        assert row["start"] == round(row["stimulus"] * 100) + 50
        np.testing.assert_allclose(
            cache[i], raw[:, row["start"] - m : row["start"] + 200 + m], rtol=tolerance, atol=1e-9
        )
    np.testing.assert_allclose(
        cache.y, [*(1.5 + 0.01 * np.arange(6)), *(1.2 + 0.01 * np.arange(6))]
    )
    assert set(cache.metadata["side"]) == {b"left"} and set(cache.metadata["correct"]) == {1}


def test_challenge_2(release_folder):
    report, cache = made(release_folder, challenge=2)
    assert len(cache) == 2 * 19 and cache[0].shape == (129, 400)
    assert cache.metadata["start"][:19].tolist() == list(range(0, 3601, 200))
    assert set(cache.y) == {0.5}
    assert set(cache.metadata["age"]) == {9.5} and set(cache.metadata["sex"]) == {b"M"}
    path = next(release_folder.glob("sub-NDARAA*/eeg/*.bdf"))
    raw = mne.io.read_raw_bdf(path, verbose="error").get_data() * 1e6
    np.testing.assert_allclose(cache[7], raw[:, 1400:1800], rtol=3e-7, atol=1e-9)


def test_h5py_alone_understands_the_file(release_folder):
    report, cache = made(release_folder)
    with h5py.File(report.path) as f:
        assert f["X"].shape == (12, 129, 200)
        assert f["X"].chunks is None and f["X"].id.get_offset() % 4096 == 0
        np.testing.assert_array_equal(f["X"][5], cache[5])
        assert f.attrs["unit"] == "uV" and f.attrs["sfreq"] == 100
        assert [c.decode() for c in f.attrs["channels"]] == list(CHANNELS)
        assert f["metadata"].dtype["copy"].kind == "b" and f["y"].dtype == np.float64


def test_channels_in_another_order_are_put_in_order(release_folder):
    digital = np.random.default_rng(5).integers(-30000, 30000, (129, 4000))
    write_recording(release_folder, "NDARAA001AAA", trial_events(), digital=digital)
    straight = made(release_folder)[1][0].copy()
    order = np.random.default_rng(6).permutation(129)
    write_recording(
        release_folder,
        "NDARAA001AAA",
        trial_events(),
        digital=digital[order],
        labels=[LABELS[i] for i in order],
    )
    np.testing.assert_array_equal(made(release_folder)[1][0], straight)


def test_several_files_are_one_and_work_in_other_processes(release_folder, tmp_path):
    made(release_folder)
    other = tmp_path / "data" / "R2_L100_bdf"
    write_recording(other, "NDARCC003CCC", trial_events(3), seed=9)
    build(find_release("R2", tmp_path / "data"), Settings(), tmp_path / "cache")
    both = find_caches(tmp_path / "cache", 1, ["R1", "R2"])
    assert both.release.tolist() == ["R1"] * 12 + ["R2"] * 3
    assert len(both) == len(both.y) == len(both.metadata) == 15
    alone = find_caches(tmp_path / "cache", 1, ["R2"])
    np.testing.assert_array_equal(both[12], alone[0])
    np.testing.assert_array_equal(both[-1], alone[2])
    with pytest.raises(IndexError):
        both[15]
    assert both.features is None
    with ProcessPoolExecutor(2) as pool:
        sums = list(pool.map(window_sum, [(pickle.dumps(both), i) for i in range(15)]))
    np.testing.assert_allclose(sums, [both[i].sum(dtype=float) for i in range(15)])


def window_sum(pair):
    return pickle.loads(pair[0])[pair[1]].sum(dtype=float)


def test_mixed_caches_are_refused(release_folder, tmp_path):
    made(release_folder)
    write_recording(tmp_path / "data" / "R2_L100_bdf", "NDARCC003CCC", trial_events(3))
    build(find_release("R2", tmp_path / "data"), Settings(margin_s=0.1), tmp_path / "cache")
    with pytest.raises(
        UserError,
        match="margin_samples 10.*rebuild it with: python run/cache.py --release R2 --force",
    ):
        find_caches(tmp_path / "cache", 1, ["R1", "R2"])
    with pytest.raises(UserError, match="no cache of R3.*python run/cache.py --release R3"):
        find_caches(tmp_path / "cache", 1, ["R1", "R3"])


# --------------------------------------------------------------------------- where releases are


def test_every_folder_name_is_found_in_order(tmp_path):
    assert folder_names("R9", False) == [
        "R9_L100_bdf",
        "ds005514-bdf",
        "EEG2025r9",
        "R9_L100",
        "ds005514",
        "cmi_bids_R9",
    ]
    assert folder_names("R1", True) == ["R1_mini_L100_bdf", "ds005505-bdf-mini", "EEG2025r1mini"]
    for name in reversed(folder_names("R9", False)):
        (tmp_path / name).mkdir()
        assert find_release("R9", tmp_path).folder.name == name
    with pytest.raises(
        UserError,
        match=r"looked for R12_L100_bdf, EEG2025r12, R12_L100, cmi_bids_R12\); .*--data DIR, or "
        "simulate one with: python run/synth.py --release R12",
    ):
        find_release("R12", tmp_path)  # which no bucket has
    with pytest.raises(
        UserError, match="get it with: python run/download.py --release R1 .*, or sim"
    ):
        find_release("R1", tmp_path)


def test_recordings_are_what_files_exist(release_folder):
    (release_folder / "sub-NDARZZ999ZZZ").mkdir()  # no eeg folder
    (release_folder / "sub-NDARAA001AAA/eeg/notes.txt").write_text("")
    write_recording(release_folder, "NDARAA001AAA", None, run=10, seconds=5)
    write_recording(release_folder, "NDARAA001AAA", None, run=0, task="RestingState", seconds=5)
    found = find_release("R1", release_folder.parent).recordings(
        ("contrastChangeDetection", "RestingState")
    )
    assert [(r.subject[:6], r.task[:4], r.run) for r in found] == [
        ("NDARAA", "Rest", 0),
        ("NDARAA", "cont", 10),
        ("NDARAA", "cont", 1),
        ("NDARBB", "cont", 1),
    ]  # as file names sort


# --------------------------------------------------------------------------- bad recordings

FAULTS = {
    "truncated": (
        dict(digital=bdf_bytes(np.zeros((129, 4000), int))[:-5000]),
        trial_events(),
        "the file ends 0.1 s before its header says",
    ),
    "text": (dict(digital=b"onset\tduration\n" * 99), trial_events(), "not a BDF file"),
    "empty": (dict(digital=b""), trial_events(), "the file is empty"),
    "six channels": (
        dict(digital=np.zeros((6, 4000), int)),
        trial_events(),
        "6 channels, not the 129",
    ),
    "other names": (dict(labels=[f"A{i}" for i in range(129)]), trial_events(), "no E1"),
    "no gain": (dict(physical=(0, 0)), trial_events(), "no gain"),
    "negative records": (dict(records=-7), trial_events(), "-7 records"),
    "zero-byte events": ({}, "", "events.tsv is empty"),
    "no events": ({}, None, "there is no"),
    "no value column": ({}, "onset\tduration\n1\tn/a\n", "no column 'value'"),
    "all onsets n/a": (
        {},
        EVENTS + "n/a\tn/a\tcontrastTrial_start\t5\tn/a\n" * 3,
        "no valid trial",
    ),
    "onset no number": ({}, EVENTS + "x\tn/a\tcontrastTrial_start\t5\tn/a\n", "no number: 'x'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_recording_is_named_and_the_others_kept(release_folder, fault):
    header, events, reason = FAULTS[fault]
    write_recording(release_folder, "NDARAA001AAA", events, **header, run=2)
    report, cache = made(release_folder)
    assert len(cache) == 12 and files_left(release_folder) == ["challenge1_R1_windows.h5"]
    ((recording, why),) = report.skipped
    assert str(recording) == "sub-NDARAA001AAA contrastChangeDetection run 2" and reason in why


def test_a_recording_that_fails_while_it_is_read_leaves_no_hole(release_folder, monkeypatch):
    import eeg.data.build as module

    write_recording(release_folder, "NDARAB005AAA", trial_events(2), seed=3)
    whole = made(release_folder)[1]
    expected = np.concatenate([whole.parts[0][:6], whole.parts[0][8:]])
    opened = module.open_signal

    class Spoilt:
        n_times, warning = 4000, ""

        def read(self, starts, out):
            raise module.BadRecording("3 of its samples are not finite")

    monkeypatch.setattr(
        module, "open_signal", lambda r, *more: Spoilt() if "AB005" in r.subject else opened(r)
    )
    report, cache = made(release_folder, force=True)
    np.testing.assert_array_equal(cache.parts[0], expected)
    # the recording's number is its place in this list, whatever was skipped
    with h5py.File(report.path, locking=False) as f:
        subjects = [f["recordings"][r][4:16] for r in cache.metadata["recording"]]
    assert subjects == cache.metadata["subject"].tolist()
    assert report.windows == len(cache.y) == len(cache.metadata) == 12
    assert "not finite" in report.skipped[0][1]
    assert files_left(release_folder) == ["challenge1_R1_windows.h5"]


def test_participants_count_for_challenge_2_alone(release_folder):
    write_participants(release_folder, ["NDARBB002BBB", "NDARCC003CCC"])
    write_recording(release_folder, "NDARDD004DDD", None, seconds=3)
    assert made(release_folder)[0].windows == 12
    report, cache = made(release_folder, challenge=2)
    assert set(cache.metadata["subject"]) == {b"NDARBB002BBB"}
    reasons = dict((r.subject, why) for r, why in report.skipped)
    assert "not in participants.tsv" in reasons["NDARAA001AAA"]
    assert "not in participants.tsv" in reasons["NDARDD004DDD"]
    everyone = ["NDARAA001AAA", "NDARBB002BBB", "NDARDD004DDD"]
    write_participants(release_folder, everyone, externalizing="n/a")
    report, _ = made(release_folder, challenge=2)
    assert report.windows == 0 and "no externalizing factor" in report.skipped[0][1]
    write_participants(release_folder, ["NDARDD004DDD"])
    report, _ = made(release_folder, challenge=2)
    reasons = dict((r.subject, why) for r, why in report.skipped)
    assert "lasts 3.00 s" in reasons["NDARDD004DDD"]


def test_trials_are_dropped_by_reason_and_copies_flagged(release_folder):
    text = trial_events(6)
    moved = EVENTS + "".join(
        "\t".join([f"{float(line.split(chr(9))[0]) + 0.404:.3f}", *line.split("\t")[1:]]) + "\n"
        for line in text.splitlines()[1:]
    )
    write_recording(release_folder, "NDARAA001AAA", moved, run=2)
    # the last window does not fit
    write_recording(release_folder, "NDARBB002BBB", trial_events(6), run=2, seconds=33)
    report, cache = made(release_folder)
    assert report.flagged == {"copy": 6} and report.dropped == {"past the end of the recording": 1}
    flagged = cache.metadata[cache.metadata["copy"]]
    assert set(flagged["subject"]) == {b"NDARAA001AAA"} and set(flagged["run"]) == {2}


# --------------------------------------------------------------------------- building


def test_an_up_to_date_cache_is_not_rebuilt(release_folder):
    report, _ = made(release_folder)
    before = report.path.stat().st_mtime_ns
    assert not made(release_folder)[0].built and report.path.stat().st_mtime_ns == before
    with pytest.raises(
        UserError, match="made with a margin of 0 s instead of 0.1 s: they would be lost"
    ):
        made(release_folder, margin_s=0.1)
    assert report.path.stat().st_mtime_ns == before
    report.path.unlink()
    made(release_folder, margin_s=0.1)
    write_recording(release_folder, "NDARAA001AAA", trial_events(5), seed=1)
    report, cache = made(release_folder, margin_s=0.1)
    assert report.built and report.reason == "files of the release have changed"
    assert len(cache) == 11
    report.path.write_bytes(b"spoilt")
    assert made(release_folder, margin_s=0.1)[0].reason == "the file there cannot be read"


def test_other_samples_in_a_file_of_the_same_size_rebuild_the_cache(release_folder):
    path = write_recording(release_folder, "NDARAA001AAA", trial_events(), seed=1)
    report, cache = made(release_folder)
    written, first = path.stat(), cache[0].copy()
    content = bytearray(path.read_bytes())
    window = 256 * 130 + 129 * 300 * cache.metadata["start"][0] // 100
    content[window : window + 129 * 900] = bytes(129 * 900)
    path.write_bytes(content)
    report, cache = made(release_folder)
    assert report.reason == "files of the release have changed" and (cache[0] != first).any()
    content[256 * 130] ^= 1  # the first sample, in a file that claims to be as old as before
    path.write_bytes(content)
    os.utime(path, ns=(0, written.st_mtime_ns))
    assert made(release_folder)[0].built
    os.utime(path, ns=(0, 1 << 62))  # the clock of another machine
    assert not made(release_folder)[0].built


def test_the_same_release_makes_the_same_bytes_whenever_its_files_were_written(release_folder):
    for challenge in (1, 2):
        report, _ = made(release_folder, challenge=challenge)
        before = report.path.read_bytes()
        for path in release_folder.rglob("*.*"):
            os.utime(path, (0, 1e9))
        report.path.unlink()
        assert made(release_folder, challenge=challenge)[0].path.read_bytes() == before


def test_the_same_release_in_another_place_makes_the_same_bytes(release_folder, tmp_path):
    """Where it lay is kept with the file, not in it, and asked about before it is replaced."""
    (tmp_path / "b").mkdir()
    elsewhere = tmp_path / "b" / "data" / release_folder.name
    shutil.copytree(release_folder, elsewhere)
    one, other = made(release_folder)[0].path, made(elsewhere)[0].path
    assert one.read_bytes() == other.read_bytes()
    if files.noted(one, "data") is None:
        pytest.skip("this file system keeps no notes: extended attributes of users")
    assert look(one).settings["data"] == release_folder.parent
    assert look(other).settings["data"] == elsewhere.parent
    events = next(elsewhere.rglob("*_events.tsv"))
    events.write_text("\n".join(events.read_text().splitlines()[:20]) + "\n")
    with pytest.raises(UserError, match="the release in .*/data instead of .*/b/data"):
        build(find_release("R1", elsewhere.parent), Settings(), one.parent)
    copied = tmp_path / "copy.h5"
    copied.write_bytes(one.read_bytes())  # notes do not come along: nothing is known then
    assert "data" not in look(copied).settings and len(Cache(copied)) == len(Cache(one))


@pytest.mark.parametrize(
    "before, after, said",
    [
        ({"margin_s": 0.1}, {"margin_s": 1.0}, "a margin of 0.1 s instead of 1 s"),
        (
            {"challenge": 2, "tasks": ("DespicableMe", "contrastChangeDetection")},
            {"challenge": 2},
            "tasks DespicableMe contrastChangeDetection instead of contrastChangeDetection",
        ),
    ],
)
def test_a_setting_that_ends_like_the_other_is_another(release_folder, before, after, said):
    made(release_folder, **before)
    with pytest.raises(UserError, match=said):
        made(release_folder, **after)


def test_the_number_of_threads_changes_nothing(release_folder):
    release = find_release("R1", release_folder.parent)
    root = release_folder.parent.parent
    reports = [build(release, Settings(), root / f"c{jobs}", jobs) for jobs in (1, 2, 7)]
    arrays = [Cache(report.path).parts[0] for report in reports]
    assert all((a == arrays[0]).all() for a in arrays)


def test_two_builds_of_one_file(release_folder):
    import eeg.data.build as module

    path = cache_path(release_folder.parent.parent / "cache", 1, "R1")
    with module.partial_file(path):
        result = command(release_folder, "--release", "R1")
        assert result.returncode == 1 and "another process is building" in result.stderr
        assert "Traceback" not in result.stderr
    assert command(release_folder, "--release", "R1").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")
def test_a_full_disk(release_folder, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", small], capture_output=True
    ).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        result = command(release_folder, "--release", "R1", cache=small)
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
        assert "more than the disk has free" in result.stderr and "--cache DIR" in result.stderr
        # and where the system's count of free space was wrong
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 40}))
            with pytest.raises(UserError, match="no room for .*challenge1_R1_windows.h5: it takes"):
                build(find_release("R1", release_folder.parent), Settings(), small)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_cache_folder_that_cannot_be_written(release_folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    result = command(release_folder, "--release", "R1")
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert "cannot be written: " in result.stderr


def test_spoilt_files_are_refused_with_the_command_that_helps(release_folder):
    report, _ = made(release_folder)
    good = report.path.read_bytes()
    for data, reason in [
        (good[:-1000], "truncated file"),
        (b"x" * 5000, "cannot be read as a cache"),
        (good[:2000], "cannot be read as a cache"),
    ]:
        report.path.write_bytes(data)
        with pytest.raises(UserError, match=reason):
            Cache(report.path)
    report.path.write_bytes(good)
    with h5py.File(report.path, "r+") as f:
        f.attrs["version"] = 99
    with pytest.raises(
        UserError,
        match="version 99, this program reads version 1; rebuild it with: python run/cache.py "
        "--release R1 --force",
    ):
        Cache(report.path)
    with pytest.raises(UserError, match="there is no cache"):
        Cache(report.path.with_name("absent.h5"))


# --------------------------------------------------------------------------- the command


def test_a_recording_that_was_never_closed_is_used_with_a_warning(release_folder):
    closed = made(release_folder)[1].parts[0].copy()
    path = write_recording(release_folder, "NDARAA001AAA", trial_events(), seed=1, records=-1)
    report, cache = made(release_folder)
    np.testing.assert_array_equal(cache.parts[0], closed)
    ((recording, warning),) = report.warned
    assert recording.signal == path and "never closed (-1 records); it is 40 s" in warning
    said = command(release_folder, "--release", "R1", "--force").stdout
    assert "warning   1 recording:" in said and warning in said
    path.write_bytes(path.read_bytes()[:-5000])  # the last second is lost, and what is in it
    report, _ = made(release_folder)
    assert "it is 39 s" in report.warned[0][1]


def test_what_the_command_says(release_folder):
    write_recording(release_folder, "NDARAA001AAA", "", run=2)
    result = command(release_folder, "--release", "R1")
    assert result.returncode == 0 and result.stderr == ""
    for text in (
        "R1: 2 participants, 3 contrast-change recordings",
        "12 windows of 2 subjects (129 x 200 float32",
        "skipped   1 recording",
        "run 2: ",
        "is empty",
    ):
        assert text in result.stdout
    assert "up to date: 12 windows" in command(release_folder, "--release", "R1").stdout
    assert command(release_folder, "--release", "R1", "--force", "--strict").returncode == 1


@pytest.mark.parametrize(
    "arguments, code, text",
    [
        (["--release", "R9"], 1, "no release R9 under"),
        (["--release", "../R1"], 2, "not a release"),
        (["--release", "R1", "--margin", "-1"], 2, "not a length of time"),
        (["--release", "R1", "--jobs", "0"], 2, "at least 1"),
        (["--release", "R1", "--tasks", "RestingState"], 2, "--challenge 2"),
        (["--release", "R1", "--challenge", "2", "--tasks", "Sleep"], 2, "the tasks are"),
        (
            ["--release", "R1", "--challenge", "2", "--tasks", "RestingState"],
            1,
            "no recording of RestingState",
        ),
        (["--release", "R1", "--plot", "x.gif"], 2, ".png"),
        ([], 2, "--release"),
    ],
)
def test_mistakes_of_the_user(release_folder, arguments, code, text):
    result = command(release_folder, *arguments)
    assert result.returncode == code and text in result.stderr and "Traceback" not in result.stderr


def test_nothing_kept_is_a_failure(release_folder):
    for events in release_folder.glob("sub-*/eeg/*events.tsv"):
        events.write_text(EVENTS)
    result = command(release_folder, "--release", "R1")
    assert result.returncode == 1 and "nothing was kept" in result.stdout
    assert files_left(release_folder) == []


@pytest.mark.parametrize(
    "content", [b"", b"participant_id\tage\nsub-A", b"participant_id\nsub-\xe9"]
)
def test_participants_that_cannot_be_read_end_in_a_sentence(release_folder, content):
    (release_folder / "participants.tsv").write_bytes(content)
    done = command(release_folder, "--release", "R1")
    assert done.returncode == 1 and done.stderr.startswith("error: the participants of")
    assert done.stderr.count("\n") == 1 and "participants.tsv" in done.stderr
