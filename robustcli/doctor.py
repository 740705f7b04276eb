"""Whether this installation can be trusted, and an attack on a checkpoint: environment, known answers, zoo and data."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

from robustcli import __version__
from robustcli.attacks import ATTACKS, label, parse_attack
from robustcli.config import DataSpec, EvalSpec, field_names
from robustcli.data.load import data_folder, is_here, load
from robustcli.data.named import DATASETS, SAMPLE
from robustcli.data.torchvision_sets import torchvision_datasets
from robustcli.device import multiplies, pick_device
from robustcli.engine.run import Samples, run_attack
from robustcli.errors import AttackError, DataError, RobustCliError
from robustcli.measure.binarisation import LEAST_FOUND, MOST_FOUND_AT_RANDOM, Binarised, binarise
from robustcli.measure.session import Session, open_session
from robustcli.models import checkpoint, zoo
from robustcli.noise import Noise
from robustcli.provenance import provenance
from robustcli.testing import check_attack, tiny_net, tiny_samples
from robustcli.testing.effort import EPS, WEAK, small_attack

State = Literal["ok", "note", "wrong"]

FINGERPRINTS = {
    ("mnist", "train"): "19cd28297812d23014b151134b4fe98d57467d71858056fc5365eb125c500bcd",
    ("mnist", "test"): "23db7c695ec8f8fcc23914fe6a413b4b941a8699eb229c929591ecb83de2d184",
}
"""Of MNIST as LeCun, Cortes and Burges published it."""

PINNED = (0.2912469506, 0.9075955749, 0.2481548786)
"""The first draws of sample 7 under seed 0: what every result rests on."""


@dataclass(frozen=True)
class Finding:
    """One line: what was examined, its state, and what was found or what to do about it."""

    what: str
    state: State
    message: str


def examine(data_dir: Path | None) -> Iterator[Finding]:
    """All findings, one after the other; nothing is downloaded."""
    yield from _environment()
    yield from _attacks()
    yield _draws()
    yield _batches()
    yield from _zoo()
    yield from _data(data_dir)


def examine_checkpoint(path: Path, spec: EvalSpec) -> Iterator[Finding]:
    """Whether the spec's attacks find on a checkpoint what is planted there: the binarisation test, a line a budget.

    Where no budget is given, it is the larger one of the data's usual two.

    Raises:
        RobustCliError: the checkpoint is missing or unusable, or a flag is.
    """
    try:
        session = open_session([path], spec)
    except DataError as error:
        yield Finding("binarisation", "note", f"not run: {error}")
        return
    yield from _binarised(session)


def _binarised(session: Session) -> Iterator[Finding]:
    (item,) = session.items
    model, x = item.target.module.to(session.device), item.images.batch(slice(None), session.device)
    ids = item.images.ids.to(session.device)
    for planned in item.plan:
        for eps in planned.budgets if session.spec.eps else planned.budgets[-1:]:
            attack, seed, batch_size = planned.attack, session.spec.seed, session.batch_size
            try:
                test = binarise(model, attack, x, eps, attack.norm, seed, ids=ids, batch_size=batch_size)
            except AttackError as error:
                yield Finding("binarisation", "note", f"not run: {str(error).removeprefix('binarisation: ')}")
            else:
                yield Finding("binarisation", *_judged(test))


def _judged(test: Binarised) -> tuple[State, str]:
    found, at_random = sum(test.found), sum(test.found_at_random)
    message = f"{label(test.attack)} finds {found} of {test.n} adversarials planted at {test.norm.label} {test.eps}"
    message += f", random draws {at_random}"
    if test.asr < LEAST_FOUND:
        return "wrong", (
            f"{message}: it misses what is there, so this model's accuracy under it is too high; take a stronger "
            "attack, such as apgd or square"
        )
    if test.random_asr >= MOST_FOUND_AT_RANDOM:
        return "note", f"{message}: too easy to tell anything; another --eps may be harder"
    return "ok", message


def _environment() -> Iterator[Finding]:
    device = pick_device("auto")
    hardware = provenance(seed=None, device=device, data_fingerprint=None)["hardware"]
    yield Finding("robustcli", "ok", f"{__version__}, Python {platform.python_version()}, {platform.system()}")
    yield Finding("torch", "ok", f"{torch.__version__}, {device} ({hardware}), {torch.get_num_threads()} threads")
    if multiplies("bfloat16", device):
        yield Finding("bfloat16", "ok", "in hardware")
    else:
        yield Finding("bfloat16", "note", f"slow here: {hardware} has no instructions for it; take float32")
    try:
        torchvision_datasets("torchvision")
    except DataError as error:
        yield Finding("torchvision", "wrong", str(error).partition(": ")[2])
    else:
        yield Finding("torchvision", "ok", metadata.version("torchvision"))


def _attacks() -> Iterator[Finding]:
    """Each attack in each norm that it takes, against models whose robust set is known."""
    for name, build in ATTACKS.items():
        norms = [norm for norm in EPS if _takes(name, norm)]
        with _one_thread():
            problems = [problem for norm in norms if (problem := _broken_contract(name, norm))]
        intact = f"keeps its contract in {', '.join(norms)}: {build.summary}"
        yield Finding(name, "wrong" if problems else "ok", "; ".join(problems) or intact)


@contextmanager
def _one_thread() -> Iterator[None]:
    """For networks of a few hundred parameters: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _takes(name: str, norm: str) -> bool:
    try:
        small_attack(name, norm)
    except RobustCliError:
        return False
    return "norm" in field_names(ATTACKS[name])


