"""Files that are no regular ones are refused before they are waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robustcli.disk import open_regular


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"abc"


def test_a_pipe_a_device_and_a_folder_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path, told in ((tmp_path / "pipe", "not a regular file"), (tmp_path / "link", "device"), (tmp_path, "folder")):
        with pytest.raises(OSError, match=told):
            open_regular(path)
