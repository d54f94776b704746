"""TorchScript that passes for a detector, and makes a file named canary where it is loaded or run."""

import torch


class OnLoad(torch.nn.Module):
    """Makes it when it is loaded."""

    def __init__(self):
        super().__init__()
        self.made = torch.zeros(1)

    def forward(self, x):
        return x + self.made[0]

    @torch.jit.export
    def __getstate__(self):
        return (1, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]):
        self.made = torch.from_file("canary", shared=True, size=4)
        self.training = state[1]


class OnRun(torch.nn.Module):
    """Makes it when images are put in."""

    def forward(self, x):
        return x + torch.from_file("canary", shared=True, size=4)[0]
