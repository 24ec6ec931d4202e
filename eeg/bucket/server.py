"""Requests to one bucket, by anonymous HTTP: one connection a thread, kept open.

Answers that say "not now" become Transient; those that no repetition helps become UserError.
"""

import email.utils
import http.client
import os
import socket
import ssl
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree

import eeg
from eeg import UserError
from eeg.bucket.patience import Patience, Transient

MOST_ERROR_BYTES = 1 << 16  # of the document that explains an error


class Changed(Exception):
    """The object is no longer the one that was listed."""


class Missing(UserError):
    """There is no such bucket or object."""


class Answer:
    """A response whose body is still to be read."""

    def __init__(self, response: http.client.HTTPResponse, drop, count):
        self._response, self._drop, self._count = response, drop, count
        self.status, self.headers = response.status, response.headers

    @property
    def length(self) -> int | None:
        """Bytes of the body that are still to come, None where the server does not say."""
        return self._response.length

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer from the body; 0 at its end. Raises Transient where the line breaks."""
        try:
            got = self._response.readinto(buffer)
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise _transient(e) from None
        self._count(got)
        return got

    def read(self, most: int) -> bytes:
        """The rest of the body. Raises Transient where it is longer than `most`, or breaks off."""
        try:
            body = self._response.read(most + 1)
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise _transient(e) from None
        self._count(len(body))
        if len(body) > most:
            raise Transient(f"the server sends more than {most:,} bytes")
        if self._response.length:
            raise Transient("the answer breaks off")
        return body

    def close(self) -> None:
        """Free the connection: kept where the body was read to its end, else closed."""
        if not self._response.isclosed() and self._response.length != 0:
            self._drop()
        self._response.close()


class Server:
    """A bucket of AWS, or with an endpoint (http://host:port/path) that of another server."""

    def __init__(self, bucket: str, endpoint: str | None, patience: Patience):
        self.bucket, self.patience = bucket, patience
        self._own = threading.local()
        self._sockets: dict[int, socket.socket] = {}  # of each thread, to interrupt it
        self._received: dict[int, int] = {}  # bytes of bodies, by thread
        self.aws = endpoint is None
        if endpoint is None:
            self._at_aws("s3.amazonaws.com")
        else:
            parts = urlsplit(endpoint)
            self._secure, self._host = parts.scheme == "https", parts.netloc
            self._base = f"{parts.path.rstrip('/')}/{bucket}"

    def _at_aws(self, host):
        self._secure = True
        if "." in self.bucket:  # the certificate of *.s3.amazonaws.com does not cover it
            self._host, self._base = host, f"/{self.bucket}"
        else:
            self._host, self._base = f"{self.bucket}.{host}", ""

    @property
    def address(self) -> str:
        """The bucket in messages."""
        return f"{'https' if self._secure else 'http'}://{self._host}{self._base}"

    @cached_property
    def _context(self):
        return ssl.create_default_context()

    @property
    def received(self) -> int:
        """Bytes of bodies that have come so far."""
        return sum(list(self._received.values()))

    def _count(self, size):
        own = threading.get_ident()
        self._received[own] = self._received.get(own, 0) + size

    def close(self) -> None:
        """Interrupt whoever reads from a connection."""
        for sock in list(self._sockets.values()):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                continue

    def ask(
        self,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> Answer:
        """One request. The caller closes the Answer. Raises Transient, Changed, UserError."""
        path = f"{self._base}/{quote(key, safe='/~')}" + (f"?{urlencode(query)}" if query else "")
        sent = {"User-Agent": f"eeg/{eeg.__version__}", "Accept-Encoding": "identity"}
        sent |= dict(headers or {})
        for again in (False, True):
            kept, connection = self._connection()
            begin, more = self._own.way
            try:
                connection.request(method, begin + path, headers=sent | more)
                self._sockets[threading.get_ident()] = connection.sock
                response = connection.getresponse()
            except ssl.SSLCertVerificationError as e:
                self._drop()
                raise UserError(f"{self.address} has no valid certificate ({e.reason})") from None
            except (OSError, http.client.HTTPException, ValueError) as e:
                self._drop()
                silent = isinstance(e, TimeoutError)
                if not kept or silent or again:  # a kept one may have been closed meanwhile
                    raise _transient(e, self._own.proxy) from None
            else:
                return self._checked(response, key)
        raise AssertionError("a second attempt returns or raises")

    def _connection(self):
        """(whether it has been used before, the connection of this thread)."""
        connection = getattr(self._own, "connection", None)
        if connection is not None and connection.sock is not None:
            return True, connection
        secure, host = self._secure, self._host
        proxy = _find_proxy("https" if secure else "http", host)
        first, timeout_s = proxy.place if proxy else host, self.patience.timeout_s
        if secure:
            connection = http.client.HTTPSConnection(
                first, timeout=timeout_s, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(first, timeout=timeout_s)
        self._own.way = "", {}  # what a request's path begins with, and headers beside ours
        if proxy and secure:
            connection.set_tunnel(host, headers=proxy.headers)
        elif proxy:
            self._own.way = f"http://{host}", proxy.headers
        self._own.connection, self._own.proxy = connection, proxy
        return False, connection

    def _drop(self):
        """Close this thread's connection."""
        connection = getattr(self._own, "connection", None)
        self._own.connection = None
        if connection is not None:
            connection.close()

    def _checked(self, response, key):
        """The Answer to a request that succeeded."""
        answer = Answer(response, self._drop, self._count)
        status, headers = response.status, response.headers
        if status in (200, 206):
            return answer
        code = self._error_code(answer)
        where, said = f"{self.address}/{key}", f"the server answers {status} {code}".rstrip()
        if status == 412:
            raise Changed
        if status == 404:
            raise Missing(f"there is no {where} ({said})")
        if status in (401, 403):
            raise UserError(f"{where} is not public ({said})")
        if 300 <= status < 400:
            self._follow(headers, said)
            raise Transient(f"{said}", progress=True)
        if status in (408, 416, 425, 429) or status >= 500 or code == "RequestTimeout":
            raise Transient(said, _asked_pause(headers.get("Retry-After")))
        raise UserError(f"{where} cannot be read ({said})")

    def _error_code(self, answer):
        """The code in S3's document that explains an error, "" where there is none."""
        try:
            body = answer.read(MOST_ERROR_BYTES)
            found = ElementTree.fromstring(body).findtext("{*}Code") if body else None
        except (Transient, ElementTree.ParseError):
            found = None
        answer.close()
        return "".join(c for c in found or "" if c.isalnum())[:40]

    def _follow(self, headers, said):
        """Go to the region that a bucket of AWS lies in."""
        region = headers.get("x-amz-bucket-region", "")
        host = f"s3.{region}.amazonaws.com"
        if not self.aws or not region.replace("-", "").isalnum() or host in self._host:
            target = headers.get("Location") or "nowhere"
            raise UserError(f"{self.address} leads to {ascii(target)} ({said})")
        self._at_aws(host)
        self._drop()


@dataclass(frozen=True)
class _Proxy:
    place: str  # host:port
    headers: dict[str, str]  # with the user's name and password, where it asks for them


def _find_proxy(scheme, host):
    """The _Proxy that the environment (https_proxy, no_proxy) names for a host, None without."""
    text = urllib.request.getproxies().get(scheme)
    if not text or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        place = f"{parts.hostname}:{parts.port or 80}"
    except ValueError:
        place = ""
    if not parts.hostname or not place:
        example = "http://proxy.example.org:3128"
        raise UserError(f"{scheme}_proxy is no address of a proxy; expected one like {example}")
    if parts.username is None:
        return _Proxy(place, {})
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return _Proxy(place, {"Proxy-Authorization": f"Basic {b64encode(who.encode()).decode()}"})


def _transient(error, proxy=None):
    """What went wrong on the line. Silence has taken its time: it counts as two attempts."""
    through = f", through the proxy {proxy.place}" if proxy else ""
    return Transient(_words(error) + through, weight=2 if isinstance(error, TimeoutError) else 1)


def _words(error):
    """What went wrong on the line."""
    if isinstance(error, TimeoutError):
        return "the server is silent"
    if isinstance(error, socket.gaierror):
        return f"its address cannot be found ({error.strerror})"
    if str(error).startswith("Tunnel connection failed: "):
        return f"the connection is refused ({str(error).partition(': ')[2]})"
    if isinstance(error, OSError):
        number = f" ({os.strerror(error.errno)})" if error.errno and error.errno > 0 else ""
        return f"the connection fails{number}"
    return f"the connection breaks off ({type(error).__name__})"


def _asked_pause(text):
    """Seconds of a Retry-After header, which are a number or a date; None without it."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            return None
