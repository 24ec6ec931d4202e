"""A small S3 server that fails as it is told to, in threads of the test's process."""

import base64
import hashlib
import re
import threading
import time
from email.utils import formatdate
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

BUCKET = "nmdatasets"


class Stored:
    """An object. part: it was uploaded in parts of so many bytes."""

    def __init__(self, body, part=None, etag=None, modified=1_600_000_000):
        self.body, self.part, self.modified = body, part, modified
        parts = [body[i : i + part] for i in range(0, len(body), part)] if part else []
        joined = hashlib.md5(b"".join(hashlib.md5(one).digest() for one in parts)).hexdigest()
        whole = f"{joined}-{len(parts)}" if part else hashlib.md5(body).hexdigest()
        self.parts, self.etag = len(parts), etag or whole


class S3(ThreadingHTTPServer):
    """objects: key -> Stored. faults: key, or "" for listings, -> functions that each spoil one
    GET: fault(handler) returns what to do with (status, headers, body), or None once it has
    answered itself. asked: (method, key, Range) of all requests.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, page=7, bucket=BUCKET):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bucket = bucket
        self.objects, self.faults, self.asked, self.page = {}, {}, [], page
        self.sent = 0  # bytes of bodies of objects
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, key, body, **more):
        self.objects[key] = Stored(body, **more)

    def put_folder(self, folder, prefix, **more):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(prefix + str(path.relative_to(folder)), path.read_bytes(), **more)

    def spoil(self, key, *faults):
        """The next requests of this key fail, one after the other."""
        self.faults.setdefault(key, []).extend(faults)

    def handle_error(self, *_):  # a client that went away
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        bucket, _, self.key = unquote(parts.path).lstrip("/").partition("/")
        wanted = self.headers["Range"]
        with self.server.lock:
            self.server.asked.append((self.command, self.key, wanted))
            waiting = self.server.faults.get(self.key) if self.command == "GET" else None
            fault = waiting.pop(0) if waiting else None
        if bucket != self.server.bucket:
            answer = error(404, "NoSuchBucket")
        elif self.key:
            answer = self.object(wanted)
        else:
            answer = self.listing()
        if fault:
            answer = fault(self, *answer)
        if answer:
            self.reply(*answer)

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            with self.server.lock:
                self.server.sent += len(body) * bool(self.key)

    def object(self, wanted):
        one = self.server.objects.get(self.key)
        if one is None:
            return error(404, "NoSuchKey")
        if self.headers["If-Match"] not in (None, f'"{one.etag}"'):
            return error(412, "PreconditionFailed")
        modified = formatdate(one.modified, usegmt=True)
        headers = {"ETag": f'"{one.etag}"', "Last-Modified": modified, "Accept-Ranges": "bytes"}
        if "partNumber" in self.query and one.part:
            return 206, headers | {"x-amz-mp-parts-count": str(one.parts)}, one.body[: one.part]
        if not wanted:
            return 200, headers, one.body
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
        first, size = int(first), len(one.body)
        last = min(int(last or size), size - 1)
        if first >= size:
            return error(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return 206, headers, one.body[first : last + 1]

    def listing(self):
        prefix, after = self.query["prefix"], self.query.get("continuation-token", "")
        after = base64.b64decode(after).decode(errors="surrogateescape")
        keys = sorted(key for key in self.server.objects if key.startswith(prefix) and key > after)
        page = keys[: self.server.page]
        more = len(keys) > len(page)
        text = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        text += f"<IsTruncated>{str(more).lower()}</IsTruncated><EncodingType>url</EncodingType>"
        if more:
            token = base64.b64encode(page[-1].encode(errors="surrogateescape")).decode()
            text += f"<NextContinuationToken>{token}</NextContinuationToken>"
        for key in page:
            one = self.server.objects[key]
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(one.modified))
            text += (
                f"<Contents><Key>{quote(key, errors='surrogateescape')}</Key>"
                f"<LastModified>{when}</LastModified><ETag>&quot;{one.etag}&quot;</ETag>"
                f"<Size>{len(one.body)}</Size></Contents>"
            )
        return 200, {"Content-Type": "application/xml"}, (text + "</ListBucketResult>").encode()


def error(status, code, **headers):
    return status, headers, f"<Error><Code>{code}</Code></Error>".encode()


# faults


def busy(status=503, **headers):
    """Answers "not now"."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, *_: error(status, "SlowDown", **named)


def cut(after):
    """Closes the connection after so many bytes of the body it has promised."""

    def fault(handler, status, headers, body):
        handler.close_connection = True
        handler.reply(status, headers | {"Content-Length": str(len(body))}, body[:after])

    return fault


def short(missing=1):
    """Sends fewer bytes than the object has, and says so."""
    return lambda handler, status, headers, body: (status, headers, body[:-missing])


def flip(at=-1):
    """Sends the object with one wrong byte."""

    def fault(handler, status, headers, body):
        spoilt = bytearray(body)
        spoilt[at] ^= 1
        return status, headers, bytes(spoilt)

    return fault


def hang(seconds=60):
    """Says nothing for so long, and then closes."""

    def fault(handler, *_):
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def hang_inside(after, seconds=60):
    """Sends so many bytes, then nothing more."""

    def fault(handler, status, headers, body):
        handler.reply(status, headers | {"Content-Length": str(len(body))}, body[:after])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def change(body, after=0):
    """The object becomes another one while it is sent: so many bytes of the old one come."""

    def fault(handler, status, headers, old):
        handler.server.put(handler.key, body, modified=1_700_000_000)
        handler.close_connection = True
        handler.reply(status, headers | {"Content-Length": str(len(old))}, old[:after])

    return fault


def no_ranges(handler, *_):
    """A server that knows no ranges sends the whole object."""
    one = handler.server.objects[handler.key]
    return 200, {"ETag": f'"{one.etag}"'}, one.body


class Proxy(ThreadingHTTPServer):
    """Passes plain HTTP on, and refuses tunnels. asked: (URL, Proxy-Authorization) of all."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Passing)
        self.asked = []
        self.place = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        self.send_error(407, "Proxy Authentication Required")

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Proxy-Authorization"]))
        parts = urlsplit(self.path)
        onward = HTTPConnection(parts.netloc)
        headers = {name: text for name, text in self.headers.items() if name[:5] != "Proxy"}
        onward.request("GET", self.path.partition(parts.netloc)[2], headers=headers)
        answer = onward.getresponse()
        self.send_response(answer.status)
        for name, text in answer.getheaders():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(answer.read())
        onward.close()
