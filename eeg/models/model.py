"""What every model is: an input normalisation, a network, and what its numbers mean."""

import copy
import inspect

import torch
from torch import nn

from .layers import Normalize
from .montage import SFREQ, START_S
from .neuro import NeuroFeatures


class Model(nn.Module):
    """(B, C, T) in volts or microvolts, the same answer -> (B, n_outputs) in the target's units.

    head: "time", where the network scores moments of the window and the answer is the expected
    moment; "number", where it says standardised numbers: the answers', then those of `aux`. center,
    scale: mean and spread of the targets in training, in their units; shrink: how far from center
    answers may go, 1 all the way (all three: one for each output, set by the trainer). features:
    "none"; "file", where the caller gives the raw features of eeg/data/features.py with each
    window; "layer", where they are computed here from the window. median, mad (F) normalise them.
    settings: build(**settings) makes the same model again, with weights of its own.
    """

    def __init__(
        self, name, network, n_chans, n_times, n_outputs, normalize, aux, features, settings
    ):
        super().__init__()
        own = inspect.signature(network).parameters
        takes = "n_features" in own
        features = features or ("file" if takes else "none")
        if features not in ("none", "file", "layer") or (features != "none" and not takes):
            taken = "none, file or layer" if takes else "no features"
            raise ValueError(f"features='{features}': {name} takes {taken}")
        self.head = settings.get("head", own["head"].default if "head" in own else "number")
        if self.head not in ("number", "time") or (self.head == "time" and (n_outputs != 1 or aux)):
            raise ValueError(
                f"head='{self.head}' with {n_outputs} outputs and {len(aux)} further numbers: "
                "it is 'number', or 'time' for one output alone"
            )
        self.settings = {
            "name": name,
            "n_chans": n_chans,
            "n_times": n_times,
            "n_outputs": n_outputs,
            "normalize": normalize,
            "aux": list(aux),
            "features": features,
            **settings,
        }
        self.window, self.n_outputs, self.aux, self.features = (
            (n_chans, n_times),
            n_outputs,
            aux,
            features,
        )
        self.normalize = Normalize(normalize)
        if features != "none":
            self.neuro = NeuroFeatures()
            n_features = len(self.neuro.names)
            self.register_buffer("median", torch.zeros(n_features))
            self.register_buffer("mad", torch.ones(n_features))
            settings = settings | {"n_features": n_features}
        self.network = network(n_chans, n_times, n_outputs + len(aux), **settings)
        self.register_buffer("center", torch.zeros(n_outputs))
        self.register_buffer("scale", torch.ones(n_outputs))
        self.register_buffer("shrink", torch.ones(n_outputs))
        self.register_buffer(
            "moments", START_S + torch.arange(n_times) / SFREQ, persistent=False
        )  # s

    def raw(self, x, features=None):
        """What a loss sees, float32: (B, T) scores of `moments` with head "time", else (B,
        n_outputs + len(aux)) standardised numbers.
        """
        if x.dim() != 3 or x.shape[1:] != self.window:
            raise ValueError(
                f"windows have shape {list(x.shape)}, this model takes "
                f"(batch, {self.window[0]} channels, {self.window[1]} samples)"
            )
        normal = self.normalize(x)
        if self.features == "none":
            return self.network(normal).float()
        if self.features == "layer":
            features = self.neuro(microvolts(x))
        elif features is None:
            raise ValueError(
                "this model was built with features='file': it needs the features of each window"
            )
        features = ((features.float() - self.median) / self.mad).clamp(-10, 10)
        return self.network(normal, torch.nan_to_num(features)).float()

    def answer(self, raw):
        """(B, n_outputs) in the target's units, of what `raw` gave."""
        if self.head == "time":
            answer = (raw.softmax(1) @ self.moments)[:, None]
        else:
            answer = self.center + self.scale * raw[:, : self.n_outputs]
        return self.center + self.shrink * (answer - self.center)

    def forward(self, x, features=None):
        return self.answer(self.raw(x, features))


def microvolts(x):
    """Windows (B, C, T) in volts or microvolts, in microvolts: no electrode's typical spread
    reaches 10 mV, or stays under 10 nV.
    """
    x = x.float()
    spread = torch.nanmedian(
        torch.where((spread := x.std(2)) > 0, spread, torch.nan), 1
    ).values  # the typical electrode of each window
    return x * torch.where(spread < 1e-2, 1e6, 1.0)[:, None, None]


def folded(model):
    model = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.random.fork_rng(
        devices=[]
    ):  # new layers draw their first weights, and who trains would draw others then
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if hasattr(child, "folded"):
                    setattr(parent, name, child.folded())
    return model


def multiply_adds(model):
    """Of one window in inference, in products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(1, model.settings["n_chans"], model.settings["n_times"], dtype=torch.float64)
    ghost = folded(model).network.double()  # every operation then is torch's own
    features = (
        [] if model.features == "none" else [torch.zeros(1, len(model.median), dtype=torch.float64)]
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(x, *features)
    return counter.get_total_flops() // 2
