"""run/download.py: which files come, what a second call does, and that it can be killed."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from eeg.bucket.choice import choose
from eeg.bucket.listing import Object
from tests.bucket import s3 as faults
from tests.bucket.conftest import PREFIX, random_bytes
from tests.bucket.s3 import S3
from tests.children import Child
from tests.conftest import ROOT

SIGNAL = "sub-NDARAA001AAA/eeg/sub-NDARAA001AAA_task-contrastChangeDetection_run-1_eeg.bdf"


def line(s3, data, *words):
    script = str(ROOT / "run" / "download.py")
    place = ["--release", "R1", "--endpoint", s3.url, "--data", str(data)]
    return [sys.executable, script, *place, *map(str, words)]


def download(s3, data, *words, code=0):
    done = subprocess.run(line(s3, data, *words), capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def kill_later(child, s3, seconds):
    """Kill a child so long after its next request, if it has not ended by then."""
    asked = len(s3.asked)
    child.wait_until(lambda: len(s3.asked) > asked)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)


def content(folder):
    """path -> MD5 of the visible files of a folder."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    md5 = lambda path: hashlib.md5(path.read_bytes()).hexdigest()
    return {str(path.relative_to(folder)): md5(path) for path in found}


def test_the_files_of_a_task(bucket, original, tmp_path):
    data = tmp_path / "data"
    bucket.put(PREFIX + "code/not needed.py", b"")
    said = download(bucket, data)
    expected = content(original)
    rest = [path for path in expected if "RestingState" in path]
    assert content(data / "R1_L100_bdf") == {
        path: md5 for path, md5 in expected.items() if path not in rest
    }
    assert "R1: 4 recordings of 3 subjects, 10 files" in said and "fetched   10 files" in said
    said = download(bucket, data, "--tasks", "all")
    assert content(data / "R1_L100_bdf") == expected
    assert "there     10 files" in said and f"fetched   {len(rest)} files" in said


def test_the_first_subjects_of_those_with_the_task(bucket, tmp_path):
    said = download(bucket, tmp_path, "--tasks", "RestingState", "--subjects", "1")
    assert "1 recording of 1 subject" in said
    assert [path.name for path in tmp_path.rglob("sub-*") if path.is_dir()] == ["sub-NDARCC003CCC"]
    assert "it has: RestingState, contrastChangeDetection" in download(
        bucket, tmp_path, "--tasks", "symbolSearch", code=1
    )


def test_a_dry_run_lists_and_fetches_nothing(bucket, tmp_path):
    said = download(bucket, tmp_path / "data", "--dry-run")
    assert SIGNAL in said and "to fetch  10 files" in said and "nothing was fetched" in said
    assert bucket.sent == 0 and not (tmp_path / "data").exists()


def test_a_second_call_fetches_what_is_missing_or_has_changed(bucket, original, tmp_path):
    folder = tmp_path / "R1_L100_bdf"
    download(bucket, tmp_path)
    before = bucket.sent
    assert "there     10 files" in download(bucket, tmp_path) and bucket.sent == before
    (folder / "participants.tsv").unlink()
    bucket.put(PREFIX + SIGNAL, b"another" * 100)
    said = download(bucket, tmp_path)
    assert "there     8 files" in said and "fetched   2 files" in said
    assert bucket.sent == before + 700 + (original / "participants.tsv").stat().st_size
    assert (folder / SIGNAL).read_bytes() == b"another" * 100


def test_files_that_were_spoilt_or_came_otherwise(bucket, original, tmp_path):
    folder = tmp_path / "R1_L100_bdf"
    shutil.copytree(original, folder)  # by another program: verified, not fetched
    assert "there     10 files" in download(bucket, tmp_path) and bucket.sent == 0
    spoilt = bytearray((folder / SIGNAL).read_bytes())
    spoilt[-1] ^= 1
    (folder / SIGNAL).write_bytes(spoilt)  # its time is another: noticed
    said = download(bucket, tmp_path)
    assert f"replaced  1 file with other content than the bucket's, as {SIGNAL}" in said
    assert content(folder)[SIGNAL] == content(original)[SIGNAL]
    kept = (folder / SIGNAL).stat().st_mtime_ns
    (folder / SIGNAL).write_bytes(spoilt)
    os.utime(folder / SIGNAL, ns=(kept, kept))  # its time is the same: --verify notices
    assert "there     10 files" in download(bucket, tmp_path)
    assert "replaced  1 file" in download(bucket, tmp_path, "--verify")
    (folder / ".download.json").write_text("no JSON")
    assert "there     10 files" in download(bucket, tmp_path)
    assert content(folder)[SIGNAL] == content(original)[SIGNAL]


