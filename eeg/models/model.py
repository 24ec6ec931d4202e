"""What every model is: an input normalisation, a network, and what its numbers mean."""

import copy
import inspect
import math

import torch
from torch import nn

from . import check, normals
from .features import NEUROSCIENCE, feature_groups
from .layers import Normalize, Normals, microvolts
from .montage import SFREQ, START_S
from .neuro import NeuroFeatures


class Members(nn.Module):
    """Networks that differ in their first weights and in what dropout takes from them. A mean of
    answers errs less than each: what they do not share is mostly chance. Of windows that were
    normalised in several ways (kinds, B, C, T) the networks take turns.

    In training (K * B, ...): all answers of the first network, then those of the next; the loss
    sees each alone. Else (B, ...): scores of moments whose softmax is the mean of theirs with head
    "time", or the mean of their numbers.
    """

    def __init__(self, networks, head):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.head = head

    def forward(self, x, *rest):
        ways = x if x.dim() == 4 else x[None]
        turns = [ways[k % len(ways)] for k in range(len(self.networks))]
        found = [network(way, *rest) for network, way in zip(self.networks, turns)]
        if self.training:
            return torch.cat(found)
        each = torch.stack(found).float()
        if self.head == "time":
            return each.log_softmax(2).logsumexp(0) - math.log(len(found))
        return each.mean(0)


class Model(nn.Module):
    """(B, C, T) in volts or microvolts, the same answer -> (B, n_outputs) in the target's units.

    head: "time", where the network scores moments of the window and the answer is the expected
    moment; "number", where it gives standardised numbers: the answers', then those of `aux`.
    center, scale, shrink (n_outputs): mean and spread of the targets in training, in their units,
    and how far from center answers may go, 1 all the way; the trainer sets them.
    features: "none"; "file", where the caller gives the raw features of eeg/data/features.py with
    each window; "layer", where they are computed here. The setting `groups` says which. median, mad
    (F) normalise them.
    members: how many networks of this kind there are, see Members.
    blend: "none", or what a ridge reads (see ridge.py) whose answers join the network's: each lies
    `shrink` and `share` times as far from center as it would alone.
    settings: build(**settings) makes the same model again, with weights of its own.
    """

    def __init__(
        self, name, network, shape, normalize, aux, features, settings, blend="none", members=1
    ):
        super().__init__()
        head = check(name, settings).get("head", "number")
        takes = "n_features" in inspect.signature(network).parameters
        features = features or ("file" if takes else "none")
        only = getattr(network, "normalize", None)  # of networks that take no other
        if only and normalize not in (only, None):
            raise ValueError(f"normalize='{normalize}': {name} takes no other than '{only}'")
        kinds = normals(normalize or only or "channel")[:members]
        if features not in ("none", "file", "layer") or (features != "none" and not takes):
            taken = "none, file or layer" if takes else "no features"
            raise ValueError(f"features='{features}': {name} takes {taken}")
        n_chans, n_times, n_outputs = shape
        if head == "time" and (n_outputs != 1 or aux):
            given = f"{n_outputs} outputs and {len(aux)} further numbers"
            raise ValueError(f"head='time' with {given}: use head='number' for more than one")
        self.settings = {
            "name": name,
            "n_chans": n_chans,
            "n_times": n_times,
            "n_outputs": n_outputs,
            "normalize": "+".join(kinds),
            "aux": list(aux),
            "features": features,
            **settings,
        }
        if blend != "none":
            self.settings["blend"] = blend
        if members > 1:
            self.settings["members"] = members
        self.head, self.window, self.n_outputs = head, (n_chans, n_times), n_outputs
        self.aux, self.features = aux, features
        self.normalize = Normalize(kinds[0]) if len(kinds) == 1 else Normals(kinds)
        if features != "none":
            self.neuro = NeuroFeatures(groups=feature_groups(settings.get("groups", NEUROSCIENCE)))
            n_features = len(self.neuro.names)
            self.register_buffer("median", torch.zeros(n_features))
            self.register_buffer("mad", torch.ones(n_features))
            settings = settings | {"n_features": n_features}
        made = [network(n_chans, n_times, n_outputs + len(aux), **settings) for _ in range(members)]
        self.network = made[0] if members == 1 else Members(made, head)
        self.register_buffer("center", torch.zeros(n_outputs))
        self.register_buffer("scale", torch.ones(n_outputs))
        self.register_buffer("shrink", torch.ones(n_outputs))
        self.ridge = None
        if blend != "none":
            from .ridge import Ridge  # which needs this file

            self.ridge = Ridge(n_chans, n_times, n_outputs, on=blend).requires_grad_(False)
            self.register_buffer("share", torch.zeros(n_outputs))
        moments_s = START_S + torch.arange(n_times) / SFREQ
        self.register_buffer("moments", moments_s, persistent=False)

    def raw(self, x, features=None):
        """What a loss sees, float32: with head "time" scores of `moments` (B, T), else standardised
        numbers (B, n_outputs + len(aux)). In training (members * B, ...).
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
            raise ValueError("a model with features='file' needs the features of each window")
        features = ((features.float() - self.median) / self.mad).clamp(-10, 10)
        return self.network(normal, torch.nan_to_num(features)).float()

    def answer(self, raw):
        """(B, n_outputs) in the target's units: the network's answer, from the output of `raw`."""
        if self.head == "time":
            answer = (raw.softmax(1) @ self.moments)[:, None]
        else:
            answer = self.center + self.scale * raw[:, : self.n_outputs]
        return self.center + self.shrink * (answer - self.center)

    def beside(self, x):
        """(B, n_outputs) in the target's units: how far from center the ridge alone answers."""
        return self.scale * self.ridge(x)

    def blended(self, raw, x):
        """(B, n_outputs) in the target's units: what the model answers to windows x, from the
        output of `raw`."""
        answer = self.answer(raw)
        return answer if self.ridge is None else answer + self.share * self.beside(x)

    def forward(self, x, features=None):
        return self.blended(self.raw(x, features), x)


def folded(model):
    """See eeg.models.fold."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    # new layers draw initial weights, which must not change what a training run draws next
    with torch.random.fork_rng(devices=[]):
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if hasattr(child, "folded"):
                    setattr(parent, name, child.folded())
    return model


def multiply_adds(model):
    """Multiply-adds in the products and convolutions of one window, in inference."""
    from torch.utils.flop_counter import FlopCounterMode

    inputs = [torch.zeros(1, *model.window, dtype=torch.float64)]
    if model.features != "none":
        inputs.append(torch.zeros(1, len(model.median), dtype=torch.float64))
    network = folded(model).network.double()  # float64: every operation is torch's own
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2
