"""An option of a command, said once: its default, its help, its argument, whether config.json keeps
it, what a search draws. eeg/train/options.py declares those of a run.
"""

import argparse
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from eeg import cli


class each(NamedTuple):
    """The values of the two challenges, where they differ."""

    one: Any
    two: Any


def assignment(text: str) -> tuple[str, Any]:
    """argparse type: NAME=VALUE -> (name, value). The value is read as JSON if it is JSON."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@dataclass(frozen=True)
class About:
    """What is known of one option. group, words, argument: as --help and argparse need them."""

    defaults: each
    words: str  # its help; without it run/train.py has no such argument, or adds it by itself
    group: str
    argument: dict
    usual: str = ""  # the default in words, where its value does not say it
    kept: bool = True  # in config.json
    shared: bool = False  # by all trials of a search
    searched: each = each((), ())  # what a search draws from

    def help(self, *instead) -> str:
        """instead: the default of a command that has another one."""
        usual = self.usual
        if not usual and self.argument.get("action") != "store_true":
            one, two = map(_shown, instead * 2 or self.defaults)
            usual = one if one == two else f"{one}; challenge 2: {two}"
        return f"{self.words} (default: {usual})" if usual else self.words


def option(default: Any, words: str = "", group: str = "training", **more):
    """A field of Options. more: further fields of About; the others are argparse's."""
    defaults = default if isinstance(default, each) else each(default, default)
    names = ("usual", "kept", "shared", "searched")
    known = {name: more.pop(name) for name in names if name in more}
    about = About(defaults, words, group, more, **known)
    return field(default=None, metadata={"about": about})


def flag(words: str):
    return option(False, words, "data", shared=True, action="store_true")


def count(default: Any, words: str, group: str = "training", **more):
    return option(default, words, group, type=cli.positive, metavar="N", **more)


def limit(words: str):
    return count(None, words, "data", usual="all", shared=True)


def amount(default: Any, words: str, group: str = "training", **more):
    """A number of at least 0, unless `type` says otherwise."""
    return option(default, words, group, **{"type": cli.at_least_0, "metavar": "X"} | more)


def choice(choices: str, words: str, group: str = "training", **more):
    """One of some words, by default the first."""
    return option(choices.split()[0], words, group, choices=tuple(choices.split()), **more)


def pairs(default: Any, words: str, group: str, nargs: str):
    return option(default, words, group, nargs=nargs, type=assignment, metavar="NAME=VALUE")


def releases(words: str, usual: str, **more):
    several = {"nargs": "+", "type": cli.release, "metavar": "R"}
    return option(None, words, "data", usual=usual, **several, **more)


def _shown(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, dict):
        return " ".join(f"{name}={part}" for name, part in value.items())
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