def test_every_request_fails_now_and_then(bucket, original, tmp_path):
    draw = random.Random(0)
    kinds = [faults.busy(), faults.busy(429, Retry_After="0"), faults.cut(500), faults.cut(0)]
    kinds += [faults.flip(0), faults.no_ranges, faults.busy(500), faults.hang_inside(100, 2)]
    for key in bucket.objects:
        bucket.spoil(key, *draw.choices(kinds, k=2))
    download(bucket, tmp_path, "--tasks", "all", "--timeout", "0.4")
    assert content(tmp_path / "R1_L100_bdf") == content(original)


def test_what_cannot_be_fetched_is_named_and_the_rest_comes(bucket, original, tmp_path):
    gone = lambda *_: faults.error(404, "NoSuchKey")
    bucket.spoil(PREFIX + SIGNAL, gone)
    said = download(bucket, tmp_path, code=1)
    assert "1 file could not be fetched: there is no " in said and SIGNAL in said
    assert "fetch the rest with: python" in said
    assert len(content(tmp_path / "R1_L100_bdf")) == 9
    download(bucket, tmp_path)
    assert len(content(tmp_path / "R1_L100_bdf")) == 10


def test_a_server_that_fails_for_good(bucket, tmp_path):
    gone = lambda *_: faults.error(403, "AccessDenied")
    for key in bucket.objects:
        bucket.spoil(key, *[gone] * 3)
    said = download(bucket, tmp_path, code=1)
    assert "10 files in a row could not be fetched; the last: " in said and "not public" in said
    assert list(tmp_path.rglob("*.part")) == [] and content(tmp_path) == {}


def test_the_time_limit(bucket, tmp_path):
    bucket.spoil(PREFIX + SIGNAL, faults.hang_inside(1000, 60))
    start = time.monotonic()
    said = download(bucket, tmp_path, "--time-limit", 0.07, code=1)
    assert re.search("the time limit was reached with .* still to be fetched", said)
    assert time.monotonic() - start < 45
    download(bucket, tmp_path)


@pytest.mark.parametrize("name", ["../../evil.bdf", "/evil.bdf", "sub-A/eeg/..\\evil", "x\nevil"])
@pytest.mark.parametrize("asked", [False, True])
def test_names_that_lead_elsewhere(bucket, original, tmp_path, name, asked):
    """An error where it may be a file that was asked for, after all others have come."""
    if asked:
        name += "/sub-A_task-contrastChangeDetection_eeg.bdf"
    bucket.put(PREFIX + name, b"evil")
    bucket.put(PREFIX + "../evil_task-RestingState_eeg.bdf", b"evil")
    said = download(bucket, tmp_path / "a" / "data", code=int(asked))
    (line,) = (line for line in said.splitlines() if "the bucket has a key that is refused" in line)
    assert line.startswith("error: " if asked else "warning   ") and line.isascii()
    assert "evil" in line and "and 1 more" in line
    assert asked == ("sub-A_task-contrast" in line) == ("no file that was asked for" not in line)
    assert len(content(tmp_path / "a" / "data" / "R1_L100_bdf")) == 10
    assert not list(tmp_path.rglob("*evil*"))


