"""The frozen results are what the peers give; with --write-goldens, they become so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import peers
import pytest
import torch
import torch.nn.functional as F
from golden.frozen import FILE, SIDE, Small, bare_net, measure, read, small
from torch import Tensor

from robustcli.attacks import parse_attack
from robustcli.config import DataSpec
from robustcli.data.images import Images
from robustcli.data.load import load

PACKAGES = {"foolbox": "foolbox", "torchattacks": "torchattacks", "art": "adversarial-robustness-toolbox"}

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(any(find_spec(name) is None for name in PACKAGES), reason="run `make peers`"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

N = 50
PGD = {"linf": "steps=10,step_size=0.03", "l2": "steps=10,step_size=0.1,norm=l2"}
PLAIN = "random_start=false,early_stop=false"


@dataclass(frozen=True)
class Golden:
    """One run of a peer, our SPEC for it, and how far ours may be off: in pixels, and in flags."""

    peer: str
    spec: str
    run: Callable[[Small], peers.Run]
    tolerance: float
    flags: int = 0


def foolbox(spec: str, attack: str, tolerance: float = 1e-7, flags: int = 0, **options: Any) -> Golden:
    return Golden(
        f"foolbox.{attack}",
        spec,
        lambda task: peers.foolbox(task.net, attack, **options),
        tolerance,
        flags,
    )


def torchattacks(spec: str, attack: str, tolerance: float = 1e-7, flags: int = 0, **options: Any) -> Golden:
    return Golden(
        f"torchattacks.{attack}",
        spec,
        lambda task: peers.torchattacks(task.net, attack, **options),
        tolerance,
        flags,
    )


def art(spec: str, attack: str, **options: Any) -> Golden:
    shape = (1, SIDE, SIDE)

    def run(task: Small) -> peers.Run:
        net = bare_net().float().eval()
        net.load_state_dict(task.net.state_dict())
        perturb = peers.art(net, attack, shape, batch_size=N, **options)
        return lambda x, y: perturb(x.float(), y).double()

    return Golden(f"art.{attack}", spec, run, tolerance=1e-5)


GOLDENS = (
    *(foolbox(f"fgsm:eps={eps}", "LinfFastGradientAttack", eps=eps) for eps in (0.05, 0.1, 0.3)),
    foolbox("fgsm:eps=0.5,norm=l2", "L2FastGradientAttack", eps=0.5),
    foolbox(f"pgd:eps=0.1,{PGD['linf']},{PLAIN}", "LinfPGD", eps=0.1, steps=10, abs_stepsize=0.03, random_start=False),
    foolbox(f"pgd:eps=0.5,{PGD['l2']},{PLAIN}", "L2PGD", eps=0.5, steps=10, abs_stepsize=0.1, random_start=False),
    # foolbox aims 1e-4 beyond a boundary, ours less: 1e-4 a step of distance, and more flags where clipping creeps.
    *(
        foolbox(f"deepfool:iters={iters},box=clip,norm={norm}", attack, tolerance=1e-3, flags=flags, steps=iters)
        for norm, attack in (("l2", "L2DeepFoolAttack"), ("linf", "LinfDeepFoolAttack"))
        for iters, flags in ((1, 1), (50, 0))
    ),
    torchattacks("fgsm:eps=0.1", "FGSM", eps=0.1),
    torchattacks(f"pgd:eps=0.1,{PGD['linf']},{PLAIN}", "PGD", eps=0.1, alpha=0.03, steps=10, random_start=False),
    torchattacks(
        f"pgd:eps=0.5,{PGD['l2']},{PLAIN}",
        "PGDL2",
        eps=0.5,
        alpha=0.1,
        steps=10,
        random_start=False,
        eps_for_division=0.0,
    ),
    torchattacks(
        "mifgsm:eps=0.1,steps=10,step_size=0.03,early_stop=false", "MIFGSM", eps=0.1, alpha=0.03, steps=10, decay=1.0
    ),
    torchattacks("deepfool:iters=1,box=clip", "DeepFool", tolerance=1e-4, flags=1, steps=1),
    art("fgsm:eps=0.1", "FastGradientMethod", eps=0.1),
    art(
        f"pgd:eps=0.1,{PGD['linf']},{PLAIN}",
        "ProjectedGradientDescent",
        eps=0.1,
        eps_step=0.03,
        max_iter=10,
        num_random_init=0,
        verbose=False,
    ),
)


def results(task: Small) -> list[dict[str, Any]]:
    """What the peers make of the digits now."""
    found = []
    for golden in GOLDENS:
        x_adv: Tensor = golden.run(task)(task.x, task.y)
        entry = {"peer": golden.peer, "spec": golden.spec, "tolerance": golden.tolerance, "flags": golden.flags}
        found.append(entry | measure(task, parse_attack(golden.spec).norm, x_adv))
    return found


def shrunk(images: Images) -> Tensor:
    """(n, 1, 8, 8) uint8: the inner 24x24 pixels, averaged."""
    return F.avg_pool2d(images.x[:, :, 2:26, 2:26].double(), 3).round().to(torch.uint8)


def fresh() -> dict[str, Any]:
    """A network trained on 2000 small digits, its weights cut to 4 digits, and N test digits that it gets right."""
    train, test = (load(DataSpec(dataset="mnist-sample", split=split, limit=2000)) for split in ("train", "test"))
    x = shrunk(train).double() / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = bare_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(300):
        loss = F.cross_entropy(net(x), train.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = {
        name: [float(f"{value:.4g}") for value in weight.flatten().tolist()]
        for name, weight in net.state_dict().items()
    }
    pixels = shrunk(test).flatten(1)
    frozen = {"weights": weights, "images": pixels.tolist(), "labels": test.y.tolist()}
    task = small(frozen)
    right = (task.net(task.x).argmax(1) == task.y).nonzero()[:N, 0]
    return {"weights": weights, "images": pixels[right].tolist(), "labels": test.y[right].tolist()}


def test_the_frozen_results_are_those_of_the_peers(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-goldens", default=False):
        kept = read() if FILE.exists() else fresh()
        versions = {name: version(name) for name in (*PACKAGES.values(), "torch")}
        frozen = {"versions": versions} | {key: kept[key] for key in ("weights", "images", "labels")}
        FILE.write_text(in_lines(frozen | {"runs": results(small(kept))}))
    frozen = read()
    for old, new in zip(frozen["runs"], results(small(frozen)), strict=True):
        assert (old["peer"], old["spec"], old["standing"]) == (new["peer"], new["spec"], new["standing"])
        for key in ("distance", "wave"):
            torch.testing.assert_close(torch.tensor(new[key]), torch.tensor(old[key]), atol=1e-5, rtol=0)


def in_lines(frozen: dict[str, Any]) -> str:
    """JSON with a line for each key and each run."""
    runs = ",\n".join(json.dumps(run) for run in frozen["runs"])
    rest = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in frozen.items() if key != "runs")
    return f'{{\n{rest}"runs": [\n{runs}\n]\n}}\n'
