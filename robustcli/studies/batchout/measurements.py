"""What attacks leave of a network: a row an attack and budget, measured once and recalled from the store by sample."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from robustcli.attacks import FGSM
from robustcli.attacks.base import at_budgets
from robustcli.config import EvalSpec
from robustcli.measure.journal import CacheJournal
from robustcli.measure.plan import make_plan
from robustcli.measure.record import Record
from robustcli.measure.session import Session, open_session
from robustcli.models.sources import open_target
from robustcli.provenance import provenance
from robustcli.store.browse import RUNS
from robustcli.store.cache import Cache, series_id
from robustcli.store.database import StoreError, select
from robustcli.store.series import Series
from robustcli.studies.batchout.experiments import AttackSpec, Network, Price
from robustcli.studies.batchout.networks import checkpoint_path, find_checkpoint, train_network
from robustcli.studies.batchout.study import Study
from robustcli.studies.batchout.transfer_attack import transfer_from

Json = dict[str, Any]

COUNTS = (
    *("checkpoint_sha256", "attack", "norm", "eps", "n", "clean_correct", "correct", "accuracy", "ci95"),
    *("median_distance", "by_iter", "unconverged"),
)
"""What a part's row has of a record: nothing by sample, and no cost."""

ORIGIN = ("seed", "commit", "device", "hardware", "threads")
"""What a part's row has of the provenance of the run that measured it."""


def measure_network(
    study: Study, network: Network, attacks: Sequence[AttackSpec], beside: Sequence[Network] = ()
) -> list[Json]:
    """The rows of a network, which is trained if need be; only what was not measured before is computed.

    A dear attack meets the first seed alone. There is no row of images made on another network where that one is the
    network itself or was not trained: else its failure were everyone's.

    Args:
        study: the settings.
        network: what to measure.
        attacks: what it meets.
        beside: the part's networks, among which the source of images made on another one is found.

    Raises:
        KeyboardInterrupt: what was finished is kept.
        RobustCliError: data are missing, or a model broke its contract.
    """
    path = train_network(study, network)
    rows: list[Json] = []
    for price, group in groupby(attacks, lambda attack: attack.price):
        sources = {attack: _source(study, network, attack, beside) for attack in group}
        met = {attack: source for attack, source in sources.items() if attack.source is None or source is not None}
        if met and (price != "dear" or network.spec.seed == 0):
            rows += _measure(study, network, _open(study, path, price, met), list(met))
    return rows


def _source(study: Study, network: Network, attack: AttackSpec, beside: Sequence[Network]) -> Path | None:
    """The complete checkpoint that the images are made on, of the network's seed and not the network itself."""
    if attack.source in (None, network.label):
        return None
    same = [other for other in beside if other.label == attack.source and other.spec.seed == network.spec.seed]
    found = find_checkpoint(study, same[0]) if same else None
    return checkpoint_path(study, same[0]) if found is not None and found.complete else None


def _open(study: Study, path: Path, price: Price, attacks: dict[AttackSpec, Path | None]) -> Session:
    """A session of one network, on as many images as attacks of that price meet."""
    spec = EvalSpec(
        data_dir=study.data_dir, limit=study.scale.test_images(price), allow_sample=False, device=study.device
    )
    session = open_session([path], spec)
    (item,) = session.items
    plan = []
    for attack, source in attacks.items():
        (planned,) = make_plan(EvalSpec(attacks=(attack.attack,), eps=attack.eps), item.images.shape)
        if source is not None:
            assert isinstance(planned.attack, FGSM)
            planned = replace(planned, attack=transfer_from(open_target(source), session.device))
        plan.append(planned)
    return replace(session, items=(replace(item, plan=plan),))


def _measure(study: Study, network: Network, session: Session, attacks: Sequence[AttackSpec]) -> list[Json]:
    """The session's rows, each with where it comes from."""
    (item,) = session.items
    expected = [
        (attack, variant)
        for attack, planned in zip(attacks, item.plan, strict=True)
        for variant in at_budgets(planned.attack, planned.budgets)
    ]
    origin = functools.cache(lambda: _provenance(session))
    images = {"test_fingerprint": study.fingerprint(network, "test")}
    cache, rows = Cache(study.store, origin), []
    try:
        with cache:
            journal = CacheJournal(cache, item.target, item.images, session.spec, recalls=True)
            whole = (record for record in study.measure(session, cache) if record.ensemble is None)  # no members
            for (attack, variant), record in zip(expected, whole, strict=True):
                if record.cached < record.n:
                    source = attack.source and f"from {attack.source}"
                    what = " ".join(filter(None, (attack.attack, record.budget, source)))
                    study.say(f"{network.name}: {what}: {record.correct} of {record.n} left")
                runs = _runs(cache, journal.series(variant)) if record.cached else []
                rows.append(_row(network, attack, record, runs or [origin()]) | images)
    finally:
        for line in cache.troubles():
            study.say(line.removeprefix("--store "))
    return rows


def _provenance(session: Session) -> Json:
    (item,) = session.items
    return provenance(
        seed=session.spec.seed,
        device=session.device,
        data_fingerprint=item.images.fingerprint,
        spec=session.resolved(),
    )


def _runs(cache: Cache, series: Series) -> list[Json]:
    """The provenance of each run that measured samples of a series, the first one first; none where it is not read."""
    with suppress(StoreError, ValueError):
        if cache.connection is not None:
            found = select(cache.connection, RUNS, series_id(cache.connection, series))
            return [dict(json.loads(origin)) for _, origin, _ in found]
    return []


def _row(network: Network, attack: AttackSpec, record: Record, runs: Sequence[Json]) -> Json:
    """A record as a part's JSON holds it, from the run that began it; where others went on, with their commits."""
    values = record.as_dict()
    row = {"model": network.name} | {key: values[key] for key in COUNTS if key in values}
    row["attack"] = (
        row["attack"]
        | ({} if record.budget is None else {"eps": record.budget})
        | ({} if attack.source is None else {"source": attack.source})
    )
    first, *others = runs
    resumed = {"resumed": [run.get("commit") for run in others]} if others else {}
    return row | {key: first.get(key) for key in ORIGIN} | resumed
