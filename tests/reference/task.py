"""A network and its digits: what the comparisons are made on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from robustcli.attacks import Attack
from robustcli.attacks.norms import Norm
from robustcli.engine.run import predict
from robustcli.noise import Noise


@dataclass(frozen=True)
class Task:
    """A network in eval mode, and digits `x` (n, 1, 28, 28) of the classes `y` (n,), of its precision."""

    model: nn.Module
    x: Tensor
    y: Tensor

    def perturb(self, attack: Attack) -> Tensor:
        """What our attack makes of the digits."""
        return attack.perturb(self.model, self.x, self.y, Noise(0, torch.arange(len(self.x)))).detach()

    def standing(self, x_adv: Tensor) -> Tensor:
        """(n,) bool, still classified right."""
        return predict(self.model, x_adv, len(x_adv)) == self.y

    def differing(self, x_adv: Tensor, other: Tensor) -> int:
        """How many samples stand after one attack and not after the other."""
        return int((self.standing(x_adv) != self.standing(other)).sum())

    def assert_same(self, ours: Tensor, theirs: Tensor, atol: float) -> None:
        """All pixels agree to within `atol`, and all flags."""
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)
        assert self.differing(ours, theirs) == 0

    def distances(self, norm: Norm, x_adv: Tensor) -> Tensor:
        """(n,) infinite where a digit still stands."""
        return torch.where(self.standing(x_adv), torch.inf, norm.distance(x_adv, self.x))

    def first(self, n: int) -> Task:
        """The first n digits."""
        return Task(self.model, self.x[:n], self.y[:n])

    def right(self) -> Task:
        """The digits that the network gets right."""
        right = self.standing(self.x)
        return Task(self.model, self.x[right], self.y[right])

    def textured(self) -> Task:
        """The digits with a little noise: no two pixels of a pooling window are the same."""
        noise = Noise(1, torch.arange(len(self.x))).uniform(self.x)
        return Task(self.model, 0.05 + 0.88 * self.x + 0.02 * noise, self.y)

    def grey(self) -> Task:
        """The digits squeezed into [0.45, 0.55], with the network undoing it: small steps never meet the box."""
        return Task(nn.Sequential(Unsqueeze(), self.model).eval(), 0.45 + 0.1 * self.x, self.y)

    def count_queries(self, run: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """What `run` returns, and how many images a sample it passed through the network."""
        sizes: list[int] = []
        handle = self.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
        x_adv = run()
        handle.remove()
        return x_adv, sum(sizes) / len(self.x)


def authors_code_is_here() -> bool:
    """Whether the authors' package `autoattack` can be imported; the script benchmarks/autoattack.py is none."""
    spec = find_spec("autoattack")
    return spec is not None and spec.submodule_search_locations is not None


class Unsqueeze(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.45) / 0.1
