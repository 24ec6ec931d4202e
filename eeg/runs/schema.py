"""What the files of a run hold.

They are checked once, where they are read: who has read one may rely on its keys.

A schema is a Kind, [schema] for a list, or {"key": schema}. A key that ends in "?" may be missing,
"*" stands for all keys. What is not named may be there and hold anything: other versions of eeg
write other things.
"""

import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eeg import UserError, hints


@dataclass(frozen=True)
class Kind:
    words: str  # what is expected, as an error says it
    fits: Callable


def whole(low, high=2**63 - 1):
    words = f"a whole number of at least {low}"
    return Kind(words, lambda value: type(value) is int and low <= value <= high)


def numbers(low=-math.inf, high=math.inf):
    bounds = f" from {low:g} to {high:g}" if low > -math.inf else ""
    finite = lambda value: type(value) in (int, float) and abs(value) < 1e300
    return Kind(f"a number{bounds}", lambda value: finite(value) and low <= value <= high)


def choice(*values):
    known = lambda value: type(value) is type(values[0]) and value in values
    return Kind("one of " + ", ".join(map(str, values)), known)


def or_null(schema):
    return Kind(f"{schema.words}, or null", lambda value: value is None or schema.fits(value))


def list_of(kind, words, least=0):
    fits = lambda value: isinstance(value, list) and all(map(kind.fits, value))
    return Kind(words, lambda value: fits(value) and len(value) >= least)


TEXT = Kind("text", lambda value: type(value) is str)
FLAG = Kind("true or false", lambda value: type(value) is bool)
COUNT = whole(0)
AMOUNT = numbers(0, 1e15)  # bytes, seconds, windows a second
MOMENT = numbers(0, 1e11)  # s, Unix time
FIGURE = Kind("a number or null", lambda value: value is None or type(value) in (int, float))
RELEASE = Kind(
    "a release", lambda value: type(value) is str and re.fullmatch("R[1-9][0-9]?", value)
)
RELEASES = list_of(RELEASE, "a list of releases")
TEXTS = list_of(TEXT, "a list of text")
FOLDERS = list_of(
    Kind("", lambda name: TEXT.fits(name) and re.fullmatch(r"[^./\0][^/\0]*", name)),
    "a list of run folders",
)
SOME_RELEASES = list_of(RELEASE, "a list of releases", least=1)
SOME_SUBJECTS = list_of(TEXT, "a list of subjects", least=1)
FOLD = list_of(whole(1), "a fold's number and how many there are", least=2)

TARGETS = "rt_from_stimulus", "rt_from_trialstart", "correct", "externalizing", "factors"
SIDE = {"releases": SOME_RELEASES, "windows": COUNT, "subjects": SOME_SUBJECTS}

OPTIONS = {  # of run/train.py, as it checks them itself
    "target?": choice(*TARGETS),
    "model?": TEXT,
    "set?": {},
    "augment?": {"*": numbers()},
    "normalize?": choice("channel", "window", "robust", "none"),
    "features?": or_null(choice("none", "file", "layer")),
    "aux?": list_of(choice("age", "sex"), "a list of age, sex"),
    "train?": RELEASES,
    "valid?": RELEASES,
    "mini?": FLAG,
    "cv?": COUNT,
    "fold?": or_null(FOLD),
    "seed?": whole(0, 2**32 - 1),
    "max_recordings?": or_null(whole(1)),
    "max_subjects?": or_null(whole(1)),
    "keep_copies?": FLAG,
    "keep_bad?": FLAG,
    "balance?": FLAG,
    "epochs?": whole(1),
    "batch_size?": whole(1),
    "patience?": whole(1),
    "lr?": numbers(0, 1e9),
    "weight_decay?": numbers(0, 1e9),
    "l1?": numbers(0, 1e9),
    "rho?": numbers(0, 1e9),
    "clip?": numbers(0, 1e9),
    "warmup?": numbers(0, 1e9),
    "ema?": numbers(0, 1),
    "loss?": or_null(TEXT),
    "optimizer?": choice("adamw", "sam"),
    "schedule?": choice("cosine", "onecycle", "plateau", "constant"),
    "amp?": choice("auto", "off", "fp16", "bf16"),
    "cache?": TEXT,
}

EVENT = {"epoch": COUNT, "batch?": COUNT, "kind": TEXT, "text": TEXT}

