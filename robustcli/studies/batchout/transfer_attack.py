"""FGSM's images made on another network: an attack like any other, so that the store recalls it too."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from robustcli.attacks import FGSM
from robustcli.attacks.base import Kind, Losses, Needs
from robustcli.attacks.losses import Model, is_right
from robustcli.attacks.norms import Linf, NormField
from robustcli.fields import Budget
from robustcli.models.target import Target
from robustcli.noise import Noise


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class TransferFGSM:
    """One step of length eps up the cross-entropy of another network, whatever the attacked one answers.

    Papernot et al. 2016, *Transferability in Machine Learning*; where it breaks more than FGSM's own images, gradients
    are masked (Carlini et al. 2019, section 4.3).

    Returns images in the ball and in [0, 1]. What the other network gets wrong before stays as it is.
    """

    eps: Budget
    _: KW_ONLY
    model: Annotated[nn.Module, Field(exclude=True)]
    """In eval mode, its parameters without gradients."""
    source: str
    """The beginning of the hash of that network: 64 bits, which tables have room for."""
    norm: NormField = Linf()

    name: ClassVar[str] = "fgsm"
    summary: ClassVar[str] = "FGSM's images of another network (Papernot et al. 2016)"
    kind: ClassVar[Kind] = "budget"
    needs: ClassVar[Needs] = "scores"
    losses: ClassVar[Losses] = ("cross-entropy",)
    weak: ClassVar[bool] = True
    parameter_free: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        with torch.no_grad():
            right = is_right(self.model(x), y)
        images = FGSM(self.eps, self.norm).perturb(self.model, x, y, noise)
        return torch.where(right[:, None, None, None], images, x)


def transfer_from(source: Target, device: str) -> TransferFGSM:
    """The attack that makes its images on `source`; its budget is to be replaced."""
    model = source.module.to(device).eval().requires_grad_(False)
    return TransferFGSM(0, model=model, source=source.key[:16])
