"""Networks from windows (batch, electrode, sample) to answers (batch, output).

`build` makes any of them by name. They import nothing of the project but each other, because a
submission ships these files alone. Here is the registry: each network's name and settings, what
these may be, and what a search varies. It imports nothing heavy: a command checks its arguments
with it before torch is there.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

MODELS = {  # name -> module, class, description
    "tcn": ("tcn", "TCN", "temporal convolutions, a score on each moment of the window"),
    "eegnex": ("eegnex", "EEGNeX", "the start kit's network, computed in another order"),
    "unet": ("unet", "UNet", "a U-Net over time, a score on each moment of the window"),
    "cnn": ("cnn", "CNN", "residual convolutions of several lengths, attention over time"),
    "hybrid": ("cnn", "Hybrid", "cnn, joined by neuroscience features"),
    "transformer": (
        "transformer",
        "Transformer",
        "attention between 40 ms tokens, fit for pretraining",
    ),
    "conformer": ("transformer", "Conformer", "convolutions, then attention"),
    "cbramod": ("public.cbramod", "CBraMod", "a published encoder, for its weights (--init FILE)"),
    "luna": ("public.luna", "LUNA", "the same, which knows where electrodes lie"),
    "ridge": ("ridge", "Ridge", "in closed form: features, slow potentials, covariance of bands"),
}

# Published encoders, and how each normalises windows: as when it was trained, and in no other way.
PUBLIC = {"cbramod": "hundreds", "luna": "channel"}

# What becomes of a window's unit, see layers.Normalize.
NORMALS = ("channel", "spread", "window", "robust", "amplitude", "level", "hundreds", "none")


def normals(text: str) -> list[str]:
    """The kinds in "spread+level", of which networks side by side take turns. Raises ValueError for
    one that does not exist."""
    kinds = text.split("+")
    if not set(kinds) <= set(NORMALS):
        known = ", ".join(NORMALS)
        raise ValueError(f"normalize='{text}': it is one of {known}, or several joined by +")
    return kinds


@dataclass(frozen=True)
class Setting:
    """words: what it takes, as an error says it. tuned: what a search draws from, as in a space of
    run/tune.py; None where it leaves the setting alone."""

    default: Any
    words: str
    fits: Callable
    tuned: dict | None = None


def whole(default: int, low: int, high: int) -> Setting:
    fits = lambda value: type(value) is int and low <= value <= high
    return Setting(default, f"a whole number from {low} to {high}", fits)


def odd(default: int, high: int = 199) -> Setting:
    fits = lambda value: type(value) is int and 1 <= value <= high and value % 2
    return Setting(default, f"an odd number from 1 to {high}", fits)


def odds(default: tuple[int, ...], high: int = 199) -> Setting:
    each = odd(1, high).fits
    fits = lambda value: isinstance(value, (list, tuple)) and value and all(map(each, value))
    return Setting(default, f"a list of odd numbers from 1 to {high}, as [7,15,31]", fits)


def share(default: float, low: float, high: float) -> Setting:
    """From 0 to less than 1; a search draws from low to high."""
    fits = lambda value: type(value) in (int, float) and 0 <= value < 1
    return Setting(default, "a number from 0 to less than 1", fits, {"range": [low, high]})


def number(default: float, low: float, high: float) -> Setting:
    fits = lambda value: type(value) in (int, float) and low <= value <= high
    return Setting(default, f"a number from {low} to {high}", fits)


def one_of(default: str, *values: str) -> Setting:
    fits = lambda value: type(value) is str and value in values
    return Setting(default, " or ".join(values), fits)


def kinds(default: str, *values: str) -> Setting:
    """The default, or some of the values."""
    some = lambda value: type(value) is str and set(value.split("+")) <= set(values)
    words = f"some of {', '.join(values)}, joined by +"
    words = words if default in values else f"{default}, or {words}"
    return Setting(default, words, lambda value: value == default or some(value))


def encoder() -> Setting:
    fits = lambda value: value is None or type(value) is dict
    return Setting(None, "an encoder, which --init names", fits)


def electrodes() -> Setting:
    named = lambda value: isinstance(value, (list, tuple)) and all(type(v) is str for v in value)
    words = "a list of names of electrodes, as ['E36', 'Cz']"
    return Setting(None, words, lambda value: value is None or named(value))


def head(default: str) -> Setting:
    return one_of(default, "number", "time")


def activation(default: str) -> Setting:
    words = "a class of torch.nn, which only Python can name"
    return Setting(default, words, lambda value: isinstance(value, type))


# Models that are fitted in closed form: they take no steps, and read amplitudes as they are.
CLOSED_FORM = ("ridge",)

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
    "activation": activation("ELU"),
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
        "dropout": share(0.4, 0, 0.5),
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
    "hybrid": CNN | {"groups": kinds("neuroscience", "neuroscience", "transition")},
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
    "cbramod": {
        "depth": whole(12, 1, 24),
        "pool": one_of("electrodes", "electrodes", "none"),
        "dropout": share(0.1, 0, 0.5),
    },
    "luna": {
        "size": one_of("base", "base", "large", "huge"),
        "channels": electrodes(),
        "dropout": share(0.1, 0, 0.5),
    },
    "ridge": {
        "on": kinds("all", "features", "transition", "potentials", "covariance", "embeddings"),
        "encoder": encoder(),
        "components": whole(12, 1, 64),
        "rank": whole(12, 2, 64),
    },
}


def build(
    name: str,
    n_chans: int = 129,
    n_times: int = 200,
    n_outputs: int = 1,
    normalize: str | None = None,
    aux=(),
    features: str | None = None,
    blend: str = "none",
    members: int = 1,
    **settings,
):
    """-> Model: the input normalisation, the network, and what its numbers mean.

    normalize: a kind of layers.Normalize, or several as in "spread+level", of which the members
    take turns; "channel" by default, "none" for a network that reads amplitudes. aux: names of
    further numbers to learn beside the answer, such as age. features: "none", "file" or "layer",
    for networks that take features. blend: a ridge beside the network (see Model). members: how
    many networks answer, in the mean. The other settings are the network's own, see SETTINGS.
    Raises ValueError for a name or setting that does not exist, and for a value that a setting does
    not take.
    """
    from .model import Model

    shape = n_chans, n_times, n_outputs
    return Model(
        name, network(name), shape, normalize, tuple(aux), features, settings, blend, members
    )


def network(name: str):
    """The class of a model's network. Raises ValueError for a name that does not exist."""
    if name not in MODELS:
        raise ValueError(f"there is no model '{name}'; there are {', '.join(MODELS)}")
    module, cls, _ = MODELS[name]
    return getattr(importlib.import_module(f".{module}", __name__), cls)


