"""Networks from windows (batch, electrode, sample) to answers (batch, output).

`build` makes any of them by name. They import nothing of the project but each other: a submission
ships these files alone.
"""

import importlib
import inspect

MODELS = {  # name -> where the network is, and what it is in a line
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
    "conformer": ("conformer", "Conformer", "convolutions, then attention"),
}


def build(
    name,
    n_chans=129,
    n_times=200,
    n_outputs=1,
    normalize="channel",
    aux=(),
    features=None,
    **settings,
):
    """-> Model: the input normalisation, the network, and what its numbers mean.

    aux: names of further numbers to learn beside the answer, such as age. features: "none", "file"
    or "layer", for networks that take features (see Model). The other settings are the network's
    own, see settings.py. Raises ValueError for a name or setting that does not exist, and for a
    value that a setting does not take.
    """
    from .model import Model
    from .settings import check

    check(name, settings)
    return Model(
        name, network(name), n_chans, n_times, n_outputs, normalize, tuple(aux), features, settings
    )


def network(name):
    """The class of a model's network. Raises ValueError for a name that does not exist."""
    if name not in MODELS:
        raise ValueError(f"there is no model '{name}'; there are {', '.join(MODELS)}")
    module, cls, _ = MODELS[name]
    return getattr(importlib.import_module(f".{module}", __name__), cls)


def defaults(name):
    """{setting: default} of a model's own settings."""
    parameters = inspect.signature(network(name)).parameters
    return {
        key: p.default
        for key, p in parameters.items()
        if key not in ("n_chans", "n_times", "n_outputs", "n_features")
    }


def fold(model):
    """A copy for inference alone, equal but for rounding: normalisations and what is linear in a
    row become constants, computed once.
    """
    from .model import folded

    return folded(model)
