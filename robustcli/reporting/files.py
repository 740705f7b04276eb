"""Files that are there whole or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path

from robustcli.errors import ConfigError


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
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror or error}") from None
