"""Smaller numbers for inference, and a check that they do no harm: a precision that changes NRMSE
by as much as its limit is refused.
"""

import io
import warnings

import torch
from torch import nn

from eeg.models import CLOSED_FORM, fold
from eeg.models.layers import DepthwiseConv1d

# precision -> the change of NRMSE that is too large
LIMITS = {"fp32": 0.001, "bf16": 0.005, "fp16": 0.005, "int8": 0.005}
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def at_precision(model, precision):
    """A folded copy of a Model for inference alone, whose network computes in bfloat16 or float16,
    or whose linear layers compute in int8.

    Normalisation, temporal filters and the answer stay float32. int8 quantises weights once, with a
    scale for each output, and activations at every call. Raises ValueError for another precision,
    and for one that this torch cannot compute.
    """
    if precision not in LIMITS:
        raise ValueError(f"there is no precision '{precision}'; there are {', '.join(LIMITS)}")
    name = model.settings["name"]
    if precision != "fp32" and name in CLOSED_FORM:
        raise ValueError(f"{name} is computed in float32 alone, not in {precision}")
    model = fold(model)
    if precision == "int8":
        model.network = _int8(model.network)
    elif precision != "fp32":
        model.network = _Cast(model.network, TYPES[precision])
    return model


def passes(precision, figures):
    """Whether a precision changes the NRMSE so little that it may be used."""
    return abs(figures["nrmse"]) < LIMITS[precision]  # NaN does not


@torch.inference_mode()
def change(model, other, x, y, features=None):
    """How another form of a model differs: {"answer": the largest change of an answer, in standard
    deviations of the labels, "nrmse": the change of NRMSE for the output where it changes most,
    "before": the model's NRMSE for that output}.
    """
    was_training = model.training
    model.eval()
    inputs = [x] if features is None else [x, features]
    batches = list(zip(*(each.split(128) for each in inputs)))
    answers = [torch.cat([form(*b) for b in batches]).double() for form in (model, other)]
    model.train(was_training)
    y = y.double().reshape(len(y), -1)
    spread = y.std(0, unbiased=False)
    before, after = ((answer - y).square().mean(0).sqrt() / spread for answer in answers)
    worst = (after - before).abs().nan_to_num(torch.inf).argmax()
    return {
        "answer": float(((answers[1] - answers[0]).abs() / spread).max()),
        "nrmse": float((after - before)[worst]),
        "before": float(before[worst]),
    }


def size(model):
    """Bytes of a model's file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


class _Cast(nn.Module):
    """A network in another type, except for its temporal filters: they are small, and their kernel
    takes float32.
    """

    def __init__(self, network, dtype):
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype
        for module in network.modules():
            if isinstance(module, DepthwiseConv1d):
                module.float()

    def forward(self, x, *features):
        return self.network(x.to(self.dtype), *(part.to(self.dtype) for part in features))


def _int8(network):
    """torch's dynamic quantisation of all linear layers, two to three times as fast as the same
    written with torch._int_mm. The small layers that give the answer stay as they are.
    """
    try:
        from torch.ao.nn.quantized.dynamic import Linear
        from torch.ao.quantization import per_channel_dynamic_qconfig
    except ImportError as e:
        lacks = f"which torch {torch.__version__} does not have"
        raise ValueError(f"int8 needs torch's dynamic quantisation, {lacks}") from e
    for name, child in list(network.named_children()):
        if isinstance(child, nn.Linear) and child.out_features >= 8:
            plain = nn.Linear(child.in_features, child.out_features, bias=child.bias is not None)
            plain.load_state_dict(child.state_dict())
            plain.qconfig = per_channel_dynamic_qconfig
            with warnings.catch_warnings():
                # torch announces its removal; the ValueError above is for then
                warnings.simplefilter("ignore")
                setattr(network, name, Linear.from_float(plain))
        else:
            _int8(child)
    return network
