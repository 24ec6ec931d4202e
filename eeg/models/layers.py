"""Layers that the networks share."""

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

try:
    from eeg import _native
except ImportError:  # not built, or a submission: torch does it, more slowly
    _native = None
_compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # from torch 2.3 on


def _array(tensor):
    return None if tensor is None else tensor.detach().numpy()


class _Depthwise(torch.autograd.Function):
    """x (B, T, C), weight (C, K), bias (C) or None -> (B, T, C): csrc/depthwise.hpp under autograd. float32 on the CPU, contiguous."""

    @staticmethod
    def forward(ctx, x, weight, bias, dilation):
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        y = torch.empty(x.shape)
        _native.depthwise_forward(_array(x), _array(weight), _array(bias), dilation, _array(y), torch.get_num_threads())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        x, weight = ctx.saved_tensors
        shapes = x.shape, weight.shape, weight.shape[:1]
        gx, gw, gb = (torch.empty(shape) if needed else None for shape, needed in zip(shapes, ctx.needs_input_grad))
        _native.depthwise_backward(_array(x), _array(weight), _array(gy.contiguous()), ctx.dilation, _array(gx), _array(gw), _array(gb), torch.get_num_threads())
        return gx, gw, gb, None


class DepthwiseConv1d(nn.Conv1d):
    """A temporal filter of odd length for each channel, zero-padded: (windows, samples, channels) -> the same shape.

    Channels come last: the convolution is fastest so, and a pointwise layer beside it is a plain matrix product.
    Parameters and their names are those of torch's Conv1d(groups=channels). The native kernel takes float32 on the CPU, and what
    autocast halved there; everything else goes to torch.
    """

    def __init__(self, channels, kernel_size, dilation=1, bias=True):
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that the length is kept, got {kernel_size}")
        reach = kernel_size // 2 * dilation  # samples, to either side
        super().__init__(channels, channels, kernel_size, padding=reach, dilation=dilation, groups=channels, bias=bias)
        self.reach = reach

    def forward(self, x):
        if x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != self.in_channels:
            raise ValueError(f"x must be (windows, samples, {self.in_channels} channels), got shape {list(x.shape)}")
        if not torch.jit.is_scripting():
            if self._native_takes(x):
                y = _Depthwise.apply(x.float().contiguous(), self.weight.squeeze(1), self.bias, self.dilation[0])
                return y.to(x.dtype)
        return F.conv1d(x.transpose(1, 2), self.weight, self.bias, padding=self.reach, dilation=self.dilation, groups=self.groups).transpose(1, 2)

    @torch.jit.unused
    def _native_takes(self, x):
        if _native is None or torch.jit.is_tracing() or _compiling():  # a trace does not see into the kernel
            return False
        return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16, torch.float16) and self.weight.dtype == torch.float32
