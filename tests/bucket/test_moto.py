"""Against moto's S3 server, where it is (`make peers`): 200 objects, several pages, kills."""

import os
import random
import subprocess
import sys
import urllib.request
from types import SimpleNamespace

import pytest

from tests.bucket.conftest import PREFIX, random_bytes
from tests.bucket.test_download import content, download, line
from tests.children import Child
from tests.conftest import ROOT, trial_events, write_recording

MOTO = ROOT / "build" / "moto" / "bin" / "python"


@pytest.fixture
def moto(tmp_path):
    """A folder's server: moto(folder) -> an object with its url."""
    if not MOTO.exists():
        pytest.skip("no moto in build/moto; `make peers` installs it")
    running = []

    def start(folder):
        script = ROOT / "tests" / "bucket" / "moto_server.py"
        pages = os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": "30"}
        command = [str(MOTO), str(script), str(folder), PREFIX]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, env=pages, stderr=subprocess.DEVNULL, **pipes))
        for text in running[-1].stdout:
            if text.startswith("http"):
                return SimpleNamespace(url=text.strip())
        pytest.fail("moto's server does not start")

    yield start
    for child in running:
        child.communicate(timeout=60)


def test_200_objects_killed_and_continued(moto, tmp_path):
    draw = random.Random(0)
    folder = tmp_path / "original" / "R1_L100_bdf"
    stem = "sub-NDAR{0:03}/eeg/sub-NDAR{0:03}_task-contrastChangeDetection_run-1_"
    for i in range(50):
        name = folder / stem.format(i)
        name.parent.mkdir(parents=True)
        size = 17_000_000 if i < 2 else draw.randint(1, 900_000)  # these two come in parts
        name.with_name(name.name + "eeg.bdf").write_bytes(random_bytes(size, i))
        for end in ("events.tsv", "channels.tsv", "eeg.json"):
            name.with_name(name.name + end).write_text(end * draw.randint(1, 9))
    expected, server = content(folder), moto(folder)
    assert len(expected) == 200
    first = f"{server.url}/nmdatasets?list-type=2&prefix={PREFIX}"
    assert b"<IsTruncated>true" in urllib.request.urlopen(first).read()
    made = tmp_path / "data" / "R1_L100_bdf"
    for attempt in range(60):
        with Child(line(server, tmp_path / "data"), tmp_path / "said") as child:
            child.wait_until(lambda: made.exists() and len(list(made.rglob("*.*"))) > 3)
            killed = kill_after(child, 0.2 + 0.2 * attempt)
        there = content(made)
        whole = {path: md5 for path, md5 in there.items() if not path.endswith(".part")}
        assert whole.items() <= expected.items()
        if not killed:
            break
    assert attempt >= 1 and content(made) == expected
    assert "there     200 files" in download(server, tmp_path / "data", "--verify")


def kill_after(child, seconds):
    """-> whether the child was killed: it had not ended before."""
    try:
        return child.wait(seconds) != 0
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait() != 0


def test_a_cache_straight_from_the_bucket(moto, original, tmp_path):
    write_recording(original, "NDARDD004DDD", trial_events(40), seconds=240)  # it comes in parts
    server = moto(original)
    base = [sys.executable, ROOT / "run" / "cache.py", "--release", "R1", "--data", original.parent]
    for place, *words in (["files"], ["stream", "--stream", "--endpoint", server.url]):
        subprocess.run([*base, "--cache", tmp_path / place, *words], check=True)
    name = "challenge1_R1_windows.h5"
    assert (tmp_path / "files" / name).read_bytes() == (tmp_path / "stream" / name).read_bytes()
    assert os.listdir(tmp_path / "stream") == [name]
