"""Files that are no regular ones are refused before they are waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robustcli.disk import open_regular, write_whole
from robustcli.errors import ConfigError


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


def test_a_link_is_followed_and_a_name_may_be_as_long_as_the_disk_takes(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", b"a", "--json")
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "target").read_bytes()) == (True, b"a")
    write_whole(tmp_path / ("n" * 255), b"b", "--json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "n" * 255, "target"]


def test_what_cannot_be_written_names_its_flag(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("n" * 256, "loop", "no/file"):
        with pytest.raises(ConfigError, match=r"^--json "):
            write_whole(tmp_path / name, b"a", "--json")
