"""The contracts of models and objectives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustcli.attacks.losses import cross_entropy
from robustcli.engine.guard import frozen
from robustcli.engine.run import Samples
from robustcli.noise import Noise
from robustcli.testing.state import require, require_unchanged, state_of
from robustcli.testing.tiny import tiny_net, tiny_samples
from robustcli.training.objectives import Objective


def check_model(model: nn.Module, shape: tuple[int, int, int], classes: int) -> None:
    """Check that a model is one that attacks and tables can trust, in eval mode; it is given back as it was.

    - logits (n, classes), finite, and the same for the same images;
    - a sample's logits do not depend on the other samples of its batch;
    - the loss has a finite gradient with respect to every image, without which attacks find nothing and a model looks
      robust;
    - a forward pass changes neither the images, the model nor a global random state.

    Args:
        model: what to check.
        shape: (c, h, w) of its images.
        classes: how many logits a sample has.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    ids = torch.arange(5)
    x = Noise(0, ids).uniform(torch.empty(len(ids), *shape, dtype=dtype))
    samples = Samples(x, ids % classes, ids)
    with frozen(model):
        before = state_of(model, samples)
        logits = model(samples.x).detach()
        returned, expected = tuple(logits.shape), (len(samples), classes)
        require(returned == expected, f"the model returned shape {returned}; should be {expected}")
        require(bool(logits.isfinite().all()), "the model returned NaN or infinite logits")
        require_unchanged("the model", before, state_of(model, samples))
        require(bool(torch.equal(model(x), logits)), "the model gave other logits for the same images in eval mode")
        alone = torch.cat([model(image[None]) for image in x])
        gap = float((alone - logits).abs().max() / logits.abs().max().clamp_min(1e-3))
        require(gap < 1e-3, f"the model's logits depend on the batch: they move by {gap:.2g} where a sample is alone")
        _check_input_gradient(model, samples)


def _check_input_gradient(model: nn.Module, samples: Samples) -> None:
    x = samples.x.clone().requires_grad_()
    loss = cross_entropy(model(x), samples.y).sum()
    gradient = torch.autograd.grad(loss, x, allow_unused=True)[0] if loss.requires_grad else None
    require(gradient is not None, "the model passes no gradient to its images")
    assert gradient is not None
    require(bool(gradient.isfinite().all()), "the gradient of the loss is NaN or infinite")
    flat = int((~gradient.flatten(1).any(1)).sum())
    require(flat == 0, f"the gradient of the loss is zero for {flat} of {len(samples)} images")


def check_objective(objective: Objective) -> None:
    """Check that a training objective keeps the contract that `fit` and resuming rely on, on a tiny float64 net.

    - it returns a finite scalar loss with a gradient to every parameter, and the batch's logits (m, classes), in a
      batch of one too;
    - it leaves images, labels and ids as they are, and the model's parameters, gradients, `requires_grad` and
      train/eval flags; running statistics may change, and so may the global random state of torch, which `fit` keeps;
    - the same seed gives the same loss.

    Args:
        objective: what to check.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    samples = tiny_samples(tiny_net(), 8)
    with torch.random.fork_rng(devices=[]):
        loss = _checked_loss(objective, samples)
        again = _checked_loss(objective, samples)
        require(bool(torch.equal(loss, again)), "the objective gave another loss for the same seed")
        _checked_loss(objective, samples[:1])


def _checked_loss(objective: Objective, samples: Samples) -> Tensor:
    """The loss on a fresh tiny net in train mode."""
    torch.manual_seed(0)
    net = tiny_net().train()
    before = state_of(net, samples)
    loss, logits = objective(net, samples.x, samples.y, Noise(0, samples.ids))
    after = state_of(net, samples)
    may_change = ("the buffer", "the global random state of torch")
    fixed = {what: value for what, value in before.items() if not what.startswith(may_change)}
    require_unchanged("the objective", fixed, after)
    found, wanted = tuple(logits.shape), (len(samples), 3)
    require(found == wanted, f"the objective returned logits of shape {found}; should be {wanted}")
    require(loss.shape == (), f"the objective returned a loss of shape {tuple(loss.shape)}; should be a scalar")
    require(bool(loss.isfinite()), f"the objective returned a loss of {loss.item()}")
    require(loss.requires_grad, "the objective returned a loss without a gradient")
    names, parameters = zip(*net.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        require(gradient is not None, f"the objective gives {name} no gradient")
        require(bool(gradient.isfinite().all()), f"the objective gives {name} a gradient of NaN or infinity")
    return loss.detach()
