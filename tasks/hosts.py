"""Which hosts may be talked to on somebody else's word: a manifest row or an answer can name any URL."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit


async def is_public(url: str) -> bool:
    """Whether every address of the URL's host is one of the public internet.

    Loopback, private, link-local (cloud metadata services) and reserved addresses are not. A host that cannot be
    resolved counts as public: the connection that follows says it better.
    """
    host = urlsplit(url).hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return True
    return all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_global for address in found)
