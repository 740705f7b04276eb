"""A shard of an evaluation: every n-th sample, measured into a store of its own; `results merge` joins them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from robustcli.attacks.base import Ensemble, at_budgets, passes_of
from robustcli.measure.journal import series_of
from robustcli.measure.session import Item, Session
from robustcli.store.series import Series

ELSEWHERE = ("batch_size", "workers", "device", "data_dir", "shard")
"""Of a spec, what may differ between machines that measure the same."""


def take_shard(session: Session) -> Session:
    """The shard i/n of the session's spec: of the samples at the positions i - 1, i - 1 + n and so on.

    Its provenance says what the shards of one run have in common, and how many samples of each row are its own.
    """
    number, of = map(int, str(session.spec.shard).split("/"))
    whole = session.provenance()
    items: list[Item] = []
    rows: dict[str, tuple[str, int]] = {}
    for item in session.items:
        part = item.images.take(torch.arange(len(item.images))[number - 1 :: of])
        items.append(replace(item, images=part))
        rows |= {
            one.key: (f"{one.checkpoint} {one.label} {one.eps or ''}".strip(), len(part))
            for one in planned(item, session)
        }
    run = {key: whole[key] for key in ("commit", "data_fingerprint")} | {"version": whole["versions"]["robustcli"]}
    run["spec"] = {key: value for key, value in whole["spec"].items() if key not in ELSEWHERE}
    n, every = [sum(len(item.images) for item in some) for some in (items, session.items)]
    text = f"shard {number} of {of}: {n} of {every} samples"
    shard = {"number": number, "of": of, "text": text, "run": run, "rows": rows}
    return replace(session, items=tuple(items), shard=shard)


def planned(item: Item, session: Session) -> Iterator[Series]:
    """The rows that an item's plan gives in a store, those that have all samples."""
    for one in item.plan:
        eot = max(session.spec.eot or 1, passes_of(one.attack))
        yield series_of(item.target, item.images, session.spec, None, eot=eot)
        for attack in at_budgets(one.attack, one.budgets):
            sampled = getattr(attack, "sampled", 0)  # these do not meet all
            members = len(attack.members) - sampled if isinstance(attack, Ensemble) else 0
            for member in (*range(members), None):
                yield series_of(item.target, item.images, session.spec, attack, member, eot)
