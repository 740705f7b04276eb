"""Files that a user names: read where they are regular, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from io import BufferedReader
from pathlib import Path

from robustcli.errors import ConfigError

NOT_REGULAR = "is a pipe, a socket or a device, not a regular file"


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; a pipe or a device, which may never end, is refused.

    Raises:
        OSError: the file is missing, cannot be read, or is a folder, pipe, socket or device.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """A file's hash, in hexadecimal.

    Raises:
        OSError: it cannot be read, as in `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_whole(path: Path, content: bytes, flag: str) -> None:
    """Write beside `path`, then rename: a full disk leaves the file that was there as it was.

    Raises:
        ConfigError: the file cannot be written; names `flag`.
    """
    try:
        if path.exists() and not path.is_file():  # such as /dev/stdout, which must not be replaced by a file
            path.write_bytes(content)
            return
        target = path.resolve()
        # Cut, so that it is never too long where the name itself is not.
        temporary = target.with_name(f".{target.name[:20]}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: of a link to itself
        raise ConfigError(f"{flag} {path}: {getattr(error, 'strerror', None) or error}") from None
