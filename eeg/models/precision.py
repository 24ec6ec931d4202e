"""Smaller numbers for inference, and the proof that they do no harm: a precision that changes NRMSE
by more than LIMITS says is refused.
"""

import io
import warnings

import torch
from torch import nn

from . import fold
from .layers import DepthwiseConv1d

LIMITS = {
    "fp32": 0.001,
    "bf16": 0.005,
    "fp16": 0.005,
    "int8": 0.005,
}  # precision -> the largest change of NRMSE that passes


def at_precision(model, precision):
    """A copy of a Model for inference alone, folded, whose network computes in bfloat16 or float16,
    or whose linear layers do in int8.

    Normalisation, temporal filters and the answer stay float32. int8: weights once, a scale for
    each output; activations at every call. Raises ValueError for another precision, and for one
    that this torch cannot compute.
    """
    if precision not in LIMITS:
        raise ValueError(f"there is no precision '{precision}'; there are {', '.join(LIMITS)}")
    model = fold(model)
    if precision == "int8":
        model.network = _int8(model.network)
    elif precision != "fp32":
        model.network = _Cast(
            model.network, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        )
    return model


def checked(model, precision, x, y, features=None):
    """`at_precision`, and what it changes on windows x (N, C, T) with labels y, (N,) or (N,
    n_outputs), as `change` says. Raises ValueError where that is too much.
    """
    other = at_precision(model, precision)
    figures = change(model, other, x, y, features)
    if not passes(precision, figures):
        raise ValueError(
            f"{precision} is refused: NRMSE changes by {figures['nrmse']:+.4f} on {len(x)} "
            f"windows, less than {LIMITS[precision]} is allowed; fp32 always works"
        )
    return other, figures


def passes(precision, figures):
    return abs(figures["nrmse"]) < LIMITS[precision]  # NaN does not


@torch.inference_mode()
def change(model, other, x, y, features=None):
    """What another form of a model changes: {"answer": the largest change of one, in the labels'
    standard deviations, "nrmse": of NRMSE, for the output where it changes most, "before": the
    model's}.
    """
    was_training = model.training
    model.eval()
    answers = []
    for each in (model, other):
        parts = [
            each(a, *b)
            for a, *b in zip(x.split(128), *([] if features is None else [features.split(128)]))
        ]
        answers.append(torch.cat(parts).double())
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
    """A network in another type, but for temporal filters: those are few numbers, and their kernel
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
    """torch's own dynamic quantisation of linear layers, ours too: two to three times as fast as
    the same written with torch._int_mm.
    """
    try:
        from torch.ao.nn.quantized.dynamic import Linear
        from torch.ao.quantization import per_channel_dynamic_qconfig
    except ImportError as e:
        raise ValueError(
            f"int8 needs torch's dynamic quantisation, which torch {torch.__version__} has not"
        ) from e
    for name, child in list(network.named_children()):
        if (
            isinstance(child, nn.Linear) and child.out_features >= 8
        ):  # what speaks the answer is small, and stays
            plain = nn.Linear(child.in_features, child.out_features, bias=child.bias is not None)
            plain.load_state_dict(child.state_dict())
            plain.qconfig = per_channel_dynamic_qconfig
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # it is said to go in some later torch; what then happens stands above
                setattr(network, name, Linear.from_float(plain))
        else:
            _int8(child)
    return network
