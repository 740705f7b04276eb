"""Where networks are trained once and measured once: both are kept in files, and an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError

from robustcli.attacks.base import at_budgets
from robustcli.config import DataSpec, EvalSpec, TrainSpec
from robustcli.data.load import load
from robustcli.engine.guard import frozen
from robustcli.engine.run import Samples, predict, run_attack
from robustcli.errors import CheckpointError
from robustcli.measure.evaluate import evaluate, to_record
from robustcli.measure.record import Record
from robustcli.measure.session import Session, open_session
from robustcli.models import checkpoint, zoo
from robustcli.models.checkpoint import Checkpoint
from robustcli.models.sources import open_target
from robustcli.provenance import provenance
from robustcli.studies.batchout.design import Network, Probe, Scale
from robustcli.studies.batchout.kept import Kept, probe_key, set_aside
from robustcli.training.loop import Run
from robustcli.training.train import Prepared, prepare, resume, train

Json = dict[str, Any]


def _train(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
    return train(prepared, path, run)


def _measure(session: Session) -> Iterator[Record]:
    return (result.record for result in evaluate(session))


@dataclass(frozen=True)
class Laboratory:
    """Trains and measures networks, in `folder`.

    Attributes:
        folder: keeps checkpoints in `models/` and what was measured of each in `measured/`.
        scale: how much of everything.
        data_dir: where data sets lie.
        device: as `--device` takes it.
        shipped: use the zoo's network where it is the one that is asked for, and it was not trained here.
        train: trains a prepared run; the command line passes one with a progress bar.
        measure: gives a session's rows.
        say: told what is being done, a line each.
    """

    folder: Path
    scale: Scale
    data_dir: Path | None = None
    device: str = "auto"
    shipped: bool = True
    train: Callable[[Prepared, Path, Run], Checkpoint] = _train
    measure: Callable[[Session], Iterator[Record]] = _measure
    say: Callable[[str], None] = field(default=lambda _: None)

    def path(self, network: Network) -> Path:
        """The network's checkpoint: the one that was trained here or, without one, that of the zoo."""
        own, name = self._own(network), network.name.removesuffix("-seed0")
        if not self.shipped or name not in zoo.entries() or self._read(network, own) is not None:
            return own
        shipped = Path(f"{zoo.PREFIX}{name}")
        return own if self._read(network, shipped) is None else shipped

    def _own(self, network: Network) -> Path:
        return self.folder / "models" / f"{network.name}.pt"

    def trained(self, network: Network) -> Path:
        """The network's complete checkpoint: found, gone on with, or trained from the start.

        A checkpoint of another spec, such as an older recipe's, is replaced.

        Raises:
            KeyboardInterrupt: training was interrupted; it goes on from there the next time.
            RobustCliError: data are missing, or training failed.
        """
        path, found = self.path(network), self.found(network)
        if found is not None and found.complete:
            if path != self._own(network):
                self.say(f"{network.name}: {path}, which ships with the package (--no-zoo trains it here)")
            return path
        path = self._own(network)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                checkpoint.sweep(path)
                found = self.found(network)  # another process may have gone on with it in between
                return path if found is not None and found.complete else self._train(network, path, found)
        except Timeout:
            raise CheckpointError(f"{path}: is being trained by another process") from None

    def _train(self, network: Network, path: Path, found: Checkpoint | None) -> Path:
        if found is not None:
            self.say(f"{network.name}: going on after epoch {len(found.history)} of {network.spec.epochs}")
            prepared, run = resume(path, data_dir=self.data_dir, device=self.device)
        else:
            self.say(f"{network.name}: training for {network.spec.epochs} epochs")
            prepared, run = prepare(network.spec, self.data_dir, allow_sample=False, device=self.device), Run()
            if path.exists():
                aside = set_aside(path)
                self.say(f"{path}: has another recipe or other images, or is damaged; it is kept as {aside.name}")
        if not self.train(prepared, path, run).complete:
            raise KeyboardInterrupt
        return path

    def found(self, network: Network) -> Checkpoint | None:
        """What is there of the network, without its tensors' values; None where spec or images differ."""
        return self._read(network, self.path(network))

    def _read(self, network: Network, path: Path) -> Checkpoint | None:
        try:
            found = checkpoint.peek(path)
        except CheckpointError:
            return None
        try:
            same = TrainSpec(**found.spec) == network.spec  # a key that is new since has its default
        except ValidationError:
            return None
        return found if same and found.data["fingerprint"] == self._fingerprint(network, "train") else None

    def rows(self, network: Network, probes: Sequence[Probe], beside: Sequence[Network] = ()) -> list[Json]:
        """The rows of a trained network, clean accuracy within each; only what was not measured before is computed.

        Args:
            network: what to measure.
            probes: the attacks.
            beside: the part's networks, among which the source of images made on another one is found.

        Raises:
            KeyboardInterrupt: what was finished is kept.
            RobustCliError: data are missing, or a model broke its contract.
        """
        path = self.trained(network)
        of = f"{checkpoint.sha256(path)} on {self._fingerprint(network, 'test')}"
        kept = Kept(self.folder / "measured" / f"{network.name}.json", of)
        images = {"test_fingerprint": self._fingerprint(network, "test")}
        met = [probe for probe in probes if probe.price != "dear" or network.spec.seed == 0]
        return [row | images for probe in met for row in self._probe(network, probe, kept, beside)]

    def _probe(self, network: Network, probe: Probe, kept: Kept, beside: Sequence[Network]) -> list[Json]:
        """One row a budget; none where the images would have to be made on a network that is not there."""
        spec, source = self._eval_spec(probe), None
        if probe.source is not None:
            same = [other for other in beside if other.label == probe.source and other.spec.seed == network.spec.seed]
            made = self.found(same[0]) if same else None
            if network.label == probe.source or made is None or not made.complete:  # else its failure were everyone's
                return []
            source = self.path(same[0])
        keys = {eps: probe_key(probe, eps, spec.limit, source) for eps in probe.eps or ("",)}
        missing = [eps for eps, key in keys.items() if key not in kept.rows]
        if missing:
            self.say(f"{network.name}: {probe.attack} {', '.join(missing)}".rstrip())
            only = spec.model_copy(update={"eps": EvalSpec(eps=tuple(missing)).eps}) if probe.eps else spec
            session = open_session([self.path(network)], only)
            origin = provenance(seed=spec.seed, device=session.device, data_fingerprint=None)
            found = self.measure(session) if source is None else self._transferred(session, source)
            whole = (row for row in found if row.ensemble is None)  # of an ensemble, the worst case alone
            for eps, row in zip(missing, whole, strict=True):
                named = {} if source is None else {"source": probe.source}
                kept.add(keys[eps], _counts(network, row, origin, named))
        return [kept.rows[key] for key in keys.values()]

    def _transferred(self, session: Session, source: Path) -> Iterator[Record]:
        """The session's records, with images made on another network."""
        (item,) = session.items
        images, model = item.images, open_target(source).module.to(session.device)
        target = item.target.module.to(session.device)
        samples = Samples(images.pixels(slice(None), session.device), images.y.to(session.device), images.ids)
        for planned in item.plan:
            for attack in at_budgets(planned.attack, planned.budgets):
                made = run_attack(model, attack, samples, seed=session.spec.seed, keep_images=True)[-1]
                assert made.x_adv is not None
                with frozen(target):
                    before, after = (predict(target, x, 128).cpu() for x in (samples.x, made.x_adv.to(samples.x)))
                clean = before == images.y
                robust = clean & (after == images.y)
                distance = torch.where(robust, torch.inf, torch.where(clean, made.distance, 0))
                seen = replace(made, clean=clean, robust=robust, distance=distance, pred=before, pred_after=after)
                yield to_record(item.subject, images, seen)

    def _fingerprint(self, network: Network, split: Literal["train", "test"]) -> str:
        """That of all images that the network is trained on, or may be measured on."""
        limit = network.spec.limit if split == "train" else None
        return _fingerprint(network.spec.dataset, self.data_dir, split, limit)

    def _eval_spec(self, probe: Probe) -> EvalSpec:
        return EvalSpec(
            data_dir=self.data_dir,
            limit=self.scale.test_images(probe.price),
            allow_sample=False,
            attacks=(probe.attack,),
            eps=probe.eps,
            device=self.device,
        )


@lru_cache
def _fingerprint(dataset: str, data_dir: Path | None, split: Literal["train", "test"], limit: int | None) -> str:
    wanted = DataSpec(dataset=dataset, data_dir=data_dir, split=split, limit=limit, allow_sample=False)
    return load(wanted).fingerprint


def _counts(network: Network, record: Record, origin: Json, named: Json) -> Json:
    """A record without its per-sample part and cost, with where it comes from."""
    values = record.as_dict()
    dropped = (
        *("ids", "robust", "y", "pred", "pred_after", "distance", "kind", "bound", "label", "budget"),
        "checkpoint",
        "dataset",
        "model",
        "method",
        "seconds",
        "forwards",
        "backwards",
        "cached",
    )
    kept = {key: value for key, value in values.items() if key not in dropped}
    budget = {} if record.budget is None else {"eps": record.budget}
    kept["attack"] = kept["attack"] | budget | named
    where = ("seed", "commit", "device", "hardware", "threads")
    return {"model": network.name} | kept | {key: origin[key] for key in where}
