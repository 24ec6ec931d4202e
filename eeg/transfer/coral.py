"""CORAL (Deep CORAL, Sun & Saenko 2016, doi:10.1007/978-3-319-49409-8_35): a network whose last
hidden features vary alike in all domains cannot rely on what only some of them have.

B windows, D features of a window.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from eeg import UserError, cli
from eeg.data.split import Split
from eeg.models.model import Model
from eeg.transfer.begin import networks


@dataclass
class Domains:
    """What is compared with what. of (N,) int64: the number of each window's domain."""

    of: np.ndarray
    words: str


def domains(split: Split, model: Model) -> Domains:
    """The training releases where there are several, else the training subjects. Raises UserError
    where there is only one subject, or a network that does not name its hidden features."""
    if not all(hasattr(network, "hidden") for network in networks(model).values()):
        what = f"--coral: {model.settings['name']} does not name its last hidden features"
        raise UserError(f'{what}, as hidden = "last" in its class would')
    release, subject = split.cache.release, split.cache.metadata["subject"]
    kind, whose = "release", release
    if len(np.unique(release[split.train])) == 1:
        kind, whose = "subject", subject
    names, of = np.unique(whose, return_inverse=True)
    count = len(np.unique(of[split.train]))
    if count == 1:
        what = "--coral compares releases or subjects, and the training side has 1 subject"
        raise UserError(f"{what}; name more releases with --train")
    return Domains(of.astype(np.int64), cli.counted(count, kind))


@contextmanager
def watched(model: Model, wanted: bool) -> Iterator[list[torch.Tensor]]:
    """Within, the last hidden features (B, D) of each network of the model are appended to a list,
    as its forward pass computes them: what the module that it calls `hidden` is given, in the mean
    over time where it has a time course."""
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, given: tuple) -> None:
        x = given[0].float()
        found.append(x.mean(1) if x.dim() == 3 else x.flatten(1))

    watching = networks(model).values() if wanted else ()
    modules = [network.get_submodule(network.hidden) for network in watching]
    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def penalty(hidden: list[torch.Tensor], domain: torch.Tensor) -> torch.Tensor:
    """The mean of `distance` over networks. domain (B,)"""
    return torch.stack([distance(each, domain) for each in hidden]).mean()


def distance(hidden: torch.Tensor, domain: torch.Tensor) -> torch.Tensor:
    """|C1 - C2|^2 / (4 D^2), in the mean over all pairs of domains in the batch: the squared
    Frobenius distance of the covariances of hidden (B, D). A domain with a single window has no
    covariance and is left out; 0 where no pair is left."""
    _, which, counts = domain.unique(return_inverse=True, return_counts=True)
    several = torch.nonzero(counts >= 2)[:, 0].tolist()
    if len(several) < 2:
        return hidden.new_zeros(())
    each = torch.stack([torch.cov(hidden[which == number].mT) for number in several])
    each = each.reshape(len(several), -1)
    # over all pairs, squared distances sum up to those from the mean, times the number of domains
    pairs = 2 / (len(several) - 1) * (each - each.mean(0)).square().sum()
    return pairs / (4 * hidden.shape[1] ** 2)
