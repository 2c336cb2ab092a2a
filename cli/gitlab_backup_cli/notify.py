"""What systemd shows as the status of a service: see sd_notify(3)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(status: str) -> None:
    """Tell the service manager, where there is one that asks for it. Nothing depends on whether it hears."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A name that begins with `@` is in the abstract namespace: unix(7).
    address = address.replace("@", "\0", 1) if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(0)
        sender.sendto(f"STATUS={status}".encode(errors="backslashreplace"), address)
