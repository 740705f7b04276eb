"""Images made on one model, asked of another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack
from robustcli.attacks.driver import Samples, predict, run_attack
from robustcli.attacks.guards import frozen


def transfer(
    source: nn.Module, target: nn.Module, attack: Attack, samples: Samples, *, seed: int = 0, batch_size: int = 128
) -> tuple[Tensor, Tensor]:
    """What an attack on `source` does to `target` (Carlini et al. 2019, section 4.3).

    Where it breaks `target` more often than the same attack on `target` itself, that one's gradients hide something.

    Args:
        source: the model that the images are made on; what it gets wrong before stays as it is.
        target: the model that is asked.
        attack: any attack.
        samples: what to attack.
        seed: of the attack's draws.
        batch_size: samples a chunk.

    Returns:
        (n,) bool, whether `target` is right before, and (n,) bool, before and after.
    """
    outcome = run_attack(source, attack, samples, seed=seed, batch_size=batch_size, keep_images=True)[-1]
    assert outcome.x_adv is not None
    with frozen(target), torch.no_grad():
        clean = predict(target, samples.x, batch_size) == samples.y
        after = predict(target, outcome.x_adv.to(samples.x), batch_size) == samples.y
    return clean.cpu(), (clean & after).cpu()
