"""Two processes of one run, with what torchrun sets in their environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence


def run_both(arguments: Sequence[object], **changes: str) -> list[subprocess.CompletedProcess[str]]:
    """How `python` with these arguments ends as rank 0 and as rank 1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    texts = [process.communicate(timeout=100) for process in started]
    return [
        subprocess.CompletedProcess(command, process.returncode, *text)
        for process, text in zip(started, texts, strict=True)
    ]