FILES = {
    "config.json": {
        "challenge": choice(1, 2),
        "target": choice(*TARGETS),
        "name?": TEXT,
        "model?": {"name": TEXT},
        "train?": OPTIONS,
        "command?": TEXTS,
        "plan?": FOLDERS,
        "versions?": {"eeg": TEXT, "*": TEXT},
        "split?": {"train": SIDE, "valid": SIDE},
        "caches?": {"*": TEXT},
        "part?": or_null(whole(1)),
        "input?": {"sfreq": numbers(0, 1e6), "window_samples": whole(1), "channels": TEXTS},
        "device?": TEXT,
        "threads?": whole(1),
        "precision?": choice("fp32", "fp16", "bf16"),
        "loss?": TEXT,
        "simulated?": FLAG,
    },
    "history.json": {
        "epochs": [
            {
                "epoch": COUNT,
                "train?": {"*": FIGURE},
                "valid?": {"*": FIGURE},
                "lr?": numbers(0, 1e9),
            }
        ],
        "events": [EVENT],
    },
    "timing.json": {
        "epochs": [
            {
                "epoch": COUNT,
                "seconds": AMOUNT,
                "windows_per_second?": AMOUNT,
                "memory?": AMOUNT,
                "device?": TEXT,
            }
        ],
        "events": [EVENT | {"when": MOMENT}],
    },
    "state.json": {
        "status?": choice("running", "waiting", "finished", "stopped", "failed"),
        "pid?": whole(1),
        "host?": TEXT,
        "updated?": MOMENT,
        "reason?": TEXT,
        "device?": TEXT,
        "epoch?": COUNT,
        "epochs?": COUNT,
        "batch?": COUNT,
        "batches?": COUNT,
        "best_epoch?": COUNT,
        "best_nrmse?": or_null(numbers()),
        "windows_per_second?": AMOUNT,
        "seconds_left?": AMOUNT,
        "memory?": AMOUNT,
    },
}

STUDY = {  # study.json
    "challenge": choice(1, 2),
    "trials": whole(1),
    "epochs": whole(1),
    "rungs": whole(1),
    "eta": whole(2),
    "seed": COUNT,
    "fixed": TEXTS,
    "space": {},
    "settings": [{}],
    "steps": [list_of(whole(1), "how many trials, to which epoch", least=2)],
}
TRIAL = [
    {"epochs": whole(1), "value": or_null(numbers()), "run": TEXT, "failed": TEXT}
]  # trial_007.json


def problem(value, schema, place=""):
    """The first thing that does not fit the schema, as words for an error, or None."""
    if isinstance(schema, Kind):
        return None if schema.fits(value) else _words(value, place, schema.words)
    if isinstance(schema, list):
        if not isinstance(value, list):
            return _words(value, place, "a list")
        return next(
            filter(
                None, (problem(each, schema[0], f"{place}[{i}]") for i, each in enumerate(value))
            ),
            None,
        )
    if not isinstance(value, dict):
        return _words(value, place, "an object")
    for name, inner in schema.items():
        key = name.removesuffix("?")
        if key == name != "*" and key not in value:
            return f"has no {_join(place, key)}"
        for each in value if key == "*" else [key] if key in value else []:
            if found := problem(value[each], inner, _join(place, each)):
                return found
    return None


def _join(place, key):
    return f"{place}.{key}" if place else key


def _words(value, place, expected):
    shown = json.dumps(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return f"says {place + ': ' if place else ''}{shown}, expected {expected}"


def read(path, default=None, schema=None):
    """The content of a run's file, or of another with its schema.

    -> default where there is no file and a default is given.

    Raises UserError where it is missing, cannot be read, or does not say what such a file says.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        if default is None:
            see = hints.command("monitor")
            raise UserError(
                f"{path.parent} is not a run: it has no {path.name}; see: {see}"
            ) from None
        return default
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} is not JSON ({e}); {_help(path)}") from None
    if found := problem(content, schema or FILES[path.name]):
        raise UserError(f"{path} {found}; {_help(path)}")
    return content


def _help(path):
    if path.name in ("config.json", "study.json"):
        return f"if it cannot be mended, remove the folder: rm -r {shlex.quote(str(path.parent))}"
    return f"if it cannot be mended, remove it: rm {shlex.quote(str(path))}"
