"""One object through every fault: the file is right, or there is none and the reason is said."""

import base64
import hashlib
import os
import threading
import time

import pytest

from eeg import UserError
from eeg.bucket.fetch import fetch, has_content, part_of
from eeg.bucket.listing import Object, list_objects
from eeg.bucket.patience import GaveUp, Patience, TimeIsUp
from eeg.bucket.server import Missing, Server
from tests.bucket import s3 as faults
from tests.bucket.conftest import random_bytes
from tests.bucket.s3 import BUCKET

KEY = "a/file.bdf"
BODY = random_bytes(300_000)


@pytest.fixture
def fetched(s3, server, tmp_path):
    """Stores BODY, spoils requests, fetches. -> what the file then holds; it is watched meanwhile,
    and must never hold anything but an object that was stored.
    """
    folder = tmp_path / "fetched"
    folder.mkdir()
    target = folder / "file.bdf"
    s3.put(KEY, BODY)

    def call(*spoilt, body=BODY, **more):
        if body is not BODY or more:
            s3.put(KEY, body, **more)
        [listed], _ = list_objects(server, "a/")
        s3.spoil(KEY, *spoilt)
        watch = Watch(target)
        counted = []
        try:
            call.object = fetch(server, listed, target, counted.append)
        finally:
            seen = watch.end()
            assert seen <= {hashlib.md5(one).digest() for one in (body, *call.allowed)}
            assert target.exists() or not seen
        content = target.read_bytes()
        assert sum(counted) == len(content) and os.listdir(folder) == ["file.bdf"]
        return content

    call.target, call.allowed = target, []
    return call


