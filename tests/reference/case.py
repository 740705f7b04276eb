"""What the comparisons are made on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from robustcli.attacks import Attack
from robustcli.engine.run import predict
from robustcli.noise import Noise


@dataclass(frozen=True)
class Case:
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

    def right(self) -> Case:
        """The digits that the network gets right."""
        kept = self.standing(self.x)
        return Case(self.model, self.x[kept], self.y[kept])

    def textured(self) -> Case:
        """The digits with a little noise: no two pixels of a pooling window are the same."""
        noise = Noise(1, torch.arange(len(self.x))).uniform(self.x)
        return Case(self.model, 0.05 + 0.88 * self.x + 0.02 * noise, self.y)

    def grey(self) -> Case:
        """The digits squeezed into [0.45, 0.55], with the network undoing it: small steps never meet the box."""
        return Case(nn.Sequential(Unsqueeze(), self.model).eval(), 0.45 + 0.1 * self.x, self.y)

    def asked(self, run: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """What `run` returns, and how many images a sample it asked the network about."""
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
