"""A model that begins with the encoder of another run, and how much of it may change.

    begin     takes over every tensor of the encoder that the run has, by name; the head stays new
    settle    freezes the first stages, or all weights but a change of low rank (LoRA, Hu et al.
              2022)

A stage is what makes the tokens, or a layer of attention (Encoder.stages).
"""

import hashlib
import io
import math

import torch
from torch import nn
from torch.nn.utils import parametrize

from eeg import UserError
from eeg.models.model import Model
from eeg.runs.run import Run


class LowRank(nn.Module):
    """A weight (out, in) -> the same, plus a trained matrix of low rank, 0 at first."""

    def __init__(self, weight, rank):
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight):
        return weight + self.up @ self.down


def networks(model: Model) -> dict[str, nn.Module]:
    """{prefix of its parameters: network}, one for each member; of a ridge, the encoder."""
    if hasattr(model.network, "kinds"):
        made = model.network.kinds["embeddings"].made
        return {"network.kinds.embeddings.made.network.": made.network}
    many = getattr(model.network, "networks", None)
    if many is None:
        return {"network.": model.network}
    return {f"network.networks.{number}.": each for number, each in enumerate(many)}


def stage_of(network: nn.Module, name: str) -> int | None:
    """The stage of a network's parameter, None for the head's."""
    for number, parts in enumerate(network.stages()):
        if any(name == part or name.startswith(f"{part}.") for part in parts):
            return number
    return None


def begin(model: Model, run: Run) -> dict:
    """Give the model the encoder of a run. -> what was matched and what was left over, as
    config.json keeps it. Raises UserError where a tensor has another shape, or nothing matches.

    Buffers, as the statistics of batch norms, are taken over as well.
    """
    content = run.weights.read_bytes()
    saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)["state"]
    first = "network.networks.0." if any("network.networks." in n for n in saved) else "network."
    offered = {name.removeprefix(first): each for name, each in saved.items() if first in name}
    state, new, used = model.state_dict(), [], set()
    for prefix, network in networks(model).items():
        for name, own in network.state_dict().items():
            if stage_of(network, name) is None or name not in offered:
                new.append(prefix + name)
                continue
            if own.shape != offered[name].shape:
                raise UserError(
                    f"{name} is {list(own.shape)} in this model and {list(offered[name].shape)} in "
                    f"{run.name}: leave out --model and --set, which that run decides"
                )
            state[prefix + name] = offered[name].to(own.dtype)
            used.add(first + name)
    if not used:
        raise UserError(
            f"none of the {len(saved)} tensors of {run.name} belongs to this encoder; it was "
            f"trained with --model {run.config['model']['name']}"
        )
    model.load_state_dict(state)
    return {
        "run": str(run.folder),
        "sha256": hashlib.sha256(content).hexdigest(),
        "matched": sorted(used),
        "new": new,
        "not_used": sorted(set(saved) - used),
    }


def described(about: dict, name: str) -> str:
    """A line about what `begin` did. name: of the run or the file"""
    matched, new, unused = (len(about[name]) for name in ("matched", "new", "not_used"))
    kinds = sorted({name.split(".")[0] for name in about["not_used"]})
    left = f", {unused} of its own are left over ({', '.join(kinds)})" if unused else ""
    return f"{matched} tensors from {name}; {new} of this model are new{left}"


def settle(model: Model, options) -> None:
    """Freeze the first stages of the encoder, or let it change by low rank alone. Raises UserError
    where it has fewer stages. options: with freeze, lora and model."""
    if not (options.freeze or options.lora):
        return
    for network in networks(model).values():
        stages = len(network.stages())
        if options.freeze > stages:
            what = f"--freeze {options.freeze}: this {options.model} has {stages} stages"
            raise UserError(f"{what}, what makes the tokens and {stages - 1} layers")
        frozen = stages if options.lora else options.freeze
        for name, parameter in network.named_parameters():
            stage = stage_of(network, name)
            if stage is not None and stage < frozen:
                parameter.requires_grad_(False)
        if options.lora:
            for name, module in list(network.named_modules()):
                if isinstance(module, nn.Linear) and stage_of(network, name) is not None:
                    change = LowRank(module.weight, options.lora)
                    parametrize.register_parametrization(module, "weight", change)


def decays(model: Model, decay: float) -> dict[str, float]:
    """{name of a parameter: what its learning rate is multiplied by}: 1 for the head, `decay` for
    the last stage, and so on."""
    found = {name: 1.0 for name, _ in model.named_parameters()}
    if decay == 1:
        return found
    for prefix, network in networks(model).items():
        stages = len(network.stages())
        for name, _ in network.named_parameters():
            stage = stage_of(network, name.replace("parametrizations.", ""))
            if stage is not None:
                found[prefix + name] = decay ** (stages - stage)
    return found


def plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model whose changes of low rank are added to its weights."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for key in [key for key in state if key.startswith(f"{name}.parametrizations.")]:
                del state[key]
            state[f"{name}.weight"] = module.weight.detach()
    return state


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, but what is frozen: that answers as in inference."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
