"""What the files of a run hold, checked once, where they are read: the reader may rely on its keys.

A schema is a Kind, [schema] for a list, or {"key": schema}. A key that ends in "?" may be missing,
"*" stands for all keys. Keys that are not named may hold anything: other versions of eeg write
other things.
"""

import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eeg import UserError, hints
from eeg.models import NORMALS

Schema = Any  # Kind | list[Schema] | dict[str, Schema]


@dataclass(frozen=True)
class Kind:
    words: str  # what is expected, as an error says it
    fits: Callable[[Any], object]


def whole(low: int, high: int = 2**63 - 1) -> Kind:
    words = f"a whole number of at least {low}"
    return Kind(words, lambda value: type(value) is int and low <= value <= high)


def numbers(low: float = -math.inf, high: float = math.inf) -> Kind:
    bounds = f" from {low:g} to {high:g}" if low > -math.inf else ""
    finite = lambda value: type(value) in (int, float) and abs(value) < 1e300
    return Kind(f"a number{bounds}", lambda value: finite(value) and low <= value <= high)


def choice(*values) -> Kind:
    known = lambda value: type(value) is type(values[0]) and value in values
    return Kind("one of " + ", ".join(map(str, values)), known)


def matching(pattern: str, words: str) -> Kind:
    return Kind(words, lambda value: type(value) is str and re.fullmatch(pattern, value))


def or_null(kind: Kind) -> Kind:
    return Kind(f"{kind.words}, or null", lambda value: value is None or kind.fits(value))


def list_of(kind: Kind, words: str, least: int = 0) -> Kind:
    fits = lambda value: isinstance(value, list) and all(map(kind.fits, value))
    return Kind(words, lambda value: fits(value) and len(value) >= least)


def optional(names: str, kind: Kind) -> dict[str, Kind]:
    """The same kind for several keys that may be missing."""
    return {f"{name}?": kind for name in names.split()}


TEXT = Kind("text", lambda value: type(value) is str)
FLAG = Kind("true or false", lambda value: type(value) is bool)
COUNT, POSITIVE = whole(0), whole(1)
AMOUNT = numbers(0, 1e15)  # bytes, seconds, windows a second
MOMENT = numbers(0, 1e11)  # s, Unix time
SETTING = numbers(0, 1e9)
FIGURE = Kind("a number or null", lambda value: value is None or type(value) in (int, float))
TEXTS = list_of(TEXT, "a list of text")
FOLDERS = list_of(matching(r"[^./\0][^/\0]*", ""), "a list of run folders")
RELEASE = matching("R[1-9][0-9]?", "a release")
RELEASES = list_of(RELEASE, "a list of releases")

NORMAL = f"({'|'.join(NORMALS)})"
TARGET = choice(
    *("rt_from_stimulus", "rt_from_trialstart", "correct", "externalizing", "factors", "signal")
)
SIDE = {
    "releases": list_of(RELEASE, "a list of releases", least=1),
    "windows": COUNT,
    "subjects": list_of(TEXT, "a list of subjects", least=1),
}

# Those of eeg/train/options.py that config.json keeps
OPTIONS: dict[str, Schema] = {
    "target?": TARGET,
    "set?": {},
    "augment?": {"*": numbers()},
    "normalize?": matching(NORMAL + rf"(\+{NORMAL})*", f"one of {', '.join(NORMALS)}, joined by +"),
    "blend?": choice("ridge", "none"),
    "features?": or_null(choice("none", "file", "layer")),
    "aux?": list_of(choice("age", "sex"), "a list of age, sex"),
    "cv?": COUNT,
    "fold?": or_null(list_of(POSITIVE, "a fold's number and how many there are", least=2)),
    "seed?": whole(0, 2**32 - 1),
    "ema?": numbers(0, 1),
    "loss?": or_null(TEXT),
    "optimizer?": choice("adamw", "sam"),
    "schedule?": choice("cosine", "onecycle", "plateau", "constant"),
    "align?": choice("none", "spread", "euclidean"),
    "amp?": choice("auto", "off", "fp16", "bf16"),
    "init?": or_null(TEXT),
    "task?": choice("masked", "positioning"),
    "mask?": numbers(0, 1),
    "layer_decay?": numbers(0, 1),
}
OPTIONS |= optional("model cache", TEXT)
OPTIONS |= optional("train valid", RELEASES)
OPTIONS |= optional("mini keep_copies keep_bad balance", FLAG)
OPTIONS |= optional("max_recordings max_subjects", or_null(POSITIVE))
OPTIONS |= optional("epochs batch_size patience members span", POSITIVE)
OPTIONS |= optional("mask_regions freeze lora", COUNT)
OPTIONS |= optional("lr weight_decay l1 coral rho clip warmup near far", SETTING)

