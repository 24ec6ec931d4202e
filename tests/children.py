"""Child processes that a test waits for: until they have done something, and never for ever."""

import subprocess
import time

import pytest


class Child(subprocess.Popen):
    """A process whose output, errors too, goes to a file (`output`), readable while it runs."""

    def __init__(self, command, output, **settings):
        self.output = output
        with open(output, "wb") as file:
            super().__init__(command, stdout=file, stderr=subprocess.STDOUT, **settings)

    def printed(self):
        return self.output.read_text()

    def wait_until(self, true, seconds=120):
        """Wait until true(). Where the process ends before, or the time is up, the test fails and
        shows the output.
        """
        deadline = time.monotonic() + seconds
        while True:
            ended = self.poll() is not None
            if true():
                return
            if ended:
                pytest.fail(
                    f"the child ended with exit code {self.returncode}; it "
                    f"printed:\n{self.printed()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                self.wait()
                pytest.fail(
                    f"after {seconds} s the child was killed; it printed:\n{self.printed()}"
                )
            time.sleep(0.01)
