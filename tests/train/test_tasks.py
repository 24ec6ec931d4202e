"""Challenge 2 on recordings of all ten tasks: cut, chosen, learned and scored."""

import json
import math

import mne
import numpy as np
import pytest

from eeg.data.cache import Cache, cache_path
from eeg.data.release import TASKS
from tests.conftest import EVENTS, trial_events, write_recording
from tests.data.helpers import command

COLUMNS = "participant_id sex age p_factor attention internalizing externalizing".split()
PEOPLE = {"R1": 3, "R5": 2, "R6": 2}
VIDEO = EVENTS + "1.5\tn/a\tvideo_start\t90\tn/a\n11.25\tn/a\tvideo_stop\t94\tn/a\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Releases of noise in which a recording of task k lasts 9 + k s; surroundSupp has two runs."""
    root = tmp_path_factory.mktemp("tasks") / "data"
    for r, (release, count) in enumerate(PEOPLE.items()):
        folder, rows = root / f"{release}_L100_bdf", ["\t".join(COLUMNS)]
        for i in range(count):
            subject = f"NDARAA{r}{i}0AAA"
            factors = [0.3 * i - 0.1 * r, -0.2 * i, 0.5 - 0.4 * i, 0.4 * i + 0.1 * r]
            rows.append("\t".join([f"sub-{subject}", "MF"[i % 2], f"{8 + i}", *map(str, factors)]))
            for k, task in enumerate(TASKS):
                seed = 100 * r + 10 * i + k
                events = trial_events(1) if task.startswith("contrast") else VIDEO
                for run in (1, 2) if task == "surroundSupp" else (0,):
                    about = {"run": run, "seconds": 9 + k, "seed": seed + run, "task": task}
                    write_recording(folder, subject, events, **about)
        (folder / "participants.tsv").write_text("\n".join(rows) + "\n")
    # passive tasks without events, and too short for a window
    first = root / "R1_L100_bdf" / "sub-NDARAA000AAA" / "eeg"
    (first / "sub-NDARAA000AAA_task-RestingState_events.tsv").unlink()
    write_recording(root / "R1_L100_bdf", "NDARAA020AAA", VIDEO, run=0, seconds=3, task=TASKS[0])
    return root


def cached(data, release, *tasks):
    words = "--release", release, "--challenge", 2, "--tasks", *tasks
    done = command(data / f"{release}_L100_bdf", *words, cache=data.parent / "-".join(tasks))
    assert done.returncode == 0, done.stderr
    return Cache(cache_path(data.parent / "-".join(tasks), 2, release)), done.stdout


def test_windows_of_every_task(data):
    cache, printed = cached(data, "R1", "all")
    metadata, count = cache.metadata, 0
    for k, task in enumerate(TASKS):
        seconds = 9 + k
        each = math.floor((seconds - 4) / 2) + 1
        for i in range(3):
            if (i, k) == (2, 0):
                continue
            subject = f"NDARAA0{i}0AAA"
            runs = (1, 2) if task == "surroundSupp" else (0,)
            of_both = (metadata["subject"] == subject.encode()) & (
                metadata["task"] == task.encode()
            )
            for run in runs:
                rows = np.flatnonzero(of_both & (metadata["run"] == run))
                assert metadata["start"][rows].tolist() == [200 * n for n in range(each)]
                ending = f"_run-{run}" * bool(run)
                stem = f"sub-{subject}_task-{task}{ending}_eeg.bdf"
                path = data / "R1_L100_bdf" / f"sub-{subject}" / "eeg" / stem
                raw = mne.io.read_raw_bdf(path, verbose="error").get_data() * 1e6
                start = 200 * (each - 1)
                expected = raw[:, start : start + 400]
                np.testing.assert_allclose(cache[rows[-1]], expected, rtol=3e-7, atol=1e-9)
                assert set(cache.y[rows]) == {0.4 * i}
                count += each
    assert len(cache) == count
    assert "skipped   1 recording" in printed and "lasts 3.00 s" in printed


def test_some_tasks_are_chosen(data):
    cache, _ = cached(data, "R1", "ThePresent", "symbolSearch")
    assert set(cache.metadata["task"]) == {b"ThePresent", b"symbolSearch"}
    whole, _ = cached(data, "R1", "all")
    same = np.isin(whole.metadata["task"], [b"ThePresent", b"symbolSearch"])
    assert len(cache) == same.sum()
    np.testing.assert_array_equal(
        np.stack([cache[i] for i in range(len(cache))]),
        np.stack([whole[i] for i in np.flatnonzero(same)]),
    )


def test_all_factors_are_learned_from_all_tasks_and_scored_on_one(data, tmp_path):
    for release in PEOPLE:
        cache, _ = cached(data, release, "all")
    out = tmp_path / "out"
    words = "--challenge", 2, "--target", "factors", "--epochs", 1, "--threads", 1, "--amp", "off"
    tiny = "--set", "width=8", "depth=1", "--name", "all"
    places = {"cache": data.parent / "all"}
    done = command(data / "R1", *words, *tiny, "--out", out, script="train", **places)
    assert done.returncode == 0, done.stderr
    (config,) = [json.loads(path.read_text()) for path in out.glob("*/*/config.json")]
    known = [Cache(cache_path(data.parent / "all", 2, name)) for name in ("R1", "R5")]
    sides = [config["split"][side]["windows"] for side in ("train", "valid")]
    assert sides == [len(each) for each in known]
    words = "all", "--out", out, "--json", tmp_path / "scores.json", "--release", "R6"
    done = command(data / "R1", *words, script="evaluate", **places)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "scores.json").read_text())["challenge2"]
    contrast = (cache.metadata["task"] == b"contrastChangeDetection").sum()
    assert found["windows"] == contrast  # the competition's
    (factors,) = found["factors"].values()
    for name in COLUMNS[3:]:
        assert factors[name]["windows"] == contrast
        assert factors[name]["by_subject"]["subjects"] == 2