EVENT = {"epoch": COUNT, "batch?": COUNT, "kind": TEXT, "text": TEXT}
EPOCH = {"epoch": COUNT, "train?": {"*": FIGURE}, "valid?": {"*": FIGURE}, "lr?": SETTING}
TIME = {"epoch": COUNT, "seconds": AMOUNT, "device?": TEXT}

FILES: dict[str, Schema] = {
    "config.json": {
        "challenge": choice(1, 2),
        "target": TARGET,
        "model?": {"name": TEXT},
        "train?": OPTIONS,
        "command?": TEXTS,
        "plan?": FOLDERS,
        "versions?": {"eeg": TEXT, "*": TEXT},
        "split?": {"train": SIDE, "valid": SIDE},
        "caches?": {"*": TEXT},
        "part?": or_null(POSITIVE),
        "input?": {"sfreq": numbers(0, 1e6), "window_samples": POSITIVE, "channels": TEXTS},
        "threads?": POSITIVE,
        "precision?": choice("fp32", "fp16", "bf16"),
        "simulated?": FLAG,
        "begun?": {"run": TEXT, "sha256": TEXT, "matched": TEXTS, "new": TEXTS, "not_used": TEXTS},
        **optional("name device loss", TEXT),
    },
    "history.json": {"epochs": [EPOCH], "events": [EVENT]},
    "timing.json": {
        "epochs": [TIME | optional("windows_per_second memory", AMOUNT)],
        "events": [EVENT | {"when": MOMENT}],
    },
    "state.json": {
        "status?": choice("running", "waiting", "finished", "stopped", "failed"),
        "pid?": POSITIVE,
        "updated?": MOMENT,
        "best_nrmse?": or_null(numbers()),
        **optional("host reason device", TEXT),
        **optional("epoch epochs batch batches best_epoch", COUNT),
        **optional("windows_per_second seconds_left memory", AMOUNT),
    },
}

STUDY = {  # study.json
    "challenge": choice(1, 2),
    **dict.fromkeys(("trials", "epochs", "rungs"), POSITIVE),
    "eta": whole(2),
    "seed": COUNT,
    "fixed": TEXTS,
    "space": {},
    "settings": [{}],
    "steps": [list_of(POSITIVE, "how many trials, to which epoch", least=2)],
}
TRIAL = [{"epochs": POSITIVE, "value": or_null(numbers()), "run": TEXT, "failed": TEXT}]


def problem(value: Any, schema: Schema, place: str = "") -> str | None:
    """The first thing that does not fit the schema, as words for an error, or None."""
    if isinstance(schema, Kind):
        return None if schema.fits(value) else _words(value, place, schema.words)
    if isinstance(schema, list):
        if not isinstance(value, list):
            return _words(value, place, "a list")
        problems = (problem(each, schema[0], f"{place}[{i}]") for i, each in enumerate(value))
        return next(filter(None, problems), None)
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


def read(path: Path, default: Any = None, schema: Schema = None) -> Any:
    """The content of a run's file, or of another with its schema; `default` where there is no file.

    Raises UserError where it is missing without a default, cannot be read or does not fit.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        if default is None:
            missing = f"{path.parent} is not a run: it has no {path.name}"
            raise UserError(f"{missing}; see: {hints.command('monitor')}") from None
        return default
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} is not JSON ({e}); {_help(path)}") from None
    if found := problem(content, schema or FILES[path.name]):
        raise UserError(f"{path} {found}; {_help(path)}")
    return content


def _help(path):
    remove = f"remove it: rm {shlex.quote(str(path))}"
    if path.name in ("config.json", "study.json"):
        remove = f"remove the folder: rm -r {shlex.quote(str(path.parent))}"
    return f"if it cannot be repaired, {remove}"