def test_links_out_of_the_folder(bucket, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "data" / "R1_L100_bdf"
    folder.mkdir(parents=True)
    (folder / "sub-NDARAA001AAA").symlink_to(outside)
    said = download(bucket, tmp_path / "data", code=1)
    assert "sub-NDARAA001AAA is a link" in said and list(outside.iterdir()) == []
    (folder / "sub-NDARAA001AAA").unlink()
    (outside / "mine").write_text("mine")
    (folder / "participants.tsv").symlink_to(outside / "mine")
    assert "is a link" in download(bucket, tmp_path / "data", code=1)
    assert (outside / "mine").read_text() == "mine"


def test_no_room(bucket, tmp_path, monkeypatch):
    from eeg import UserError
    from eeg.bucket.download import Download

    objects = [Object("k", "sub-A/eeg/x.bdf", 1 << 60, "", 0)]
    with pytest.raises(UserError, match="no room for .*more than the disk has free.*--data DIR"):
        Download(None, objects, tmp_path).check_room()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")
def test_a_disk_that_fills_up(bucket, original, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", tmp_path]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        (tmp_path / "other").write_bytes(bytes(4_000_000))
        said = download(bucket, tmp_path, code=1)
        assert "there is no room for" in said and "more than the disk has free" in said
        (tmp_path / "other").unlink()

        def fills(handler, *answer):
            (tmp_path / "other").write_bytes(bytes(7_000_000))
            return answer

        bucket.spoil(PREFIX + SIGNAL, fills)
        said = download(bucket, tmp_path, "--connections", "1", code=1)
        assert "there is no room for" in said and "--data DIR" in said
        (tmp_path / "other").unlink()
        download(bucket, tmp_path)
        files = content(tmp_path / "R1_L100_bdf")
        assert files.items() <= content(original).items() and len(files) == 10
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_two_downloads_to_one_folder(bucket, tmp_path):
    bucket.spoil(PREFIX + "participants.tsv", faults.hang_inside(10, 60))
    with subprocess.Popen(line(bucket, tmp_path), stdout=subprocess.DEVNULL) as first:
        while not list(tmp_path.rglob("*.part")):
            time.sleep(0.01)
        said = download(bucket, tmp_path, code=1)
        assert "another process is downloading to " in said
        first.send_signal(signal.SIGINT)
        assert first.wait() == 130


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--release", "R13x"], 2, "not a release"),
        (["--release", "R12"], 1, "no bucket holds R12; the public releases are R1 ... R11"),
        (["--endpoint", "ftp://x"], 2, "not an address like"),
        (["--tasks", "Sleep"], 2, "the tasks are"),
        (["--mini", "--source", "openneuro"], 1, "has no mini releases"),
        (["--source", "openneuro"], 1, "404 NoSuchBucket"),
        (["--mini"], 1, "nothing lies under NeurIPS25/R1_mini_L100_bdf/"),
        (["--time-limit", "0"], 2, "a number above 0"),
    ],
)
def test_mistakes_of_the_user(bucket, tmp_path, words, code, said):
    assert said in download(bucket, tmp_path, *words, code=code)


def test_formats_of_the_originals():
    stem = "sub-A/eeg/sub-A_task-contrastChangeDetection_run-1_eeg."
    names = [stem + end for end in ("set", "fdt", "edf", "json")]
    names += [stem.replace("-A", "-B") + end for end in ("vhdr", "vmrk", "eeg", "fdt")]
    names += ["sub-B/eeg/sub-C_task-contrastChangeDetection_run-1_eeg.bdf"]
    names += ["sub-A/eeg/sub-A_task-contrastChangeDetection_run-1_events.tsv", "README"]
    choice = choose([Object(name, name, 1, "", 0) for name in names], ["contrastChangeDetection"])
    chosen = [one.path.partition("eeg/")[2] for one in choice.objects]
    assert [name.rpartition("_")[2] for name in chosen] == (
        ["eeg.fdt", "eeg.json", "eeg.set", "events.tsv", "eeg.eeg", "eeg.vhdr", "eeg.vmrk"]
    )
    assert choice.recordings == choice.subjects == 2


def test_it_is_killed_again_and_again(tmp_path):
    """200 objects over several pages. Whatever lies under a final name is right at any time."""
    draw = random.Random(1)
    stem = "sub-NDAR{0:03}/eeg/sub-NDAR{0:03}_task-contrastChangeDetection_run-1_"
    with S3(page=30) as s3:
        s3.put(PREFIX + "participants.tsv", b"participant_id\n")
        for i in range(50):
            name = PREFIX + stem.format(i)
            s3.put(name + "eeg.bdf", random_bytes(draw.randint(1, 400_000), i))
            for end in ("events.tsv", "channels.tsv", "eeg.json"):
                s3.put(name + end, name.encode() * draw.randint(1, 9))
        expected = {
            key.removeprefix(PREFIX): hashlib.md5(one.body).hexdigest()
            for key, one in s3.objects.items()
        }
        folder, kills = tmp_path / "R1_L100_bdf", 0
        for attempt in range(40):
            for key in draw.choices(list(s3.objects), k=20):
                s3.spoil(key, faults.cut(draw.randint(0, 100_000)))
            with Child(line(s3, tmp_path), tmp_path / "said") as child:
                kill_later(child, s3, 0.05 * attempt)
                killed = child.wait() != 0
            kills += killed
            there = content(folder) if folder.exists() else {}
            whole = {path: md5 for path, md5 in there.items() if not path.endswith(".part")}
            assert whole.items() <= expected.items()
            if not killed:
                break
        assert kills >= 3 and content(folder) == expected
        assert json.loads((folder / ".download.json").read_text())["files"].keys() == set(expected)
        total = sum(len(one.body) for one in s3.objects.values())
        assert total <= s3.sent < 2 * total
        s3.shutdown()
