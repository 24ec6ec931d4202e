"""A cache made straight from the bucket: the bytes of the one from files, at a part of the cost."""

import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from eeg import UserError, files
from eeg.bucket.choice import choose
from eeg.bucket.listing import list_objects
from eeg.bucket.patience import Patience
from eeg.bucket.server import Server
from eeg.bucket.stream import Stream, merged, without
from eeg.data import features
from eeg.data.cache import Cache, find_caches, rebuild
from eeg.data.release import CONTRAST as CONTRAST_TASK
from eeg.data.release import cache_path
from tests.bucket import s3 as faults
from tests.bucket.conftest import PREFIX
from tests.bucket.s3 import BUCKET, S3
from tests.bucket.test_download import kill_later
from tests.children import Child
from tests.conftest import ROOT, bdf_bytes, trial_events, write_recording
from tests.raw.helpers import write_release

CONTRAST = PREFIX + "sub-{0}/eeg/sub-{0}_task-contrastChangeDetection_run-1_"
honest = lambda handler, *answer: answer


def line(folder, cache, *words):
    """With --stream the data root is another: nothing is read there, and the cache is the same."""
    script = str(ROOT / "run" / "cache.py")
    data = str(cache / "no data" if "--stream" in words else folder.parent)
    words = ["--release", "R1", "--data", data, "--cache", str(cache), *map(str, words)]
    return [sys.executable, script, *words]


def made(folder, cache, *words, code=0):
    """-> (what it printed without the lines that differ by nature, the cache's bytes)."""
    done = subprocess.run(line(folder, cache, *words), capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    files = sorted(cache.glob("*")) if cache.exists() else []
    if not code:
        assert [path.suffix for path in files] == [".h5"]
    differing = "R1:", "fetched", str(cache)
    printed = re.sub(r"at most [0-9,]+ MB", "", done.stdout).splitlines()
    said = [text for text in printed if not text.startswith(differing)]
    whole = not code and files[0].read_bytes()
    return "\n".join(said) + done.stderr, whole


def both(bucket, folder, tmp_path, *words):
    """Build from files and from the bucket: all that is said and written is the same."""
    expected = made(folder, tmp_path / "files", *words)
    bucket.sent = 0
    assert made(folder, tmp_path / "stream", "--stream", "--endpoint", bucket.url, *words) == (
        expected
    )
    return bucket.sent


def test_the_command_that_rebuilds_it_says_where_it_came_from(bucket, original, tmp_path):
    """Also once features have been added; that of a cache from files says nothing of a bucket."""
    more = ["--max-recordings", "2", "--dtype", "float16"]
    made(original, tmp_path / "files", *more)
    streamed = ["--stream", "--endpoint", bucket.url]
    made(original, tmp_path / "stream", *streamed, *more)
    assert "--stream" not in rebuild(Cache(cache_path(tmp_path / "files", 1, "R1")))
    path = cache_path(tmp_path / "stream", 1, "R1")
    if files.noted(path, "stream") is None:
        pytest.skip("this file system keeps no notes with files")
    assert features.add(path)
    command = rebuild(Cache(path))
    assert f"--stream --endpoint {bucket.url} --max-recordings 2 --force" in command
    path.rename(path.with_name(path.name.replace("_R1_", "_R3_")))  # as one of another release
    with pytest.raises(UserError, match="build it with: .* --release R1 .*--stream --endpoint"):
        find_caches(tmp_path / "stream", 1, ["R1"])
    _, script, *words = shlex.split(command.replace(" --release R3", " --release R1"))
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert done.returncode == 0 and "fetched" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--margin", "0.25", "--dtype", "float16"],
        ["--margin", "10"],
        ["--max-recordings", "3"],
        ["--reference", "average"],
        ["--challenge", "2"],
        ["--challenge", "2", "--tasks", "all", "--margin", "1"],
    ],
    ids=" ".join,
)
def test_the_bytes_of_the_cache_from_files(bucket, original, tmp_path, words):
    both(bucket, original, tmp_path, *words)


