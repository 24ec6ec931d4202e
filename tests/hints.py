"""Commands as a user pastes them out of a message: the scripts called in this process, from the
folder the user is in.
"""

import contextlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

from eeg import UserError, hints
from eeg.machine import device
from eeg.runs import run as runs

SUGGESTED = re.compile(r"(?:: |`)((?:python|rm|chmod) .*?)(?=; |, or |` |\)|$)", re.MULTILINE)


def suggested(text):
    """-> the commands that a message suggests, in its order."""
    return SUGGESTED.findall(text)


class Desk:
    """Where a user types commands. places: --data, --cache and --out, given with each script that
    is called by name.
    """

    def __init__(self, monkeypatch, folder, places):
        self.patch, self.folder, self.places = monkeypatch, Path(folder), places
        monkeypatch.setattr(
            device, "settle_threads", lambda threads: None
        )  # once torch has worked, some of it cannot be changed
        monkeypatch.setattr(device, "keep_freed_memory", lambda: None)
        monkeypatch.chdir(folder)

    def type(self, name, *words):
        """-> (whether it succeeded, all it printed and its error) of run/<name>.py with the user's
        places.
        """
        known = {"data", "cache", *hints.HEEDS[name]}
        own = [word for place in sorted(known) for word in (f"--{place}", self.places[place])]
        return self._call(hints.script(name), [*map(str, words), *own])

    def paste(self, command, *more):
        """The same of a command line out of a message, with more words after it."""
        for part in command.split(" && "):
            program, *words = shlex.split(part)
            if program != "python":
                subprocess.run([program, *words], check=True, cwd=self.folder)
                good, said = True, ""
            else:
                good, said = self._call(words[0], [*words[1:], *map(str, more)])
            if not good:
                break
        return good, said

    def _call(self, script, words):
        spec = importlib.util.spec_from_file_location(Path(script).stem, script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.patch.setattr(sys, "argv", [str(script), *words])
        hints.given.clear()
        runs._say_once.cache_clear()
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                return not module.main(), printed.getvalue()
        except UserError as e:
            return False, f"{printed.getvalue()}error: {e}\n"
        except SystemExit as e:
            return not e.code, printed.getvalue()
