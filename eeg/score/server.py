"""The submission.py of a submission. run/submit.py packs it beside the networks and their weights.

Windows (B, 129, 200) at 100 Hz, in volts or microvolts -> (B, 1).
It needs only torch and numpy; torch 2.2.2 will do.
"""

import importlib.machinery
import importlib.util
import sys
from collections import deque
from pathlib import Path

import torch
from torch import nn

# Hz: filters and the moments that a time head scores are counted in samples of this rate
RATE = 100
# where the server may unpack a submission
PLACES = [Path(__file__).resolve().parent, Path("/app/input/res"), Path("/app/input")]


class Submission:
    def __init__(self, SFREQ, DEVICE):
        if SFREQ != RATE:
            raise ValueError(f"SFREQ is {SFREQ}, these models need windows at {RATE} Hz")
        self.device = DEVICE

    def get_model_challenge_1(self):
        return _load("weights_challenge_1.pt").to(self.device).eval()

    def get_model_challenge_2(self):
        return _load("weights_challenge_2.pt").to(self.device).eval()


class Average(nn.Module):
    """The mean answer (B, 1) of several models."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x):
        return torch.stack([member(x.float())[:, :1] for member in self.members]).mean(0)


class Constant(nn.Module):
    """The same answer (B, 1) to every window."""

    def __init__(self, value):
        super().__init__()
        self.register_buffer("value", torch.tensor(value, dtype=torch.float32))

    def forward(self, x):
        return self.value.repeat(len(x), 1)


class InOrder(nn.Module):
    """The mean of each answer (B, 1) and of up to count - 1 before it, in the order of the calls,
    however the windows are divided into batches. Nothing comes before a new module's first answer.
    """

    def __init__(self, model, count):
        super().__init__()
        self.model = model
        self.last = deque(maxlen=count)

    def forward(self, x):
        answers, means = self.model(x), []
        for answer in answers[:, 0].tolist():
            self.last.append(answer)
            means.append(sum(self.last) / len(self.last))
        return answers.new_tensor(means)[:, None]


def _load(name):
    """The module saved as {"constant": value}, or as {"members": [{"settings", "state"}, ...],
    "smooth_in_order": count}, where 1 smooths nothing."""
    saved = torch.load(_find(name), map_location="cpu", weights_only=True)
    if "constant" in saved:
        return Constant(saved["constant"])
    models, members = _models(), []
    for member in saved["members"]:
        model = models.build(**member["settings"])
        model.load_state_dict(member["state"])
        members.append(models.fold(model))
    model, count = Average(members), saved["smooth_in_order"]
    return InOrder(model, count) if count > 1 else model


def _models():
    """The package of networks: models.py is its __init__, the files beside it are its modules, and
    those of its folder `public`."""
    name = "submitted_models"
    if name not in sys.modules:
        places = {"submodule_search_locations": [str(folder) for folder in PLACES]}
        spec = importlib.util.spec_from_file_location(name, _find("models.py"), **places)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        public = importlib.machinery.ModuleSpec(f"{name}.public", None, is_package=True)
        public.submodule_search_locations = places["submodule_search_locations"]
        sys.modules[public.name] = importlib.util.module_from_spec(public)
    return sys.modules[name]


def _find(name):
    for folder in PLACES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, PLACES))}")
