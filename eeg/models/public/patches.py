"""How published encoders see a window: at the rate they were trained with, in patches of one
electrode each, which filters turn into numbers.

B windows, C electrodes, T samples, S patches of an electrode, P samples a patch.
"""

import math

import torch
from torch import nn

from ..montage import SFREQ


class Resample(nn.Module):
    """(B, C, T) at SFREQ -> (B, C, S * P) at `rate`: a polyphase filter, a sinc under a Kaiser
    window (beta 5) of 10 zero crossings each way. Outside the window there are zeros, and zeros
    fill the last patch.
    """

    def __init__(self, n_times, rate, patch):
        super().__init__()
        common = math.gcd(rate, SFREQ)
        up, down = rate // common, SFREQ // common
        longest = max(up, down)
        reach = 10 * longest
        steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
        window = torch.kaiser_window(2 * reach + 1, False, beta=5.0, dtype=torch.float64)
        taps = torch.sinc(steps / longest) * window
        taps *= up / taps.sum()
        made = -(-n_times * up // down)  # samples
        self.patches = -(-made // patch)
        apart = down * torch.arange(made) - up * torch.arange(n_times)[:, None]
        matrix = torch.zeros(n_times, self.patches * patch, dtype=torch.float64)
        matrix[:, :made] = torch.where(
            apart.abs() <= reach, taps[apart.clamp(-reach, reach) + reach], 0
        )
        self.register_buffer("matrix", matrix.float(), persistent=False)

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            return x.to(self.matrix.dtype) @ self.matrix


def spectrum(patches, **how):
    """The Fourier transform (..., P // 2 + 1) of patches (..., P). Half precision has none, and no
    patches at all are an error to it."""
    patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
    if not patches.numel():
        return torch.complex(patches, patches)[..., : patches.shape[-1] // 2 + 1]
    return torch.fft.rfft(patches, **how)


def filters(width, groups, first):
    """Three convolutions in time of patches (B, 1, N, P), each normalised over all patches of a
    window -> (B, width, N, positions). first: kernel, stride and padding of the first."""
    layers, inputs = [], 1
    for kernel, stride, padding in (first, (3, 1, 1), (3, 1, 1)):
        along = {"kernel_size": (1, kernel), "stride": (1, stride), "padding": (0, padding)}
        layers += [nn.Conv2d(inputs, width, **along), nn.GroupNorm(groups, width), nn.GELU()]
        inputs = width
    return nn.Sequential(*layers)
