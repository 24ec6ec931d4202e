"""What a bucket holds under a prefix, page by page (ListObjectsV2), and which names are safe."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote
from xml.etree import ElementTree

from eeg import UserError
from eeg.bucket.patience import Transient
from eeg.bucket.server import Server

MOST_PAGE_BYTES = 1 << 25  # a page has at most 1000 keys of 1 kB


@dataclass(frozen=True)
class Object:
    key: str
    path: str  # below the prefix, safe to be made below a folder
    size: int
    etag: str  # without quotation marks
    modified: float  # Unix time


def list_objects(server: Server, prefix: str) -> tuple[list[Object], list[str]]:
    """(the objects under a prefix, what is wrong with the keys that are refused).

    Raises UserError where there is nothing, or what comes is no listing.
    """
    found: dict[str, Object] = {}
    refused: list[str] = []
    for entry in _entries(server, prefix):
        key = entry["Key"]
        if key.endswith("/") and entry["Size"] in ("", "0"):
            continue  # a folder, as some programs mark them
        if trouble := unsafe(key, prefix):
            refused.append(f"{ascii(key)} {trouble}")
            continue
        one = _object(entry, key.removeprefix(prefix))
        found[one.path] = one
    if not found and not refused:
        raise UserError(f"nothing lies under {prefix} in {server.address}")
    return list(found.values()), refused


def unsafe(key: str, prefix: str) -> str | None:
    """Why a key must not become the name of a file, None where it may."""
    if not key.startswith(prefix):
        return "does not lie under the prefix asked for"
    parts = key.removeprefix(prefix).split("/")
    if any(part in ("..", ".") for part in parts):
        return "leads out of its folder"
    if not all(parts):
        return "is an absolute path or has an empty part"
    odd = "" if key.isascii() and key.isprintable() else key  # most keys are not worth a look
    if "\\" in key or any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") for c in odd):
        return "has characters that names do not have"
    if any(len(part.encode()) > 200 for part in parts):
        return "has a part that is too long"
    return None


def _entries(server, prefix) -> Iterator[dict[str, str]]:
    """The entries of all pages: {"Key", "Size", "ETag", "LastModified"}, as text."""
    token, seen = None, set()
    while True:
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        if token:
            query["continuation-token"] = token
        what = f"listing {prefix} in {server.address}"
        page = server.patience.attempt(lambda: _page(server, query), what)
        encoded = page.findtext("{*}EncodingType") == "url"
        for content in page.findall("{*}Contents"):
            names = ("Key", "Size", "ETag", "LastModified")
            entry = {name: content.findtext(f"{{*}}{name}") or "" for name in names}
            if encoded:
                entry["Key"] = _decoded(entry["Key"])
            yield entry
        if page.findtext("{*}IsTruncated") != "true":
            return
        token = page.findtext("{*}NextContinuationToken")
        if not token or token in seen:
            raise UserError(f"{what}: the server does not say how its list continues")
        seen.add(token)


def _page(server, query):
    answer = server.ask(query=query)
    try:
        page = ElementTree.fromstring(answer.read(MOST_PAGE_BYTES))
    except ElementTree.ParseError:
        raise Transient("what comes is no XML") from None
    finally:
        answer.close()
    if page.tag.rpartition("}")[2] == "ListBucketResult":
        return page
    if page.tag.rpartition("}")[2] == "Error":  # S3 may find out after it has answered 200
        raise Transient("the server answers with an error")
    raise UserError(f"{server.address} is no S3 server: it answers with <{ascii(page.tag)}>")


def _decoded(text):
    """The key of a percent-encoded one; bytes that are no UTF-8 stay visible and are refused."""
    return unquote(text.replace("+", " "), errors="surrogateescape")


def _object(entry, path):
    try:
        size, modified = int(entry["Size"]), parse_time(entry["LastModified"])
    except ValueError:
        raise UserError(
            f"the listing has size {ascii(entry['Size'])} and date {ascii(entry['LastModified'])} "
            f"for {path}; expected a number and a date"
        ) from None
    if size < 0:
        raise UserError(f"the listing has size {size} for {path}")
    return Object(entry["Key"], path, size, entry["ETag"].strip('"'), modified)


def parse_time(text: str) -> float:
    """2026-11-21T22:41:40.000Z as a Unix time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