@pytest.mark.parametrize("record, seconds", [(50, "0.5"), (400, "4"), (70, "0.7")])
def test_records_of_other_lengths(s3, original, tmp_path, record, seconds):
    digital = np.random.default_rng(0).integers(-9999, 9999, (129, 4000 // record * record))
    data = bdf_bytes(digital, record=record, seconds=seconds)
    write_recording(original, "NDARAA001AAA", trial_events(), data)
    s3.put_folder(original, PREFIX)
    both(s3, original, tmp_path)


def test_recordings_that_cannot_be_used(s3, original, tmp_path):
    """They are skipped with the reasons that the files give."""
    good = next(original.rglob("sub-NDARAA*run-1*.bdf")).read_bytes()
    for name, events, data in [
        ("NDARXA", trial_events(), good[:-1000]),
        ("NDARXB", trial_events(), good + b"more"),
        ("NDARXC", trial_events(), b""),
        ("NDARXD", trial_events(), good[:300]),
        ("NDARXE", trial_events(), b"x" * 70_000),
        ("NDARXF", "", good),
        ("NDARXG", None, good),
        ("NDARXH", trial_events(), good[:252] + b"9999" + good[256:]),
        ("NDARXI", trial_events(), good[:236] + b"-1      " + good[244:]),
        ("NDARXJ", trial_events(), bdf_bytes(np.zeros((6, 4000)))),
    ]:
        write_recording(original, name, events, data)
    s3.put_folder(original, PREFIX)
    both(s3, original, tmp_path)
    both(s3, original, tmp_path / "2", "--challenge", "2")


def test_a_header_that_is_longer_than_a_head(s3, original, tmp_path):
    names = [f"E{i}" for i in range(1, 129)] + ["Cz"] + [f"X{i}" for i in range(271)]
    digital = np.random.default_rng(0).integers(-9999, 9999, (400, 4000))
    write_recording(original, "NDARAA001AAA", trial_events(), bdf_bytes(digital, names))
    s3.put_folder(original, PREFIX)
    both(s3, original, tmp_path)


def test_a_recording_at_another_rate_comes_whole(s3, original, tmp_path):
    digital = np.random.default_rng(0).integers(-9999, 9999, (129, 8000))
    write_recording(original, "NDARAA001AAA", trial_events(), bdf_bytes(digital, record=200))
    s3.put_folder(original, PREFIX)
    both(s3, original, tmp_path)


def test_eeglab_originals_come_whole(tmp_path):
    """A .set has no parts: it is fetched, filtered and cut as from files."""
    folder = tmp_path / "data" / "ds005505"
    write_release(folder, subjects=2)
    said, expected = made(folder, tmp_path / "files")
    with S3(bucket="openneuro.org") as s3:
        s3.put_folder(folder, "ds005505/")
        words = "--stream", "--source", "openneuro", "--endpoint", s3.url
        again, found = made(folder, tmp_path / "stream", *words)
        everything = sum(len(one.body) for one in s3.objects.values())
        assert 0.99 * everything < s3.sent <= everything
        s3.shutdown()
    assert found == expected and "filtered  2 recordings" in said and "filtered  2" in again


def test_no_room_for_files_that_come_whole(s3, original, tmp_path, monkeypatch):
    s3.put_folder(original, PREFIX)
    choice = choose(list_objects(Server(BUCKET, s3.url, Patience()), PREFIX)[0], [CONTRAST_TASK])
    stream = Stream(Server(BUCKET, s3.url, Patience()), choice, tmp_path / "work", "R1_L100_bdf")
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=99))
    with pytest.raises(UserError, match="no room for .*work: it takes .* more than .*--cache DIR"):
        stream.prepare(1)


