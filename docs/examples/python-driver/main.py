#!/usr/bin/env python3
"""A Cofferdam driver in Python, from the contract alone. NO ISOLATION: it runs sandboxes as plain processes, for learning.

    main.py --socket PATH --state DIR      or without --socket, with one listening socket inherited
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "gen"))

import grpc.aio  # noqa: E402
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection  # noqa: E402

import door  # noqa: E402
from cofferdam.compute.v1 import compute_driver_pb2_grpc  # noqa: E402
from driver import Driver, new_incarnation  # noqa: E402
from gate import SERVICE, Gate  # noqa: E402
from host import DIRECTORY_MODE, Host  # noqa: E402
from watch import Journal  # noqa: E402

# How long a shutdown waits for calls that are under way. Sandboxes are not its business: they stay.
GRACE_S = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description="A Cofferdam driver for learning. NO ISOLATION.")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="bind this Unix socket; without it one is inherited")
    parser.add_argument("--state", type=Path, metavar="DIR", default=default_state(), help="where sandboxes are kept [%(default)s]")
    arguments = parser.parse_args()
    # Files are for this user only; see DIRECTORY_MODE for the directories.
    os.umask(0o777 & ~DIRECTORY_MODE)
    try:
        state = lock_state(arguments.state.absolute())
        listener = door.bind(arguments.socket.absolute()) if arguments.socket else door.inherited()
    except (OSError, door.SocketError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    with listener:
        asyncio.run(serve(listener, state))
        if arguments.socket:
            arguments.socket.unlink()
    return 0


def default_state() -> Path:
    """systemd's StateDirectory=, or the user's own."""
    if "STATE_DIRECTORY" in os.environ:
        return Path(os.environ["STATE_DIRECTORY"])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "cofferdam-python-driver"


def lock_state(state: Path) -> Path:
    """One driver at a time. The lock ends with this process, however it ends."""
    state.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    os.chmod(state, DIRECTORY_MODE)
    fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise door.SocketError(f"another driver uses {state}") from None
    return state


async def serve(listener: socket.socket, state: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if door.GATEWAY_VARIABLE in os.environ:
        # A gateway that has started us holds the other end of our stdin, and says nothing there until it is gone.
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    journal = Journal(new_incarnation())
    host, gate = Host(state, journal), Gate()
    host.load()
    server = grpc.aio.server(interceptors=[gate])
    compute_driver_pb2_grpc.add_ComputeDriverServicer_to_server(Driver(gate, host, journal), server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    for name in ("", SERVICE):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    # Only this user can come to grpcio without passing the door.
    with tempfile.TemporaryDirectory(prefix="cofferdam-") as private:
        inner = Path(private) / "grpc.sock"
        server.add_insecure_port(f"unix:{inner}")
        await server.start()
        entrance = door.Door(listener, inner, lambda peer: forget(gate, peer))
        accepting = asyncio.get_running_loop().create_task(entrance.run())
        print(f"NO ISOLATION, for learning: sandboxes are plain processes. {len(host.sandboxes)} found.", file=sys.stderr)
        print(f"serving, incarnation {journal.incarnation}", file=sys.stderr, flush=True)
        await stop.wait()
        print("ending; the sandboxes stay", file=sys.stderr)
        await healthy.enter_graceful_shutdown()
        await server.stop(GRACE_S)
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        await host.close()


def forget(gate: Gate, peer: str) -> None:
    gate.sessions.pop(peer, None)


if __name__ == "__main__":
    sys.exit(main())
