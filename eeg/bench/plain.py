"""What one would write with torch and h5py alone."""

import time

import torch
from torch import nn
from torch.nn import functional as F

BATCH = 64  # windows, run/train.py's default


def plain_tcn(C=129, W=160, K=15):
    """eeg/models/tcn.py as one would write it with torch's layers: (B, 129, 200) -> (B, 200)."""

    def separable(dilation):
        pad = K // 2 * dilation
        return nn.Sequential(
            nn.Conv1d(W, W, K, padding=pad, dilation=dilation, groups=W, bias=False),
            nn.Conv1d(W, W, 1, bias=False),
            nn.BatchNorm1d(W),
            nn.ReLU(),
            nn.Dropout1d(0.1),
        )

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.filter = nn.Conv1d(C, C, K, padding=K // 2, groups=C, bias=False)
            self.mix = nn.Conv1d(C, W, 1, bias=False)
            self.norm = nn.BatchNorm1d(W)
            self.blocks = nn.ModuleList(separable(2**i) for i in range(4))
            self.squeeze = nn.Linear(W, W // 8)
            self.excite = nn.Linear(W // 8, W)
            self.last = nn.Conv1d(W, 1, 1)

        def forward(self, x):
            x = F.relu(self.norm(self.mix(self.filter(x))))
            for block in self.blocks:
                x = x + block(x)
            gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(2)))))
            return self.last(x * gate[:, :, None]).squeeze(1)

    return Plain()


def plain_epochs(cache, epochs: int) -> list[float]:
    """Trains tcn as one would write it with torch alone. -> seconds of each epoch after the first.

    h5py windows through a DataLoader with two workers, nn.Conv1d, AdamW, the same loss.
    """

    # here: the peers' environment imports this file without them
    import h5py

    from eeg.train.losses import loss

    class Windows(torch.utils.data.Dataset):
        def __init__(self):
            self.file, self.y = None, torch.from_numpy(cache.y).float()

        def __len__(self):
            return len(self.y)

        def __getitem__(self, i):
            # each worker opens its own
            self.file = self.file or h5py.File(cache.paths[0], "r", locking=False)
            x = torch.from_numpy(self.file["X"][i, :, 25:225])
            return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp_min(1e-3), self.y[i]

    class Head:
        head, n_outputs, aux, moments = "time", 1, (), 0.5 + torch.arange(200) / 100

        def answer(self, raw):
            return (raw.softmax(1) @ self.moments)[:, None]

    network, times = plain_tcn(), []
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    settings = dict(shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    batches = torch.utils.data.DataLoader(Windows(), BATCH, **settings)
    for _ in range(epochs + 1):
        start = time.perf_counter()
        for x, y in batches:
            optimizer.zero_grad()
            loss("time", Head(), network(x), y[:, None]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        times.append(time.perf_counter() - start)
    return times[1:]
