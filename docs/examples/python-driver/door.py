"""The socket that the gateway connects to: who may, over which connection, and the way on to grpcio.

grpcio can neither take a listening socket from somebody else, nor say who is calling, nor tell two connections over
Unix sockets apart. So this small door stands before it. It accepts, checks the peer's credentials, gives the
connection a name, and passes bytes on to grpcio's own socket in a private directory:

    gateway ──► PATH (0600) ── door: SO_PEERCRED ── "conn-7" ──► grpcio, where context.peer() says "conn-7"

In a language whose gRPC library can do these three things, there is no such file.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

CONNECTIONS_MAX = 64
CHUNK_BYTES = 64 << 10
LISTEN_FDS_START = 3
# Set by a gateway that has started this process; the gateway also holds the other end of our stdin.
GATEWAY_VARIABLE = "COFFERDAM_LISTEN_FD"


class SocketError(Exception):
    """The socket cannot be had."""


def inherited() -> socket.socket:
    """The listening socket that whoever started us has bound: a gateway, or systemd."""
    own_pid = str(os.getpid())
    if GATEWAY_VARIABLE in os.environ:
        number = int(os.environ[GATEWAY_VARIABLE])
    elif os.environ.get("LISTEN_FDS") == "1" and os.environ.get("LISTEN_PID", own_pid) == own_pid:
        number = LISTEN_FDS_START
    else:
        raise SocketError(f"no --socket PATH, and not one socket inherited ({GATEWAY_VARIABLE}, LISTEN_FDS)")
    listener = socket.socket(fileno=number)
    listener.set_inheritable(False)
    if listener.family != socket.AF_UNIX or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SocketError("the inherited descriptor is not a listening Unix socket")
    return listener


def bind(path: Path) -> socket.socket:
    """Binds PATH with mode 0600. A dead driver's socket is replaced, a living one's is not."""
    holder = path.parent.stat()
    if holder.st_uid not in (0, os.geteuid()) or (holder.st_mode & 0o022 and not holder.st_mode & stat.S_ISVTX):
        raise SocketError(f"{path.parent} can be changed by others: chmod go-w it, or take another directory")
    if path.exists():
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketError(f"{path} is there and is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise SocketError(f"somebody listens at {path} already")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    # By the umask and not by a later chmod, so that there is no moment in which others can connect.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(16)
    return listener


class Door:
    def __init__(self, listener: socket.socket, inner: Path, closed: Callable[[str], None]) -> None:
        self.listener = listener
        self.inner = inner
        # Told the name of a connection that is no more.
        self.closed = closed
        self.connections: set[asyncio.Task[None]] = set()
        self.prefix = f"cofferdam-{secrets.token_hex(8)}"
        self.count = 0

    async def run(self) -> None:
        """Until cancelled; then all connections are closed."""
        loop = asyncio.get_running_loop()
        self.listener.setblocking(False)
        try:
            while True:
                outer, _ = await loop.sock_accept(self.listener)
                if len(self.connections) < CONNECTIONS_MAX and may_connect(outer):
                    task = loop.create_task(self.serve(outer))
                    self.connections.add(task)
                    task.add_done_callback(self.connections.discard)
                else:
                    outer.close()
        finally:
            for task in self.connections:
                task.cancel()
            await asyncio.gather(*self.connections, return_exceptions=True)

    async def serve(self, outer: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.count += 1
        name = f"{self.prefix}-{self.count}"
        with outer, socket.socket(socket.AF_UNIX) as inner:
            inner.setblocking(False)
            # The name of *our* end is what grpcio shows as the peer. Abstract: there is no file to clean up.
            inner.bind(f"\0{name}")
            await loop.sock_connect(inner, str(self.inner))
            ways = [loop.create_task(pump(outer, inner)), loop.create_task(pump(inner, outer))]
            try:
                await asyncio.gather(*ways)
            except OSError:
                pass  # A connection that was reset is a closed one.
            finally:
                for way in ways:
                    way.cancel()
                # Only when neither uses its socket any more may both be closed.
                await asyncio.gather(*ways, return_exceptions=True)
                self.closed(f"unix-abstract:{name}")


async def pump(source: socket.socket, sink: socket.socket) -> None:
    """Passes bytes on until the source has no more."""
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(source, CHUNK_BYTES)
        if not data:
            sink.shutdown(socket.SHUT_WR)
            return
        await loop.sock_sendall(sink, data)


def may_connect(outer: socket.socket) -> bool:
    """Only this user and root."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", outer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid in (0, os.geteuid()):
        return True
    print(f"refused a connection of user {uid}", file=sys.stderr)
    return False
