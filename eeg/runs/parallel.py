"""Several processes, one run: torchrun starts them, each computes its share of every batch.

Without torchrun there is one process, and everything here is the identity. Every process must call
the same things in the same order, whatever its own device does: small things travel through gloo,
which needs no card, and gradients through NCCL (RCCL) as long as every process has its card.
"""

import os
import sys


class Ranks:
    """Meets the other processes. This one is `rank` of `world`, `local` of `here` on this machine;
    `main` is the one that writes. restarted: torchrun has restarted them after a failure."""

    def __init__(self):
        number = lambda name, default: int(os.environ.get(name, default))
        self.rank, self.world = number("RANK", 0), number("WORLD_SIZE", 1)
        self.local, self.here = number("LOCAL_RANK", 0), number("LOCAL_WORLD_SIZE", 1)
        restarts = number("TORCHELASTIC_RESTART_COUNT", 0)
        self.main, self.restarted, self.cards = self.rank == 0, restarts > 0, None
        # One process needs nothing of torch, and its run has a folder before torch is imported.
        if self.world > 1:
            import torch
            import torch.distributed
            from torch.distributed.rendezvous import rendezvous

            self.torch, self.dist = torch, torch.distributed
            store, rank, world = next(rendezvous("env://"))
            # Newer torchrun keeps the store over a restart, with addresses of dead processes.
            store = self.dist.PrefixStore(f"start {restarts}", store)
            self.dist.init_process_group("gloo", store=store, rank=rank, world_size=world)

    def stop(self) -> None:
        if self.world > 1:
            self.dist.destroy_process_group()

    def leave(self) -> None:
        """End this process at once, with success, if it is one of several: a thread of gloo that
        outlives the group may abort the process as the interpreter shuts down."""
        if self.world > 1:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(0)

    def use(self, device: str) -> None:
        """Name this process's device. If all have a card, gradients go from card to card."""
        if self.world > 1 and all(self.gather(device.startswith("cuda"))) and self.cards is None:
            self.torch.cuda.set_device(device)
            self.cards = self.dist.new_group(backend="nccl")

    def sum_gradients(self, parameters, on_host, windows, *flags):
        """The mean gradient over all processes' windows. -> (for each parameter its gradient on the
        CPU, for each flag whether it is up in any); one process: (None, flags)

        on_host: copies of .grad, or None, each the mean over this process's windows.
        """
        if self.world == 1:
            return None, flags
        device = parameters[0].device
        flags = *flags, self.cards is None or device.type != "cuda"
        up = self.torch.tensor([float(flag) for flag in flags])
        self.dist.all_reduce(up, self.dist.ReduceOp.MAX)
        # A process that has lost its card holds the others to the way through the host.
        *flags, through_host = (bool(flag) for flag in up)
        gradients = on_host if through_host else [p.grad for p in parameters]
        flat = [
            self.torch.zeros(p.numel()) if g is None else g.flatten().float() * windows
            for p, g in zip(parameters, gradients)
        ]
        flat.append(self.torch.tensor([float(windows)]))
        whole = self.torch.cat(flat if through_host else [part.to(device) for part in flat])
        self.dist.all_reduce(whole, group=None if through_host else self.cards)
        whole = (whole[:-1] / whole[-1]).cpu()
        parts = whole.split([p.numel() for p in parameters])
        return [part.view(p.shape) for p, part in zip(parameters, parts)], tuple(flags)

    def average(self, value, windows: int):
        """The mean of a number (a tensor) over all processes' windows, from the mean over these."""
        whole = self.torch.tensor([value.item() * windows, windows])
        self.dist.all_reduce(whole)
        return (whole[0] / whole[1]).to(value.device)

    def gather(self, value) -> list:
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
