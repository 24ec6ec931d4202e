"""How long a bucket is tried: attempts, pauses between them, a limit to all of it."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from eeg import UserError

MOST_S, MOST_ASKED_S = 30.0, 300.0  # pauses: our own, and those that a server asks for

Result = TypeVar("Result")


class Transient(Exception):
    """A failure that another attempt may not meet.

    asked_s: the pause that the server asks for. progress: whether the attempt got further than
    those before it. weight: as how many attempts it counts.
    """

    def __init__(
        self, words: str, asked_s: float | None = None, progress: bool = False, weight: int = 1
    ):
        super().__init__(words)
        self.asked_s, self.progress, self.weight = asked_s, progress, weight


class GaveUp(UserError):
    """Attempt after attempt failed: the server, or the way to it, is at fault."""


class TimeIsUp(UserError):
    """The limit for everything was reached."""


class Stopped(Exception):
    """The work was stopped from outside."""


class Patience:
    """Shared by all connections. timeout_s: how long one may be silent. attempts: how often a
    piece of work is tried without getting further. limit_s: the time for everything.
    """

    def __init__(self, timeout_s: float = 20.0, attempts: int = 8, limit_s: float | None = None):
        self.timeout_s, self.attempts, self.limit_s = timeout_s, attempts, limit_s
        self._end = None if limit_s is None else time.monotonic() + limit_s
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    def check(self) -> None:
        """Raise Stopped or TimeIsUp where work must end."""
        if self._stop.is_set():
            raise Stopped
        if self._end is not None and time.monotonic() >= self._end:
            raise TimeIsUp(f"the time limit of {self.limit_s:g} s was reached")

    def pause(self, failures: int, asked_s: float | None) -> None:
        """Wait after so many failures in a row: longer each time, and not in step with others."""
        own = min(MOST_S, 0.5 * 2 ** (failures - 1)) * random.uniform(0.5, 1)
        seconds = max(own, min(asked_s or 0.0, MOST_ASKED_S))
        if self._end is not None:
            seconds = min(seconds, max(0.0, self._end - time.monotonic()))
        self._stop.wait(seconds)

    def attempt(self, work: Callable[[], Result], what: str) -> Result:
        """work(), again where it raises Transient. Raises GaveUp, naming `what`, or TimeIsUp."""
        failures = weight = 0
        while True:
            self.check()
            try:
                return work()
            except Transient as e:
                weight = e.weight + (0 if e.progress else weight)
                failures = 1 if e.progress else failures + 1
                if weight >= self.attempts:
                    tried = f"{failures} attempts in a row" if failures > 1 else "1 attempt"
                    raise GaveUp(f"{what}: {e} ({tried} failed)") from None
                self.check()
                self.pause(failures, e.asked_s)