def _broken_contract(name: str, norm: str) -> str:
    try:
        check_attack(small_attack(name, norm), weak=name in WEAK)
    except AssertionError as error:
        return f"in {norm}: {error}"
    return ""


def _draws() -> Finding:
    found = Noise(0, torch.tensor([7])).uniform(torch.empty(1, 3, dtype=torch.float64))[0].tolist()
    if all(abs(a - b) < 1e-6 for a, b in zip(found, PINNED, strict=True)):
        return Finding("draws", "ok", "are those of every other machine")
    return Finding("draws", "wrong", f"are {found}, elsewhere {PINNED}: results cannot be compared")


def _batches() -> Finding:
    net = tiny_net()
    samples = tiny_samples(net, 40)
    attack = parse_attack("pgd", {"eps": EPS["linf"]})
    flags = [run_attack(net, attack, samples, batch_size=size)[0].robust for size in (40, 7)]
    order = torch.arange(len(samples)).flip(0)
    shuffled = Samples(samples.x[order], samples.y[order], samples.ids[order])
    flags.append(run_attack(net, attack, shuffled)[0].robust[order])
    if all(torch.equal(flags[0], other) for other in flags):
        return Finding("determinism", "ok", "flags do not depend on batch size or order")
    return Finding("determinism", "wrong", "flags depend on batch size or order: results cannot be trusted")


def _zoo() -> Iterator[Finding]:
    entries = zoo.entries()
    damaged = [name for name, entry in entries.items() if not _intact(entry)]
    if damaged:
        yield Finding("zoo", "wrong", f"{', '.join(damaged)}: damaged or missing; install the package again")
    else:
        yield Finding("zoo", "ok", f"{len(entries)} networks, all intact")


def _intact(entry: zoo.Entry) -> bool:
    try:
        return checkpoint.sha256(entry.path) == entry.sha256
    except RobustCliError:
        return False


def _data(data_dir: Path | None) -> Iterator[Finding]:
    folder = data_folder(data_dir)
    for name in (name for name, known in DATASETS.items() if known.shape):
        if not is_here(name, data_dir):
            message = f"not in {folder}; give its folder by --data-dir or $ROBUSTCLI_DATA, or let it be downloaded"
            yield Finding(name, "note", message)
            continue
        spec = DataSpec(dataset=name, data_dir=data_dir, allow_sample=False)
        try:
            train, test = (load(spec.model_copy(update={"split": split})) for split in ("train", "test"))
        except RobustCliError as error:
            yield Finding(name, "wrong", str(error))
            continue
        where = "bundled" if name == SAMPLE else f"in {folder}"
        message = f"{len(train)} training and {len(test)} test images, {where}"
        published = {split: FINGERPRINTS.get((name, split)) for split in ("train", "test")}
        found = {"train": train.fingerprint, "test": test.fingerprint}
        altered = [split for split, known in published.items() if known not in (None, found[split])]
        if altered:
            yield Finding(name, "wrong", f"{message}: its {' and '.join(altered)} images are not the published ones")
        else:
            yield Finding(name, "ok", message + ", bit for bit" * (published["train"] is not None))
