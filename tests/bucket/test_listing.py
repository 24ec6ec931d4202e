"""Listings over many pages, and names that must not become files."""

import pytest

from eeg import UserError
from eeg.bucket.listing import list_objects, unsafe
from eeg.bucket.patience import GaveUp
from eeg.bucket.server import Server
from tests.bucket import s3 as faults
from tests.bucket.s3 import BUCKET


def test_all_pages_come_also_where_some_fail(s3, server):
    for i in range(50):
        s3.put(f"a/{i:02d}", b"x" * i)
    s3.put("b/not asked for", b"")
    s3.put("a/folder/", b"")
    broken = lambda handler, status, headers, body: (status, headers, body[: len(body) // 2])
    s3.spoil("", faults.busy(), broken, faults.hang_inside(9, 3))
    server.patience.timeout_s, server.patience.attempts = 0.5, 5  # silence counts twice
    objects, refused = list_objects(server, "a/")
    assert [(one.path, one.size) for one in objects] == [(f"{i:02d}", i) for i in range(50)]
    assert refused == [] and objects[0].modified == 1_600_000_000
    assert len(s3.asked) == 3 + 8


@pytest.mark.parametrize(
    "name, reason",
    [
        ("../x", "leads out"),
        ("b/../../x", "leads out"),
        ("./x", "leads out"),
        ("b/..", "leads out"),
        ("/etc/passwd", "absolute"),
        ("b//x", "absolute"),
        ("b\\..\\x", "characters"),
        ("b\nx", "characters"),
        ("b\x00", "characters"),
        ("b\x7f", "characters"),
        ("b\u202ex", "characters"),
        ("b\udcffx", "characters"),
        ("b" * 256, "too long"),
    ],
)
def test_names_that_are_refused(s3, server, name, reason):
    s3.put(f"a/{name}", b"")
    s3.objects[f"a/{name}"].body = b"spoilt"
    s3.put("a/good name, ü+%20&<>", b"")
    objects, refused = list_objects(server, "a/")
    assert [one.path for one in objects] == ["good name, ü+%20&<>"]
    assert len(refused) == 1 and reason in refused[0] and refused[0].isascii()


def test_a_key_from_elsewhere_is_refused():
    assert "prefix" in unsafe("b/x", "a/")


def test_what_is_no_listing(s3, server):
    html = lambda *_: (200, {}, b"<html></html>")
    s3.spoil("", html)
    with pytest.raises(UserError, match="no S3 server: it answers with <'html'>"):
        list_objects(server, "a/")
    with pytest.raises(UserError, match="nothing lies under a/"):
        list_objects(server, "a/")
    s3.spoil("", *[lambda *_: (200, {}, b"Not Found")] * 9)
    with pytest.raises(GaveUp, match="no XML .4 attempts"):
        list_objects(server, "a/")
    s3.faults.clear()
    s3.put("a/b", b"")
    same = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
    s3.spoil("", lambda *_: (200, {}, same))
    with pytest.raises(UserError, match="does not say how its list continues"):
        list_objects(server, "a/")


def test_no_bucket_and_one_that_is_not_public(s3, server, patience):
    with pytest.raises(UserError, match="there is no .*404 NoSuchBucket"):
        list_objects(Server("other", s3.url, patience), "a/")
    s3.spoil("", lambda *_: faults.error(403, "AccessDenied"))
    with pytest.raises(UserError, match="is not public .the server answers 403 AccessDenied"):
        list_objects(server, "a/")
    s3.spoil("", lambda *_: faults.error(301, "PermanentRedirect", Location="http://b/"))
    with pytest.raises(UserError, match="leads to 'http://b/'"):
        list_objects(server, "a/")


def test_where_aws_has_buckets(patience):
    one = Server("nmdatasets", None, patience)
    assert one.address == "https://nmdatasets.s3.amazonaws.com"
    one._follow({"x-amz-bucket-region": "us-east-2"}, "301")
    assert one.address == "https://nmdatasets.s3.us-east-2.amazonaws.com"
    with pytest.raises(UserError):  # it leads in a circle
        one._follow({"x-amz-bucket-region": "us-east-2"}, "301")
    assert Server("openneuro.org", None, patience).address == (
        "https://s3.amazonaws.com/openneuro.org"
    )
    assert BUCKET in Server(BUCKET, "http://h:1/base/", patience).address
