"""What the settings of each network may be, by name, and which a search varies. Imports nothing: a
command checks its arguments with it before torch is there."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """default: as the network's; words: what it takes, as an error says it; tuned: what a search
    draws from, as in a space of run/tune.py, None where it leaves it alone."""

    default: object
    words: str
    fits: Callable
    tuned: dict | None = None


def whole(default, low, high):
    return Setting(
        default,
        f"a whole number from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def odd(default, high=199):
    return Setting(
        default,
        f"an odd number from 1 to {high}",
        lambda value: type(value) is int and 1 <= value <= high and value % 2,
    )


def odds(default, high=199):
    fits = lambda value: (
        isinstance(value, (list, tuple)) and value and all(map(odd(1, high).fits, value))
    )
    return Setting(default, f"a list of odd numbers from 1 to {high}, as [7,15,31]", fits)


def share(default, low, high):
    """From 0 to less than 1; a search draws from low to high."""
    fits = lambda value: type(value) in (int, float) and 0 <= value < 1
    return Setting(default, "a number from 0 to less than 1", fits, {"range": [low, high]})


def number(default, low, high):
    return Setting(
        default,
        f"a number from {low} to {high}",
        lambda value: type(value) in (int, float) and low <= value <= high,
    )


def choice(default, *values):
    return Setting(
        default, " or ".join(values), lambda value: type(value) is str and value in values
    )


def head(default):
    return choice(default, "number", "time")


WIDTH, DEPTH, HEADS = (1, 2048), (1, 12), (1, 64)
CNN = {
    "width": whole(160, *WIDTH),
    "depth": whole(4, *DEPTH),
    "kernels": odds((7, 15, 31, 63)),
    "heads": whole(4, *HEADS),
    "hidden": whole(64, 1, 4096),
    "dropout": share(0.3, 0, 0.6),
}
EEGNEX = {
    "activation": Setting(
        "ELU",
        "a class of torch.nn, which only Python can name",
        lambda value: isinstance(value, type),
    ),
    "depth_multiplier": whole(2, 1, 16),
    "filter_1": whole(8, 1, 256),
    "filter_2": whole(32, 1, 256),
    "drop_prob": share(0.5, 0.2, 0.7),
    "kernel_block_1_2": whole(64, 1, 200),
    "kernel_block_4": whole(16, 1, 200),
    "dilation_block_4": whole(2, 1, 64),
    "avg_pool_block4": whole(4, 2, 50),
    "kernel_block_5": whole(16, 1, 200),
    "dilation_block_5": whole(4, 1, 64),
    "avg_pool_block5": whole(8, 2, 50),
    "max_norm_conv": number(1.0, 0.01, 100),
    "max_norm_linear": number(0.25, 0.01, 100),
}
SETTINGS = {
    "tcn": {
        "head": head("time"),
        "width": whole(160, *WIDTH),
        "depth": whole(4, *DEPTH),
        "kernel": odd(15),
        "dropout": share(0.1, 0, 0.5),
    },
    "eegnex": EEGNEX,
    "unet": {
        "head": head("time"),
        "width": whole(96, *WIDTH),
        "growth": number(1.25, 1, 3),
        "levels": whole(3, 1, 6),
        "kernel": odd(9),
        "dropout": share(0.1, 0, 0.5),
    },
    "cnn": CNN,
    "hybrid": CNN,
    "transformer": {
        "head": head("number"),
        "patch": whole(4, 1, 200),
        "width": whole(128, *WIDTH),
        "depth": whole(2, *DEPTH),
        "heads": whole(4, *HEADS),
        "inner": whole(512, 1, 8192),
        "dropout": share(0.1, 0, 0.5),
    },
    "conformer": {
        "head": head("number"),
        "width": whole(96, *WIDTH),
        "kernel": odd(15),
        "depth": whole(2, *DEPTH),
        "heads": whole(4, *HEADS),
        "inner": whole(192, 1, 8192),
        "dropout": share(0.1, 0, 0.5),
    },
}


def check(name, settings):
    """Raises ValueError for a model that does not exist, a setting that it has not, and a value
    that the setting does not take."""
    if name not in SETTINGS:
        raise ValueError(f"there is no model '{name}'; there are {', '.join(SETTINGS)}")
    known = SETTINGS[name]
    for key, value in settings.items():
        if key not in known:
            raise ValueError(
                f"{key}={_shown(value)}: {name} has no setting '{key}'; it has {', '.join(known)}"
            )
        if not known[key].fits(value):
            raise ValueError(f"{key}={_shown(value)}: {name} takes {known[key].words}")
    values = {key: settings.get(key, setting.default) for key, setting in known.items()}
    for key in ("heads", "kernels"):
        parts = values.get(key, 1)
        parts = parts if isinstance(parts, int) else len(parts)
        if values.get("width", 0) % parts:
            raise ValueError(
                f"width={values['width']}: {name} with {parts} {key} takes a multiple of {parts}"
            )


def _shown(value):
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def tuned(name):
    """{setting: what a search draws from} of a model."""
    return {key: setting.tuned for key, setting in SETTINGS[name].items() if setting.tuned}
