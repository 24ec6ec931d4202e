"""Several networks of one kind side by side."""

import math

import torch
from torch import nn


class Members(nn.Module):
    """Networks that differ in their first weights and in what dropout takes from them. A mean of
    answers errs less than each: what they do not share is mostly chance.

    In training (K * B, ...): all answers of the first network, then those of the next; the loss
    sees each alone. Else (B, ...): scores of moments whose softmax is the mean of theirs with head
    "time", or the mean of their numbers.
    """

    def __init__(self, networks, head):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.head = head

    def forward(self, *inputs):
        found = [network(*inputs) for network in self.networks]
        if self.training:
            return torch.cat(found)
        each = torch.stack(found).float()
        if self.head == "time":
            return each.log_softmax(2).logsumexp(0) - math.log(len(found))
        return each.mean(0)
