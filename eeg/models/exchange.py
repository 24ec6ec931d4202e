"""The first three blocks of EEGNeX in another order than published, at less cost.

B windows, C electrodes, T samples; F1, F2 filters of blocks 1 and 2, D spatial filters for each of
the F2, K taps; f in F2, i in F1, d in D, s, t in T.

As published, blocks 1 and 2 filter every electrode F2 times, and only then block 3 mixes
electrodes. But everything up to block 3's batch norm is linear, so the order can be exchanged: mix
electrodes first, and filter F2 D signals instead of F2 C.

    y_fc = A_f x_c + k_f                      blocks 1 and 2: A_f (T, T) is both filters and the
                                              batch norm of block 1, k_f (T) that norm's shift
    v_fd = A_f u_fd,  u_fd = sum_c w_fdc x_c  block 3, but for constants

A_f row by row: around sample t, the taps of block 2 that see a sample inside the window, each
composed with block 1. A row has 2K-1 entries, its band.

The batch norms of blocks 1 and 2 need moments of signals that are never formed. They follow from
the batch's own m = E x (T) and S = cov x (T, T), expectations over windows and electrodes; with
Q_kl = avg_t S[t+k, t+l], the covariance of a filter's view of the window,

    block 1:  var_i = h_i Q h_i + var_t (H_i m)
    block 2:  var_f = avg_t (A_f S A_f')_tt + var_t (A_f m + k_f)

x is centred by m before all products: a difference of raw moments would cancel where a signal rides
on an offset. S does not depend on the weights, so it has no backward pass, and the gradient of A S
A' is 2 A S, which forward has computed already.
"""

import torch
from torch.nn import functional as F


def pooled_length(n_times, size):
    """Length after pooling, which pads one sample at either end."""
    return (n_times + 2 - size) // size + 1


def zeros_before(taps):
    """Zeros that "same" padding puts before a window."""
    return (taps - 1) // 2


def by_batch(bn):
    return bn.training or bn.running_mean is None


def running(bn):
    return bn.running_mean, bn.running_var


@torch.no_grad()
def track(bn, mean, var, n):
    """Updates the buffers as nn.BatchNorm2d.forward does, from moments (var biased) of n values."""
    if not bn.training or not bn.track_running_stats:
        return
    bn.num_batches_tracked += 1
    rate = 1 / bn.num_batches_tracked.item() if bn.momentum is None else bn.momentum
    bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), rate)
    bn.running_var.lerp_((var * (n / max(n - 1, 1))).to(bn.running_var.dtype), rate)


def views_of(m, taps, left):
    """(T, taps): what a filter of `taps`, `left` of them ahead, sees of m (T), with 0 outside."""
    return F.pad(m, (left, taps - 1 - left)).unfold(0, taps, 1)


def onednn(x):
    """Whether to write a product as a convolution: on processors that are not Intel's, oneDNN's
    convolutions run at twice the rate of MKL's products.
    """
    return x.is_cpu and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def to_channels(x):
    """(n, h, w, c) as (n, c, h, w), with the strides that oneDNN takes without a slow copy."""
    return x.permute(0, 3, 1, 2)


def to_pixels(x):
    return x.permute(0, 2, 3, 1)


def gram(x):
    """E x x' over windows and electrodes: (B, C, T) -> (T, T)."""
    n, T = x.shape[0] * x.shape[1], x.shape[2]
    if onednn(x) and not x.requires_grad:
        x = to_channels(x[:, :, None])  # electrodes as pixels, samples as channels
        return torch.nn.grad.conv2d_weight(x, (T, T, 1, 1), x)[:, :, 0, 0] / n
    x = x.reshape(n, T)
    return x.t() @ x / n


def block1_moments(h, m, S):
    """Mean and variance (F1) of filters h (F1, K) over the batch, from its moments."""
    taps, left, T = h.shape[1], zeros_before(h.shape[1]), len(m)
    y = views_of(m, taps, left) @ h.t()
    around = F.pad(S, (left, taps - 1 - left) * 2)
    Q = around.as_strided((T, taps, taps), (around.stride(0) + 1, around.stride(0), 1)).mean(0)
    return y.mean(0), ((h @ Q) * h).sum(1) + y.var(0, unbiased=False)


def compose(h, b, h2, inside):
    """Filters h (F1, K) with shifts b (F1), then h2 (F2, F1, K), neither seeing past the window
    -> band (F2, T, 2K-1), shift (F2, T).
    """
    taps = h.shape[1]
    pairs = h2.transpose(1, 2) @ h  # (F2, K, K): taps k of block 2 and l of 1 reach sample k + l
    # each row one further to the right
    rows = F.pad(pairs, (0, taps)).flatten(1)[:, : taps * (2 * taps - 1)].unflatten(1, (taps, -1))
    return inside @ rows, (b @ h2) @ inside.t()