class Watch(threading.Thread):
    """Reads a file again and again while a test runs. end() -> the MD5s of what it held."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.seen, self.ended = path, set(), threading.Event()
        self.start()

    def run(self):
        while True:
            last = self.ended.is_set()
            if self.path.exists():
                self.seen.add(hashlib.md5(self.path.read_bytes()).digest())
            if last:
                return
            time.sleep(0.001)

    def end(self):
        self.ended.set()
        self.join()
        return self.seen


def test_an_object(fetched, s3):
    assert fetched() == BODY
    assert fetched.target.stat().st_mtime == 1_600_000_000
    assert s3.sent == len(BODY)


@pytest.mark.parametrize("body", [b"", b"x", random_bytes((1 << 20) + 1)], ids=len)
def test_awkward_sizes(fetched, body):
    assert fetched(body=body) == body


@pytest.mark.parametrize(
    "spoilt",
    [
        [faults.busy()],
        [faults.busy(429, Retry_After="0.1")],
        [faults.busy(500), faults.busy(502), faults.busy(503)],
        [faults.cut(0)],
        [faults.cut(1), faults.cut(1), faults.cut(1), faults.cut(1), faults.cut(1)],
        [faults.cut(299_999)],
        [faults.flip()],
        [faults.flip(0), faults.flip(150_000)],
        [faults.cut(1000), faults.flip(500)],
        [faults.no_ranges],
        [faults.cut(1000), faults.no_ranges],
    ],
)
def test_a_fault_is_outlived(fetched, spoilt):
    assert fetched(*spoilt) == BODY


def test_a_cut_costs_no_byte_twice(fetched, s3):
    assert fetched(faults.cut(100_000), faults.cut(50_000)) == BODY
    ranges = [wanted for method, key, wanted in s3.asked if key == KEY]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"] and s3.sent == len(BODY)


def test_a_server_that_hangs(fetched, s3, server):
    server.patience.attempts = 6
    server.patience.timeout_s = 0.2
    assert fetched(faults.hang(3), faults.hang_inside(1000, 3)) == BODY


def test_a_server_that_always_hangs(s3, tmp_path):
    s3.put(KEY, BODY)
    server = Server(BUCKET, s3.url, Patience(timeout_s=0.1, attempts=4))
    [listed], _ = list_objects(server, "a/")
    s3.spoil(KEY, *[faults.hang(2)] * 9)
    with pytest.raises(GaveUp, match="the server is silent .2 attempts in a row failed"):
        fetch(server, listed, tmp_path / "file.bdf", lambda size: None)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_ends_attempts(s3, tmp_path):
    s3.put(KEY, BODY)
    server = Server(BUCKET, s3.url, Patience(limit_s=0.3))
    [listed], _ = list_objects(server, "a/")
    s3.spoil(KEY, *[faults.busy()] * 99)
    with pytest.raises(TimeIsUp, match="limit of 0.3 s"):
        fetch(server, listed, tmp_path / "file.bdf", lambda size: None)


def test_retry_after_is_heeded(fetched, s3):
    start = time.monotonic()
    assert fetched(faults.busy(503, Retry_After="0.15")) == BODY
    assert time.monotonic() - start > 0.15


def test_a_wrong_checksum_is_never_kept(fetched):
    with pytest.raises(UserError, match="3 times with content that does not fit its checksum"):
        fetched(faults.flip(), faults.flip(5), faults.flip(7), faults.flip(9))
    assert list(fetched.target.parent.iterdir()) == []


def test_a_short_object_is_no_object(fetched, server):
    with pytest.raises(UserError, match="changes while it is fetched"):
        fetched(*[faults.short()] * 9)
    assert list(fetched.target.parent.iterdir()) == []


def test_an_object_that_changes_while_it_comes(fetched):
    other = random_bytes(310_000, 1)
    fetched.allowed = [other]
    assert fetched(faults.change(other, 100_000)) == other
    assert fetched.object.size == 310_000 and fetched.target.stat().st_mtime == 1_700_000_000


def test_an_object_that_goes_away(fetched, s3):
    def removed(handler, *_):
        del s3.objects[KEY]
        return faults.error(404, "NoSuchKey")

    with pytest.raises(Missing, match="there is no .*file.bdf .the server answers 404 NoSuchKey"):
        fetched(removed)
    assert list(fetched.target.parent.iterdir()) == []


def test_what_an_earlier_call_left_is_used(fetched, s3, server):
    [listed], _ = list_objects(server, "a/")
    part_of(fetched.target, listed.etag).write_bytes(BODY[:200_000])
    part_of(fetched.target, "of-an-object-that-was-there").write_bytes(b"old")
    assert fetched() == BODY and s3.sent == 100_000


@pytest.mark.parametrize("left", [BODY[:1000][::-1], BODY + b"more", BODY[::-1]])
def test_what_an_earlier_call_left_is_wrong(fetched, s3, server, left):
    [listed], _ = list_objects(server, "a/")
    part_of(fetched.target, listed.etag).write_bytes(left)
    assert fetched() == BODY


def test_nothing_is_written_through_a_link(fetched, server, tmp_path):
    [listed], _ = list_objects(server, "a/")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    part_of(fetched.target, listed.etag).symlink_to(elsewhere)
    with pytest.raises(OSError):
        fetched()
    assert elsewhere.read_bytes() == b"mine"


MIB = 1 << 20


@pytest.mark.parametrize("part", [5 * MIB, 8 * MIB, 7 * MIB, 7_000_000])
@pytest.mark.parametrize("size", [16 * MIB, 16 * MIB + 1, 16 * MIB - 1])
def test_objects_that_were_uploaded_in_parts(fetched, part, size):
    body = random_bytes(size)
    assert fetched(faults.flip(3), body=body, part=part) == body
    assert "-" in fetched.object.etag


def test_an_etag_that_is_no_checksum(fetched):
    assert fetched(faults.cut(1000), etag="made-by-another-server") == BODY
    assert not has_content(fetched.target, fetched.object)


def test_checksums_that_the_server_sends(fetched):
    import base64

    def sends(name, digest, spoil):
        def fault(handler, status, headers, body):
            text = base64.b64encode(digest(body)).decode()
            return status, headers | {name: text}, spoil(body)

        return fault

    wrong = lambda body: body[:-1] + bytes([body[-1] ^ 1])
    sha256 = lambda body: hashlib.sha256(body).digest()
    crc = lambda body: __import__("zlib").crc32(body).to_bytes(4, "big")
    spoilt = [sends("x-amz-checksum-sha256", sha256, wrong)]
    spoilt += [sends("x-amz-checksum-crc32", crc, wrong), sends("x-amz-checksum-crc32", crc, bytes)]
    assert fetched(*spoilt, etag="no checksum") == BODY


def test_a_system_that_writes_less_than_asked(fetched, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:5000], at))
    assert fetched(faults.cut(100_001)) == BODY


def test_no_server(tmp_path):
    server = Server(BUCKET, "http://127.0.0.1:9", Patience(attempts=1))
    with pytest.raises(GaveUp, match="the connection fails .Connection refused"):
        list_objects(server, "a/")
    one = Object("a/b", "b", 3, "", 0)
    with pytest.raises(GaveUp):
        fetch(server, one, tmp_path / "b", lambda size: None)


def test_through_a_proxy_that_knows_its_users(s3, patience, monkeypatch):
    proxy = faults.Proxy()
    s3.put(KEY, BODY)

    def listed(address, not_for=""):
        """What the proxy was asked for, and as whom, while the bucket was listed."""
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("no_proxy", not_for)
        proxy.asked.clear()
        assert [one.key for one in list_objects(Server(BUCKET, s3.url, patience), "a/")[0]] == [KEY]
        return [(url.partition("?")[0], given) for url, given in proxy.asked]

    url = f"{s3.url}/{BUCKET}/"
    who = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert listed(f"http://me:p%40ss@{proxy.place}") == [(url, who)]
    assert listed(proxy.place) == [(url, None)]  # without http://, as some write it
    assert listed(proxy.place, "127.0.0.1") == []
    proxy.shutdown()


@pytest.mark.parametrize(
    "address, said",
    [
        ("http://{place}", r"refused \(407 Proxy Authentication Required\), through the proxy 127"),
        ("http://127.0.0.1:1", r"Connection refused\), through the proxy 127.0.0.1:1"),
        ("http://:3128", "https_proxy is no address of a proxy; expected one like http"),
        ("http://proxy:port", "https_proxy is no address of a proxy; expected one like http"),
    ],
)
def test_a_proxy_that_does_not_help(patience, monkeypatch, address, said):
    proxy = faults.Proxy()
    monkeypatch.setenv("https_proxy", address.format(place=proxy.place))
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(UserError, match=said):
        list_objects(Server(BUCKET, "https://bucket.example.org", patience), "a/")
    proxy.shutdown()
