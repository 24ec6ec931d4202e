"""Several processes, one run: torchrun starts them, each computes its share of every batch, all take the same step.

Without torchrun there is one process, and everything here is the identity.
"""

import os



class Ranks:
    """Who this process is: rank of world; main is the one that writes. restarted: torchrun has started the processes anew after a failure."""

    def __init__(self):
        """Meets the other processes. Objects travel through gloo, which needs no card."""
        self.rank, self.world, self.local = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
        self.main = self.rank == 0
        self.restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
        if self.world > 1:  # one process needs nothing of torch here, and its run has a folder before torch is imported
            import torch
            import torch.distributed

            self.torch, self.dist = torch, torch.distributed
            cards = torch.version.cuda or torch.version.hip
            self.dist.init_process_group("cpu:gloo,cuda:nccl" if cards else "gloo")

    def stop(self):
        if self.world > 1:
            self.dist.destroy_process_group()

    def sum_gradients(self, parameters, windows, *flags):
        """Make each gradient, the mean over this process's windows, the mean over all processes'. -> (windows of all, the highest of each flag)."""
        if self.world == 1:
            return windows, flags
        parameters = [p for p in parameters if p.requires_grad]
        for p in parameters:
            if p.grad is None:
                p.grad = self.torch.zeros_like(p)
        device = parameters[0].device
        whole = self.torch.cat([p.grad.flatten().float() * windows for p in parameters] + [self.torch.tensor([float(windows)], device=device)])
        self.dist.all_reduce(whole)
        total = whole[-1].item()
        for p, part in zip(parameters, whole[:-1].split([p.numel() for p in parameters])):
            p.grad.copy_(part.view_as(p) / total)
        highest = self.torch.tensor([float(flag) for flag in flags], device=device)
        self.dist.all_reduce(highest, self.dist.ReduceOp.MAX)
        return int(total), tuple(bool(flag) for flag in highest)

    def average(self, value):
        """The mean over processes of a tensor."""
        if self.world > 1:
            value = value.clone()
            self.dist.all_reduce(value)
            value /= self.world
        return value

    def gather(self, value):
        """Every process's value, in order of rank."""
        found = [value]
        if self.world > 1:
            found = [None] * self.world
            self.dist.all_gather_object(found, value)
        return found

    def broadcast(self, value):
        """The main process's value."""
        if self.world > 1:
            box = [value]
            self.dist.broadcast_object_list(box, 0)
            value = box[0]
        return value

    def share_buffers(self, model):
        """Give every process the main one's buffers (the statistics of batch norms)."""
        if self.world > 1:
            for buffer in model.buffers():
                self.dist.broadcast(buffer, 0)