def test_what_is_fetched(s3, original, tmp_path):
    """Trials every 9.4 s, as in reality: a third of the records hold windows."""
    for path in original.rglob("*run-*"):
        path.unlink()
    lines = trial_events(30).splitlines()
    moved = [lines[0]]
    for text in lines[1:]:
        onset, *rest = text.split("\t")
        trial, inside = divmod(max(0.0, float(onset) - 2), 5.2)
        moved.append("\t".join([f"{2 + 9.4 * trial + inside:.3f}", *rest]))
    for i in range(2):
        write_recording(original, f"NDARL{i}", "\n".join(moved) + "\n", seconds=290, seed=i)
    s3.put_folder(original, PREFIX)
    sent = both(s3, original, tmp_path)
    total = sum(len(one.body) for one in s3.objects.values())
    assert 0.25 * total < sent < 0.35 * total
    ranges = [wanted for _, key, wanted in s3.asked if key.endswith("run-1_eeg.bdf")]
    assert None not in ranges and len(ranges) == 2 * 31


def test_every_request_fails_now_and_then(bucket, original, tmp_path):
    draw = random.Random(0)
    kinds = [faults.busy(), faults.busy(429, Retry_After="0"), faults.cut(500), faults.cut(0)]
    kinds += [faults.busy(500), faults.hang_inside(100, 2), faults.hang(2)]
    for key in bucket.objects:
        bucket.spoil(key, *draw.choices(kinds, k=2))
    words = "--stream", "--endpoint", bucket.url, "--timeout", "0.4", "--connections", "16"
    expected = made(original, tmp_path / "files")
    assert made(original, tmp_path / "stream", *words) == expected


def test_the_second_call_is_up_to_date(bucket, original, tmp_path):
    def said(*words):
        command = line(original, tmp_path / "c", "--stream", "--endpoint", bucket.url, *words)
        return subprocess.run(command, capture_output=True, text=True).stdout

    assert "24 windows of 3 subjects" in said()
    assert "is up to date: 24 windows" in said()
    name = CONTRAST.format("NDARAA001AAA") + "events.tsv"
    bucket.put(name, trial_events(5).encode(), modified=time.time())
    assert "rebuilt   files of the release have changed" in said()


def test_an_object_that_changes_while_the_cache_is_built(bucket, original, tmp_path):
    name = CONTRAST.format("NDARBB002BBB") + "eeg.bdf"
    other = next(original.rglob("sub-NDARCC*run-1*.bdf")).read_bytes()
    bucket.spoil(name, honest, faults.change(other))
    words = "--stream", "--endpoint", bucket.url
    said, _ = made(original, tmp_path / "c", *words, code=1)
    assert "eeg.bdf has changed in the bucket while the cache was built; start again with" in said
    next(original.rglob("sub-NDARBB*run-1*.bdf")).write_bytes(other)
    assert made(original, tmp_path / "c", *words) == made(original, tmp_path / "files")


def test_a_server_without_ranges(bucket, original, tmp_path):
    name = CONTRAST.format("NDARBB002BBB") + "eeg.bdf"
    bucket.spoil(name, faults.no_ranges)
    said, _ = made(original, tmp_path, "--stream", "--endpoint", bucket.url, code=1)
    assert "sends files only whole: leave out --stream" in said


def test_what_was_interrupted_continues(bucket, original, tmp_path):
    name = CONTRAST.format("NDARBB002BBB") + "eeg.bdf"
    bucket.spoil(name, honest, *[faults.hang(9)] * 9)
    words = "--stream", "--endpoint", bucket.url
    cache = tmp_path / "c"
    said, _ = made(original, cache, *words, "--time-limit", "0.05", "--timeout", "0.5", code=1)
    assert "time limit of 3 s was reached; what has come is kept, continue with: " in said
    before, bucket.sent = bucket.sent, 0
    bucket.faults.clear()
    assert made(original, cache, *words) == made(original, tmp_path / "files")
    assert bucket.sent < before / 3


