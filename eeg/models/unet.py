"""A one-dimensional U-Net: the window at ever coarser time steps, and back, with a score on each
moment at the end.

B windows, C electrodes, T samples, W width; channels come last inside, (B, T, W).
"""

from torch import nn
from torch.nn import functional as F

from .layers import Block, Head, Pointwise, Stem, halved


class UNet(nn.Module):
    """(B, C, T) -> (B, T) scores of moments, or (B, n_outputs).

    width: channels at the finest level; growth: times as many at each level below; levels: how
    often time is halved; kernel: taps of the depthwise filters; dropout: share of channels each
    block may lose.
    """

    def __init__(
        self,
        n_chans=129,
        n_times=200,
        n_outputs=1,
        head="time",
        width=96,
        growth=1.25,
        levels=3,
        kernel=9,
        dropout=0.1,
    ):
        super().__init__()
        widths = [round(width * growth**level) for level in range(levels + 1)]
        self.stem = Stem(n_chans, width, kernel)
        self.down = nn.ModuleList(Block(wide, kernel, 1, dropout) for wide in widths)
        self.widen = nn.ModuleList(
            Pointwise(wide, wider) for wide, wider in zip(widths, widths[1:])
        )
        self.narrow = nn.ModuleList(
            Pointwise(wider, wide) for wide, wider in zip(widths, widths[1:])
        )
        self.up = nn.ModuleList(Block(wide, kernel, 1, dropout) for wide in widths[:-1])
        self.head = Head(head, width, n_outputs)

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
