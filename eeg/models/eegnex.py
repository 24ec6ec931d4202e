"""EEGNeX (Chen et al. 2024, doi:10.1016/j.bspc.2023.105475), computed in another order at less
cost. The function, its gradients and its running statistics are the same.

B windows, C electrodes, T samples; F1, F2 filters of blocks 1 and 2, D spatial filters for each of
the F2, K taps. exchange.py says how blocks 1 to 3 are computed.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from . import chosen
from .exchange import (
    Filter,
    NormELUPool,
    apply_matrix,
    block1_moments,
    by_batch,
    compose,
    gram,
    matrix_of,
    pooled_length,
    running,
    track,
    views_of,
    zeros_before,
)
from .layers import Dropout


class EEGNeX(nn.Module):
    """(B, n_chans, n_times) -> (B, n_outputs).

    Settings, initial weights and constraints are braindecode's. Layers hold parameters and
    statistics; some are never called.
    """

    hidden = "drop5"  # what it is given are the last hidden features

    def __init__(self, n_chans: int = 129, n_times: int = 200, n_outputs: int = 1, **settings):
        super().__init__()
        s = chosen("eegnex", settings)
        activation = s.activation if isinstance(s.activation, type) else getattr(nn, s.activation)
        pooled = pooled_length(n_times, s.avg_pool_block4)
        features = s.filter_1 * pooled_length(pooled, s.avg_pool_block5)
        if pooled < 1 or features < 1:
            pools = f"by {s.avg_pool_block4} and then by {s.avg_pool_block5}"
            raise ValueError(f"EEGNeX: {n_times} samples are too few to pool {pools}")
        self.n_chans, self.n_times = n_chans, n_times
        self.max_norm_conv, self.max_norm_linear = s.max_norm_conv, s.max_norm_linear
        filter_3, taps = s.filter_2 * s.depth_multiplier, s.kernel_block_1_2
        self.conv1 = nn.Conv2d(1, s.filter_1, (1, taps), bias=False)
        self.bn1 = nn.BatchNorm2d(s.filter_1)
        self.conv2 = nn.Conv2d(s.filter_1, s.filter_2, (1, taps), bias=False)
        self.bn2 = nn.BatchNorm2d(s.filter_2)
        self.conv3 = nn.Conv2d(s.filter_2, filter_3, (n_chans, 1), groups=s.filter_2, bias=False)
        nn.init.xavier_uniform_(self.conv3.weight)
        self.bn3 = nn.BatchNorm2d(filter_3)
        self.act3 = activation()
        self.pool3 = nn.AvgPool2d((1, s.avg_pool_block4), padding=(0, 1))
        self.drop3 = Dropout(s.drop_prob)
        self.conv4 = _same_conv(filter_3, s.filter_2, s.kernel_block_4, s.dilation_block_4)
        self.bn4 = nn.BatchNorm2d(s.filter_2)
        self.conv5 = _same_conv(s.filter_2, s.filter_1, s.kernel_block_5, s.dilation_block_5)
        self.bn5 = nn.BatchNorm2d(s.filter_1)
        self.act5 = activation()
        self.pool5 = nn.AvgPool2d((1, s.avg_pool_block5), padding=(0, 1))
        self.drop5 = Dropout(s.drop_prob)
        self.head = nn.Linear(features, n_outputs)
        # inside[t, k]: tap k of block 2, around sample t, sees a sample of the window, not padding
        seen = torch.arange(n_times)[:, None] + torch.arange(taps) - zeros_before(taps)
        self.register_buffer("inside", ((seen >= 0) & (seen < n_times)).float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != (self.n_chans, self.n_times):
            expected = f"(batch, {self.n_chans}, {self.n_times})"
            raise ValueError(f"EEGNeX: windows have shape {tuple(x.shape)}, expected {expected}")
        # Moments and band stay float32: they are most of what float16 and bfloat16 would ruin.
        with torch.autocast(x.device.type, enabled=False):
            x = self._blocks123(x.to(torch.promote_types(x.dtype, torch.float32)))
        x = self.drop3(x.to(self.conv4.weight.dtype))[:, :, None]
        weight = self._by_depth(self.conv4.weight, 1)
        x = F.conv2d(x, weight, padding="same", dilation=self.conv4.dilation)
        # in this layout conv5 takes half the time on a CPU
        x = self.conv5(self.bn4(x).contiguous(memory_format=torch.channels_last))
        x = self.drop5(self.pool5(self.act5(self.bn5(x))))
        weight = self.head.weight.renorm(2, 0, self.max_norm_linear)
        return F.linear(x.flatten(1), weight, self.head.bias)

    def _blocks123(self, x):
        """(B, C, T) -> pooled activations (B, D F2, pooled), float32 or float64.

        Filters are ordered (d, f), so that each product leaves its result where the next needs it.
        """
        weight = self.conv3.weight.renorm(2, 0, self.max_norm_conv).flatten(1)
        w = self._by_depth(weight, 0).to(x.dtype)
        m = S = None
        if by_batch(self.bn1) or by_batch(self.bn2):
            m = x.mean((0, 1))
            x = x - m
            S = gram(x)
        band, k = self._composed_filters(m, S, x)
        v, spread = Filter.apply(F.conv1d(x, w[:, :, None]), band, S)
        scale, c, shift = self._norm2(band, k, m, spread, w, x.numel())
        return self._norm3_pooled(v, c, scale, shift)

    def _composed_filters(self, m, S, x):
        """Blocks 1 and 2 without the norm of 2: band (F2, T, 2K-1) and shift k (F2, T).

        m, S: moments of the batch, None where running statistics are used. x: the centred windows.
        """
        bn1, h1, h2 = self.bn1, self.conv1.weight.flatten(1), self.conv2.weight[:, :, 0]
        h1, h2, gain, bias = (p.to(x.dtype) for p in (h1, h2, bn1.weight, bn1.bias))
        mean, var = block1_moments(h1, m, S) if by_batch(bn1) else running(bn1)
        track(bn1, mean, var, x.numel())
        a1 = gain * torch.rsqrt(var + bn1.eps)
        return compose(h1 * a1[:, None], bias - a1 * mean, h2, self.inside.to(x.dtype))

    def _norm2(self, band, k, m, spread, w, n):
        """Block 2's batch norm as scale (v + c) + shift -> scale (D F2), c (D F2, T), shift (D F2).

        spread: variance around the mean, see Filter. w: block 3's filters. n: number of values
        behind a moment.
        """
        bn2, depth = self.bn2, len(w) // self.conv3.groups
        y = k  # (F2, T), the response of blocks 1 and 2 to the mean
        if m is not None:
            y = k + (band * views_of(m, band.shape[2], 2 * zeros_before(self.inside.shape[1]))).sum(
                2
            )
        mean, var = running(bn2)
        if by_batch(bn2):
            mean, var = y.mean(1), spread + y.var(1, unbiased=False)
        track(bn2, mean, var, n)
        gain, bias = bn2.weight.to(w.dtype), bn2.bias.to(w.dtype)
        scale = (gain * torch.rsqrt(var + bn2.eps)).repeat(depth)
        total = w.sum(1)
        # In training block 3's norm cancels the bias, whose gradient must be 0, not None.
        c = total[:, None] * (y - mean[:, None] + 0 * bias[:, None]).repeat(depth, 1)
        return scale, c, total * bias.repeat(depth)

    def _norm3_pooled(self, v, c, a2, shift):
        """Block 3's norm of a2 (v + c) + shift, activation and pooling."""
        bn3, depth = self.bn3, v.shape[1] // self.conv3.groups
        gain, bias = (self._by_depth(p, 0).to(v.dtype) for p in (bn3.weight, bn3.bias))
        if not by_batch(bn3):
            scale = gain * torch.rsqrt(self._by_depth(bn3.running_var, 0) + bn3.eps)
            offset = scale * (shift - self._by_depth(bn3.running_mean, 0)) + bias
            scale = (scale * a2)[:, None]
            return self.pool3(self.act3(v * scale + (c * scale + offset[:, None])))
        if type(self.act3) is nn.ELU and self.act3.alpha == 1:
            size = self.pool3.kernel_size[1]
            out, mean, var = NormELUPool.apply(v, c, a2, gain, bias, bn3.eps, size)
        else:
            v = v + c
            var, mean = torch.var_mean(v, (0, 2), unbiased=False)
            scale = gain * a2 * torch.rsqrt(a2 * a2 * var + bn3.eps)
            out = self.pool3(self.act3((v - mean[:, None]) * scale[:, None] + bias[:, None]))
        with torch.no_grad():
            mean, var = mean * a2 + shift, var * a2 * a2
            mean, var = (p.view(depth, -1).t().flatten() for p in (mean, var))
            track(bn3, mean, var, v.shape[0] * v.shape[2])
        return out

    def _by_depth(self, weight, dim):
        """The F3 filters along dim, stored in the order (f, d) -> in the order (d, f)."""
        split = weight.unflatten(dim, (self.conv3.groups, -1))
        return split.transpose(dim, dim + 1).flatten(dim, dim + 1)

    def folded(self) -> "_Folded":
        """A module for inference alone, equal to self.eval() up to rounding. It computes filters,
        constraints and batch norms once, from their values at this moment.
        """
        return _Folded(self)