def apply_matrix(u, A):
    """Applies A (F2, T', T) to the signals u (B, D F2, T) of each filter -> (B, D F2, T')."""
    filters, rows, cols = A.shape
    signals = u.reshape(-1, filters, cols)
    if onednn(u) and len(signals) > 16:  # fewer do not repay its copy of A
        # signals as pixels, (f, t) as channels in F2 groups
        pixels, kernels = signals.flatten(1)[None, None], A.reshape(-1, 1, 1, cols)
        out = to_pixels(F.conv2d(to_channels(pixels), to_channels(kernels), groups=filters))
    else:
        out = torch.bmm(signals.transpose(0, 1), A.transpose(1, 2)).transpose(0, 1)
    return out.reshape(*u.shape[:2], rows)


def matrix_of(band):
    """band (F2, T, 2K-1) -> A (F2, T, T): row t holds its band from column t - 2 left(K) on."""
    filters, T, width = band.shape
    left = 2 * zeros_before((width + 1) // 2)
    padded = band.new_zeros(filters, T, T + width - 1)
    diagonals(padded, width).copy_(band)
    return padded[:, :, left : left + T].contiguous()


def band_of(A, width):
    """The entries of A that a band holds, with zeros where it reaches past the window."""
    left = 2 * zeros_before((width + 1) // 2)
    return diagonals(F.pad(A, (left, width - 1 - left)), width).contiguous()


def diagonals(padded, width):
    filters, T, columns = padded.shape
    return padded.as_strided((filters, T, width), (T * columns, columns + 1, 1))


class Filter(torch.autograd.Function):
    """u (B, D F2, T), band, S -> v = A_f u, and, where S is given, avg_t (A_f S A_f')_tt (F2)."""

    @staticmethod
    def forward(ctx, u, band, S):
        A = matrix_of(band)
        AS = spread = None
        if S is not None and onednn(A):
            AS = to_pixels(F.conv2d(to_channels(A[None]), to_channels(S[:, None, None])))[0]
        elif S is not None:
            AS = A @ S
        if AS is not None:
            spread = (A * AS).sum((1, 2)) / A.shape[1]
        ctx.save_for_backward(u, A, AS)
        ctx.width = band.shape[2]
        return apply_matrix(u, A), spread

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dv, dspread):
        u, A, AS = ctx.saved_tensors
        filters, T, _ = A.shape
        du = dband = dS = None
        if ctx.needs_input_grad[0]:
            du = apply_matrix(dv, A.transpose(1, 2))
        if ctx.needs_input_grad[1]:
            dv, u = dv.reshape(-1, filters, T), u.reshape(-1, filters, T)
            dA = torch.bmm(dv.permute(1, 2, 0), u.transpose(0, 1))
            if AS is not None:
                dA.addcmul_(AS, (dspread * (2 / T))[:, None, None])
            dband = band_of(dA, ctx.width)
        if ctx.needs_input_grad[2]:  # only where x itself wants a gradient
            dS = torch.einsum("f,fts,ftr->sr", dspread / T, A, A)
        return du, dband, dS


def pool_mean(x, size):
    """nn.AvgPool1d(size, padding=1) of (B, G, T), four times as fast on a CPU. No backward."""
    T = x.shape[2]
    n = pooled_length(T, size)
    out = x.new_zeros(*x.shape[:2], n)
    for j in range(size):  # out[i] sees x[i size + j - 1]
        first, last = int(j == 0), min(n, (T - j) // size + 1)
        out[:, :, first:last] += x[:, :, first * size + j - 1 : last * size + j - 1 : size]
    return out.div_(size)


class NormELUPool(torch.autograd.Function):
    """Batch norm of a (v + c), then ELU, then average pooling with one sample of padding; one
    function, because each pass over v costs time.

    v (B, G, T), c (G, T), a, gamma, beta (G). Also returns mean and variance of v + c.
    """

    @staticmethod
    def forward(ctx, v, c, a, gamma, beta, eps, pool):
        v = v + c
        mean = v.mean((0, 2))
        v -= mean[:, None]
        var = torch.linalg.vector_norm(v, dim=2).square().sum(0) / (v.shape[0] * v.shape[2])
        r = torch.rsqrt(a * a * var + eps)
        e = F.elu(torch.addcmul(beta[:, None], v, (gamma * a * r)[:, None]), inplace=True)
        ctx.save_for_backward(v, e, a, gamma, r)
        ctx.eps, ctx.pool = eps, pool
        ctx.mark_non_differentiable(mean, var)
        return pool_mean(e, pool), mean, var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout, *_):
        v, e, a, gamma, r = ctx.saved_tensors
        n = v.shape[0] * v.shape[2]
        dz = e.clamp(max=0).add_(1)  # ELU's slope, from its value
        spread = (dout / ctx.pool).repeat_interleave(ctx.pool, 2)[:, :, 1:]
        T = min(v.shape[2], spread.shape[2])
        dz[:, :, :T] *= spread[:, :, :T]
        dz[:, :, T:] = 0
        dbeta = dz.sum((0, 2))
        dot = (dz * v).sum((0, 2))
        scale = gamma * a * r
        # v is centred: the norm takes out of dz its mean and what lies along v
        along = -dot * scale * (a * r).square() / n
        dz.mul_(scale[:, None]).addcmul_(v, along[:, None]).sub_((scale * dbeta / n)[:, None])
        return dz, dz.sum(0), dot * gamma * ctx.eps * r**3, dot * a * r, dbeta, None, None
