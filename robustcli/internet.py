"""Whether a host on the internet can be reached."""

from __future__ import annotations

import socket
import urllib.request


def reachable(host: str) -> bool:
    """Whether `host:port` answers within three seconds, or lies behind a proxy, where only the download can tell."""
    name, _, port = host.partition(":")
    scheme = "https" if port == "443" else "http"
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(name):
        return True
    try:
        socket.create_connection((name, int(port)), timeout=3).close()
    except OSError:
        return False
    return True
