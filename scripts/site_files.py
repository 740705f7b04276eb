"""For mkdocs: the figures of docs/reproduction.md, which lie beside their numbers and not under docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

FOLDER = "results/reproduction"
ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the figures, under the path that they have in the repository."""
    for path in sorted((ROOT / FOLDER).glob("*.png")):
        files.append(File(f"{FOLDER}/{path.name}", str(ROOT), config["site_dir"], config["use_directory_urls"]))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to them begin at the site's root, as docs/ is that."""
    return markdown.replace(f"](../{FOLDER}/", f"]({FOLDER}/")