def _same_conv(inputs, outputs, taps, dilation):
    settings = dict(dilation=(1, dilation), padding="same", bias=False)
    return nn.Conv2d(inputs, outputs, (1, taps), **settings)


class _Folded(nn.Module):
    """See EEGNeX.folded."""

    @torch.no_grad()
    def __init__(self, net):
        super().__init__()
        depth, order = net.conv3.out_channels // net.conv3.groups, net._by_depth
        wide = torch.float64  # many scales are multiplied, and only once
        norms = (net.bn1, net.bn2, net.bn3, net.bn4, net.bn5)
        (a1, b1), (a2, b2), (a3, b3), (a4, b4), (a5, b5) = map(_scale_and_shift, norms)
        h1, h2 = net.conv1.weight.flatten(1).to(wide), net.conv2.weight[:, :, 0].to(wide)
        band, k = compose(h1 * a1[:, None], b1, h2, net.inside.to(wide))
        spatial = net.conv3.weight.renorm(2, 0, net.max_norm_conv).flatten(1).to(wide)
        w = order(spatial, 0) * order(a3, 0)[:, None]
        shift = order(b3, 0) + w.sum(1) * b2.repeat(depth)
        w = w * a2.repeat(depth)[:, None]
        # the rows of A in the order in which pooling adds them: the first samples of all pools,
        # then the second ones; a row of zeros where a pool reaches past the window
        size, n = net.pool3.kernel_size[1], net.n_times
        sample = torch.arange(pooled_length(n, size)) * size + torch.arange(size)[:, None] - 1
        past = (sample < 0) | (sample >= n)
        row = torch.where(past, n, sample).flatten()
        in_pools = lambda rows: F.pad(rows, (0, 1) if rows.dim() == 2 else (0, 0, 0, 1))[:, row]
        zeros = copy.deepcopy(net.act3)(torch.zeros(()))  # activations of the zeros
        parts = {
            "w": w[:, :, None],
            "A": in_pools(matrix_of(band)),
            "offset": in_pools(w.sum(1)[:, None] * k.repeat(depth, 1) + shift[:, None]),
            "excess": past.sum(0) * zeros,
            "conv4": order(net.conv4.weight, 1).to(wide) * a4[:, None, None, None] / size,
            "shift4": b4,
            "conv5": net.conv5.weight.to(wide) * a5[:, None, None, None],
            "shift5": b5,
            "head": net.head.weight.renorm(2, 0, net.max_norm_linear),
            "bias": net.head.bias,
        }
        for name, value in parts.items():
            self.register_buffer(name, value.detach().to(net.conv1.weight.dtype, copy=True))
        copied = copy.deepcopy([net.act3, net.act5, net.pool5])
        self.act3, self.act5, self.pool5 = copied
        for act in (self.act3, self.act5):
            if hasattr(act, "inplace"):
                act.inplace = True
        self.pool3 = size
        self.dilation4, self.dilation5 = net.conv4.dilation, net.conv5.dilation
        self.eval()

    @torch.no_grad()
    def forward(self, x):
        v = self.act3(apply_matrix(F.conv1d(x, self.w), self.A).add_(self.offset))
        first, *others = v.unflatten(2, (self.pool3, -1)).unbind(2)
        x = first - self.excess
        for other in others:
            x += other
        same = lambda dilation: dict(padding="same", dilation=dilation)
        x = F.conv2d(x[:, :, None], self.conv4, self.shift4, **same(self.dilation4))
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.conv2d(x, self.conv5, self.shift5, **same(self.dilation5))
        return F.linear(self.pool5(self.act5(x)).flatten(1), self.head, self.bias)


def _scale_and_shift(bn):
    """A batch norm in eval mode as scale x + shift, in float64."""
    scale = bn.weight.double() * torch.rsqrt(bn.running_var.double() + bn.eps)
    return scale, bn.bias - bn.running_mean * scale


def from_braindecode(network: EEGNeX, state_dict: dict) -> EEGNeX:
    """Loads the weights and statistics of braindecode's EEGNeX into one of the same settings, and
    returns it.
    """
    ours = {"final_layer": "head"}
    for block in range(1, 6):
        first = int(block == 1)
        ours[f"block_{block}.{first}"] = f"conv{block}"
        ours[f"block_{block}.{first + 1}"] = f"bn{block}"
    renamed = {}
    for name, value in state_dict.items():
        layer, _, rest = name.replace("parametrizations.weight.original", "weight").rpartition(".")
        renamed[f"{ours.get(layer, layer)}.{rest}"] = value
    network.load_state_dict(renamed)
    return network
