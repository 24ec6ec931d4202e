"""A one-dimensional U-Net: the window at ever coarser time steps, and back, with a score on each
moment at the end.

B windows, C electrodes, T samples, W width; channels come last inside, (B, T, W).
"""

from torch import nn
from torch.nn import functional as F

from . import chosen
from .layers import Block, Head, Pointwise, Stem, halved


class UNet(nn.Module):
    """(B, C, T) -> (B, T) scores of moments, or (B, n_outputs).

    Settings: head, "time" for scores or "number"; width, channels at the finest level; growth,
    factor of the width from a level to the next; levels, how often time is halved; kernel, taps of
    the filters; dropout, share of channels a block may lose.
    """

    hidden = "head"  # what it is given are the last hidden features

    def __init__(self, n_chans=129, n_times=200, n_outputs=1, **settings):
        super().__init__()
        s = chosen("unet", settings)
        widths = [round(s.width * s.growth**level) for level in range(s.levels + 1)]
        steps = list(zip(widths, widths[1:]))
        block = lambda width: Block(width, s.kernel, 1, s.dropout)
        self.stem = Stem(n_chans, s.width, s.kernel)
        self.down = nn.ModuleList(map(block, widths))
        self.widen = nn.ModuleList(Pointwise(wide, wider) for wide, wider in steps)
        self.narrow = nn.ModuleList(Pointwise(wider, wide) for wide, wider in steps)
        self.up = nn.ModuleList(map(block, widths[:-1]))
        self.head = Head(s.head, s.width, n_outputs)

    def forward(self, x):
        x = self.stem(x)
        finer = []
        for block, widen in zip(self.down, self.widen):
            x = block(x)
            finer.append(x)
            x = F.relu(widen(halved(x)))
        x = self.down[-1](x)
        for block, narrow in zip(reversed(self.up), reversed(self.narrow)):
            beside = finer.pop()
            x = block(beside + narrow(x).repeat_interleave(2, 1)[:, : beside.shape[1]])
        return self.head(x)
