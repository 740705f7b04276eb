"""`robustcli.evaluate` in a program or a notebook: the document of `robustcli evaluate`, made by the same path."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from robustcli.attacks.base import Attack, BudgetAttack, Ensemble, MinimalAttack
from robustcli.config import DataSpec, EvalSpec, validated
from robustcli.data.images import Images
from robustcli.data.load import load
from robustcli.disk import write_whole
from robustcli.errors import ConfigError, DataError, one_line, unknown
from robustcli.fields import Eps
from robustcli.measure.document import make_document, read_document
from robustcli.measure.evaluate import evaluate as measure
from robustcli.measure.plan import PRESETS, Planned
from robustcli.measure.session import fit_for, make_session
from robustcli.models.inputs import Preprocessing
from robustcli.models.sources import check_values, open_target
from robustcli.models.target import Target, key_of
from robustcli.report.formats import print_document
from robustcli.store.cache import Cache
from robustcli.verdict.judge import as_document, before, verdicts

Model = nn.Module | str | Path
Data = Images | str | Path | tuple[Any, Any]
CHECKS = ("off", "quick", "full")
Attacks = str | Attack | Sequence[str | Attack]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: the document that `robustcli evaluate --json` writes.

    A notebook shows it as the table that the command prints.

    Attributes:
        document: the whole of it, plain values.
    """

    document: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Evaluation:
        """What was saved.

        Raises:
            DataError: the file cannot be read, or is no such document.
        """
        return cls(read_document(Path(path)))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One an attack and budget; rates are fractions."""
        return list(self.document["rows"])

    @property
    def verdict(self) -> str | None:
        """The word: RELIABLE, PRELIMINARY, SUSPECT or INVALID; None where no checks were asked for."""
        found = self.document["verdict"]
        return None if found is None else str(found["word"])

    def table(self, style: str = "table", width: int = 100) -> str:
        """The tables and the verdict as text.

        Args:
            style: `table`, `markdown`, `latex`, `csv` or `json`.
            width: of a line, in characters.
        """
        console = Console(file=StringIO(), width=width, color_system=None)
        print_document(self.document, style, console)
        assert isinstance(console.file, StringIO)
        return console.file.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the document as JSON, for `robustcli report` and `Evaluation.read`.

        Raises:
            RobustCliError: the file cannot be written.
        """
        write_whole(Path(path), (json.dumps(self.document, allow_nan=False) + "\n").encode(), "save")

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        console = Console(file=StringIO(), width=110, record=True, force_jupyter=False)
        console.print(self.table(width=110), markup=False, highlight=False, soft_wrap=True)
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def evaluate(
    model: Model,
    data: Data,
    *,
    attacks: Attacks = "quick",
    eps: Sequence[float | str] | float | str = (),
    checks: str = "quick",
    store: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> Evaluation:
    """Measure a model under attacks.

    Args:
        model: a module that takes pixels (n, c, h, w) in [0, 1] (`normalize` says what comes before it), or a text as
            the command takes it, such as `zoo:mnist-vanilla`, `net.py:make@w.pt` or `timm:NAME`.
        data: images and classes `(x, y)`, x (n, c, h, w) uint8 or floats in [0, 1], y (n,); `Images`; or a data set's
            name or path.
        attacks: a preset (`quick`, `standard`, `fast`, `paper`), a SPEC such as `pgd:steps=40`, an attack, or several.
        eps: budgets in pixel units, such as `8/255`; without any, an attack's own or the data's usual ones.
        checks: `off`, `quick` or `full`.
        store: a file that keeps every sample's result, so that nothing is computed twice.
        force: measure although a check says INVALID.
        options: as the command's flags: `limit`, `seed`, `norm`, `steps`, `iters`, `eot`, `batch_size`, `device`,
            `dtype`, `split`, `data_dir`, `normalize`, `resize`, `crop`, `weights`.

    Raises:
        RobustCliError: something is missing, does not fit or failed; says what.
    """
    if checks not in CHECKS:
        raise unknown("checks", checks, CHECKS)
    spec, own = _read(attacks, eps, options)
    if spec.weights is not None and not isinstance(model, str | Path):
        raise ConfigError(f"weights {spec.weights}: go with the text of a model; a module has its own")
    target = open_target(model, spec.weights) if isinstance(model, str | Path) else _of_module(model)
    images, whole = _images(data, spec, target)
    planned = [Planned(one, (Eps(one.eps),) if isinstance(one, BudgetAttack) else ()) for one in own]
    session = make_session([(target, images, whole)], spec, planned)
    preflights = before(session) if checks != "off" else {}
    refused = not force and any(one.level == "INVALID" for found in preflights.values() for one in found)
    notes = [("warning", line) for line in session.warnings()]
    notes += [("notice", line) for line in (*images.notices, *session.notices())]
    with nullcontext() if store is None else Cache(Path(store), session.provenance) as cache:
        warn = lambda line: notes.append(("warning", line))  # noqa: E731
        records = [] if refused else [one.record for one in measure(session, cache=cache, on_notice=warn)]
    notes += [("warning", line) for line in (cache.troubles() if cache is not None else ())]
    full = checks == "full" and not refused
    found = verdicts(session, records, preflights, full=full) if checks != "off" else []
    verdict = as_document(found, checks)
    parts: dict[str, Any] = {"verdict": verdict, "notes": notes, "training": session.training()}
    return Evaluation(make_document("evaluate", records, session.provenance(), **parts))


def _read(attacks: Attacks, eps: Any, options: Mapping[str, Any]) -> tuple[EvalSpec, list[Attack]]:
    """The spec, and the attacks that were given as values."""
    given = list(attacks) if isinstance(attacks, Iterable) and not isinstance(attacks, str) else [attacks]
    presets = [one for one in given if isinstance(one, str) and one in PRESETS]
    if len(presets) > 1:
        raise ConfigError(f"attacks: names {len(presets)} presets ({', '.join(presets)}); should be one")
    texts = tuple(one for one in given if isinstance(one, str) and one not in PRESETS)
    budgets = () if eps is None else (eps,) if isinstance(eps, str) or not isinstance(eps, Iterable) else tuple(eps)
    values = dict(options) | {"attacks": texts, "preset": presets[0] if presets else None}
    own = [one for one in given if not isinstance(one, str)]
    values["eps"] = tuple(map(str, budgets))
    for one in own:
        if not isinstance(one, BudgetAttack | MinimalAttack | Ensemble):
            raise ConfigError(f"attacks: has a {type(one).__name__}; should be a preset, a SPEC or an attack")
    if budgets and not (texts or presets) and own:
        raise ConfigError(f"eps {budgets[0]}: none of the attacks leaves it open; each has its own")
    return validated(EvalSpec, values, "evaluate"), own


def _of_module(module: nn.Module) -> Target:
    if not isinstance(module, nn.Module):
        raise ConfigError(f"model: is a {type(module).__name__}; should be a torch.nn.Module or the text of a model")
    module = module.module if isinstance(module, nn.DataParallel) else module
    name = type(module).__name__
    check_values(module, name)
    return Target(module, name, key_of(module), None, (), input=Preprocessing("auto"))


def _images(data: Data, spec: EvalSpec, target: Target) -> tuple[Images, Callable[[], Images]]:
    """The images up to the limit, and what gives all of them."""
    if isinstance(data, str | Path):
        wanted = DataSpec(
            dataset=str(data),
            data_dir=spec.data_dir,
            split=spec.split,
            limit=spec.limit,
            allow_sample=spec.allow_sample,
            fit=fit_for(target, spec),
        )
        return load(wanted), partial(load, wanted.model_copy(update={"limit": None}))
    if not isinstance(data, Images):
        try:
            x, y = data
        except (TypeError, ValueError):
            kind = type(data).__name__
            raise ConfigError(f"data: is a {kind}; should be (x, y), Images, or a data set's name or path") from None
        data = from_arrays(x, y)
    whole = data
    return whole.take(slice(DataSpec(limit=spec.limit).count)), lambda: whole


def _integers(y: Any) -> Any:
    """Labels of any integer type as those that torch has."""
    return y.astype(np.int64) if y.dtype.kind in "iu" else y


def from_arrays(x: Any, y: Any) -> Images:
    """Images of arrays or tensors: x (n, c, h, w) uint8, or floats in [0, 1], which are rounded to 8 bits; y (n,).

    Raises:
        DataError: another shape, type or range.
    """
    try:
        pixels = x.detach().cpu() if isinstance(x, Tensor) else torch.from_numpy(np.asarray(x))
        labels = y.detach().cpu() if isinstance(y, Tensor) else torch.from_numpy(_integers(np.asarray(y)))
    except (TypeError, ValueError) as error:
        raise DataError(f"data: x and y should be arrays of numbers: {one_line(error)}") from None
    if pixels.ndim == 4 and pixels.shape[1] > 3 >= pixels.shape[3]:
        raise DataError(f"data: x is {tuple(pixels.shape)}; its channels come last: should be (n, c, h, w)")
    if pixels.ndim != 4 or labels.shape != pixels.shape[:1] or not len(labels):
        raise DataError(f"data: x is {tuple(pixels.shape)}, y {tuple(labels.shape)}; should be (n, c, h, w) and (n,)")
    if labels.is_floating_point() or labels.is_complex() or int(labels.min()) < 0:
        raise DataError(f"data: y is {labels.dtype} from {labels.min()}; should be classes as integers from 0")
    notices: tuple[str, ...] = ()
    if pixels.is_floating_point():
        low, high = map(float, pixels.aminmax())
        if not (low >= 0 and high <= 1):
            raise DataError(f"data: x lies in [{low:g}, {high:g}]; should be pixels in [0, 1], without normalisation")
        levels = (pixels * 255).round()
        moved = float((levels / 255 - pixels).abs().max())
        if moved > 1e-6:
            notices = (f"pixels are rounded to 8 bits, by {moved:.2g} at most",)
        pixels = levels.byte()
    if pixels.dtype != torch.uint8:
        raise DataError(f"data: x is {pixels.dtype}; should be uint8 or floats in [0, 1]")
    ids = torch.arange(len(labels))
    images = Images(pixels.contiguous(), labels.long(), ids, (), "arrays", "", notices=notices)
    return replace(images, source=f"arrays/{images.fingerprint[:12]}")
