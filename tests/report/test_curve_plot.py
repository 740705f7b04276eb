from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.image import imread

from robustcli.measure.curve import curves
from robustcli.report.curve_plot import save_curves

from ..records import record


def test_a_picture_has_a_panel_a_norm(tmp_path: Path) -> None:
    (curve,) = curves([record("fmn", distance=(0.0, 0.1, 0.2, math.inf))], ("cat",))
    save_curves([(curve, [0.0, 0.1, 0.3])], tmp_path / "one.png")
    save_curves([(curve, [0.0, 0.1, 0.3]), (replace(curve, norm="l2"), [0.0, 1.0])], tmp_path / "two.png")
    one, two = (torch.from_numpy(imread(tmp_path / name)) for name in ("one.png", "two.png"))
    assert two.shape[1] == 2 * one.shape[1]
    assert 0.3 < float(one.mean()) < 0.99