def fold(model):
    """A copy for inference alone, equal to the model up to rounding: normalisations and chains of
    linear layers become constants, computed once.
    """
    from .model import folded

    return folded(model)


def check(name: str, settings: dict) -> dict:
    """-> all settings of a model, with defaults for those not given. Raises ValueError for a model
    or a setting that does not exist, and for a value that the setting does not take."""
    if name not in SETTINGS:
        raise ValueError(f"there is no model '{name}'; there are {', '.join(SETTINGS)}")
    known = SETTINGS[name]
    for key, value in settings.items():
        if key not in known:
            has = ", ".join(known)
            raise ValueError(f"{key}={_shown(value)}: {name} has no setting '{key}'; it has {has}")
        if not known[key].fits(value):
            raise ValueError(f"{key}={_shown(value)}: {name} takes {known[key].words}")
    values = {key: setting.default for key, setting in known.items()} | settings
    for key in ("heads", "kernels"):
        parts = values.get(key, 1)
        parts = parts if isinstance(parts, int) else len(parts)
        if values.get("width", 0) % parts:
            multiple = f"{name} with {parts} {key} takes a multiple of {parts}"
            raise ValueError(f"width={values['width']}: {multiple}")
    return values


def chosen(name: str, settings: dict) -> SimpleNamespace:
    """What `check` returns, as attributes."""
    return SimpleNamespace(**check(name, settings))


def _shown(value):
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def tuned(name: str) -> dict[str, dict]:
    """{setting: what a search draws from} of a model."""
    return {key: setting.tuned for key, setting in SETTINGS[name].items() if setting.tuned}
