"""Networks from windows (batch, electrode, sample) to answers (batch, output).

`build` makes any of them by name. They import nothing of the project but each other, because a
submission ships these files alone.
"""

import importlib

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
    "ridge": ("ridge", "Ridge", "in closed form: features, slow potentials, covariance of bands"),
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

    normalize: a kind of layers.Normalize; "channel" by default, "none" for a network that reads
    amplitudes. aux: names of further numbers to learn beside the answer, such as age. features:
    "none", "file" or "layer", for networks that take features. blend: a ridge beside the network
    (see Model). members: how many networks answer, in the mean. The other settings are the
    network's own, see settings.py. Raises ValueError for a name or setting that does not exist, and
    for a value that a setting does not take.
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
