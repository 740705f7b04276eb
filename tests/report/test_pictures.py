from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robustcli.attacks import FGSM
from robustcli.data.images import Images
from robustcli.engine.run import Outcome, Samples, run_attack
from robustcli.errors import ConfigError
from robustcli.measure.curve import curves
from robustcli.report.image_files import save_images
from robustcli.report.pictures import Picture, choose_pictures, save_curves, save_gallery

from ..records import record


def picture(channels: int = 1, moved: float = 0.1) -> Picture:
    x = torch.linspace(0, 1, channels * 64).reshape(channels, 8, 8)
    return Picture(x, (x + moved).clamp(0, 1), "cat", "cat", "dog", 0.99, 0.5, "Linf 0.1")


def attacked(n: int = 12) -> tuple[nn.Module, Images, Outcome]:
    """A linear model that says whether an image is brighter than 0.4, attacked at 0.05."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))  # type: ignore[operator]
        model[1].bias.copy_(torch.tensor([6.4, -6.4]))  # type: ignore[operator]
    x = (torch.linspace(0.2, 0.6, n)[:, None, None, None] * 255).round().to(torch.uint8).expand(n, 1, 4, 4).contiguous()
    y = (torch.arange(n) >= n // 2).long()
    y[0] = 1  # wrong before the attack
    images = Images(x, y, torch.arange(n) + 50, ("dark", "light"), "shades", "shades/test")
    (outcome,) = run_attack(model, FGSM(eps=0.05), Samples(images.batch(slice(None)), y, images.ids), keep_images=True)
    return model, images, outcome


def test_broken_samples_are_shown_first_and_wrong_ones_never() -> None:
    pictures = choose_pictures(*attacked())
    fooled = [shown.after != shown.label for shown in pictures]
    assert len(pictures) == 8
    assert fooled == sorted(fooled, reverse=True)
    assert 0 < sum(fooled) < 8
    assert all(shown.before == shown.label for shown in pictures)


def test_a_picture_says_what_the_model_says_of_it() -> None:
    first = choose_pictures(*attacked())[0]
    assert (first.before, first.after) in (("dark", "light"), ("light", "dark"))
    assert all(0.5 <= share <= 1 for share in (first.confidence, first.confidence_after))
    assert first.distance == "Linf 0.05"


def test_saved_arrays_are_the_outcome(tmp_path: Path) -> None:
    _, images, outcome = attacked()
    save_images(images, outcome, tmp_path / "adv.npz")
    with np.load(tmp_path / "adv.npz") as arrays:
        assert set(arrays) == {"x", "x_adv", "y", "pred", "pred_after", "ids"}
        assert outcome.x_adv is not None
        assert np.array_equal(arrays["x_adv"], outcome.x_adv.numpy())
        assert np.array_equal(arrays["ids"], images.ids.numpy())
        assert (arrays["x"].dtype, arrays["x"].max() <= 1) == (np.float32, True)


@pytest.mark.parametrize("pictures", [[], [picture()], [picture(3)], [picture(moved=0.0)], [picture()] * 8])
def test_a_gallery_of_any_pictures_is_a_png(tmp_path: Path, pictures: list[Picture]) -> None:
    path = tmp_path / "g.img"  # any suffix
    save_gallery(pictures, "title $with_ 50% [signs]", path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width >= 225 * max(1, len(pictures))


def test_a_file_that_cannot_be_written_names_its_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--gallery .*no/g\.png: No such file or directory"):
        save_gallery([picture()], "t", tmp_path / "no" / "g.png")


def test_curves_have_a_panel_a_norm(tmp_path: Path) -> None:
    (curve,) = curves([record("fmn", distance=(0.0, 0.1, 0.2, math.inf))], ("cat",))
    save_curves([(curve, [0.0, 0.1, 0.3])], tmp_path / "one.png")
    save_curves([(curve, [0.0, 0.1, 0.3]), (replace(curve, norm="l2"), [0.0, 1.0])], tmp_path / "two.png")
    one, two = (np.asarray(Image.open(tmp_path / name).convert("L")) for name in ("one.png", "two.png"))
    assert two.shape[1] == 2 * one.shape[1]
    assert 0.3 < one.mean() / 255 < 0.99
