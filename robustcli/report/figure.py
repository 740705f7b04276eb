"""Figures whose texts may come from files, written as PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from robustcli.disk import write_whole


@contextmanager
def plain_text() -> Iterator[None]:
    """Take no text for a formula or for LaTeX, whatever dollars it has, and let a font lack a name's characters."""
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield


def save_figure(figure: Figure, path: Path, flag: str) -> None:
    """Write a figure as PNG.

    Raises:
        ConfigError: the file cannot be written; names `flag`.
    """
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_whole(path, content.getvalue(), flag)