def test_ctrl_c_does_not_wait_for_the_server(bucket, original, tmp_path):
    name = CONTRAST.format("NDARBB002BBB") + "eeg.bdf"
    words = "--stream", "--endpoint", bucket.url
    for spoilt in ([faults.hang(30)], [honest, faults.hang_inside(99, 30)]):
        bucket.faults.clear()
        bucket.asked.clear()
        bucket.spoil(name, *spoilt)
        asked = lambda: [key for _, key, _ in bucket.asked].count(name) == len(spoilt)
        cache = tmp_path / str(len(spoilt))
        with Child(line(original, cache, *words), tmp_path / "said") as child:
            child.wait_until(asked)
            time.sleep(0.2)
            start = time.monotonic()
            child.send_signal(signal.SIGINT)
            assert child.wait(20) == 130
            assert time.monotonic() - start < 5
        assert list(cache.glob("*.h5")) == [] and "stopped" in child.printed()


def test_it_is_killed_again_and_again(original, tmp_path):
    draw = random.Random(2)
    for i in range(12):
        write_recording(original, f"NDARK{i:02}", trial_events(), seed=i)
    expected = made(original, tmp_path / "files")
    with S3(page=30) as s3:
        s3.put_folder(original, PREFIX)
        words = "--stream", "--endpoint", s3.url, "--connections", "3"
        cache, kills, path = tmp_path / "c", 0, tmp_path / "c" / "challenge1_R1_windows.h5"
        for attempt in range(40):
            for key in draw.choices(list(s3.objects), k=5):
                s3.spoil(key, faults.cut(draw.randint(0, 50_000)))
            with Child(line(original, cache, *words), tmp_path / "said") as child:
                kill_later(child, s3, 0.1 * attempt)
                killed = child.wait() != 0
            kills += killed
            if not killed:
                break
            assert not path.exists() or path.read_bytes() == expected[1]
        assert kills >= 3
        assert path.read_bytes() == expected[1] and list(cache.iterdir()) == [path]
        assert s3.sent < 1.5 * sum(len(one.body) for one in s3.objects.values())
        s3.shutdown()


def test_notes_that_end_in_the_middle(bucket, original, tmp_path):
    """Lines that were cut are read as nothing; files that are missing come again."""
    name = CONTRAST.format("NDARBB002BBB") + "eeg.bdf"
    bucket.spoil(name, honest, *[lambda *_: faults.error(403, "AccessDenied")] * 3)
    cache, words = tmp_path / "c", ("--stream", "--endpoint", bucket.url)
    made(original, cache, *words, code=1)
    work = cache / "challenge1_R1_windows.h5.stream"
    notes = (work / "fetched.jsonl").read_text()
    assert all(json.loads(text)["etag"] for text in notes.split("\n") if text)
    (work / "fetched.jsonl").write_text(notes + '{"path": "x')
    next(work.rglob("sub-NDARAA*run-1*.bdf")).unlink()
    bucket.faults.clear()
    assert made(original, cache, *words) == made(original, tmp_path / "files")


@pytest.mark.parametrize("words", [["--endpoint", "http://h"], ["--connections", "9"]])
def test_arguments_that_go_with_stream(original, tmp_path, words):
    said, _ = made(original, tmp_path / "c", *words, code=2)
    assert f"{words[0]} goes with --stream" in said
    plot = "--plot", tmp_path / "x.png", "--stream"
    assert "leave out one" in made(original, tmp_path / "c", *plot, code=2)[0]


def test_ranges():
    draw = random.Random(3)
    inside = lambda ranges: {at for first, last in ranges for at in range(first, last)}
    for _ in range(500):
        some, others = [], []
        for ranges in (some, others):
            for _ in range(draw.randint(0, 4)):
                first = draw.randint(0, 30)
                ranges.append((first, first + draw.randint(1, 9)))
        joined = merged(some)
        assert inside(joined) == inside(some)
        assert all(a[1] < b[0] for a, b in zip(joined, joined[1:]))
        assert inside(without(joined, merged(others))) == inside(some) - inside(others)
        near = merged(some, 3)
        assert inside(near) >= inside(some)
        assert all(b[0] - a[1] > 3 for a, b in zip(near, near[1:]))
