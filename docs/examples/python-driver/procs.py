"""Processes of this machine: telling them apart from their successors, and ending whole trees.

A pid alone is not an identity: after its process has ended the number is given to another one. A pid with the
time of its start and the boot of the kernel is.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Identity:
    """A process, and never another one that got the same pid later."""

    pid: int
    start_ticks: int
    kernel_boot: str


def identify(pid: int) -> Identity:
    """Who has this pid now. ProcessLookupError if nobody."""
    try:
        start = int(_stat(pid)[19])
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return Identity(pid, start, file.read().strip())


def open_pidfd(identity: Identity) -> Optional[int]:
    """A descriptor of exactly this process, to signal it and to wait for it. None if it has ended."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    try:
        # First opened, then compared: from here on the descriptor cannot come to mean another process.
        if identify(identity.pid) == identity:
            return fd
    except ProcessLookupError:
        pass
    os.close(fd)
    return None


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signals exactly this process. False if it has ended."""
    fd = open_pidfd(identity)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def descendants(root: int) -> list[int]:
    """Everything below a process that has not ended, parents before their children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = _stat(int(name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        # A zombie (Z) may still have living children, so it counts as a link but not as alive.
        pid = int(name) if fields[0] not in ("Z", "X") else -int(name)
        children.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    queue = list(children.get(root, []))
    while queue:
        pid = queue.pop(0)
        queue.extend(children.get(abs(pid), []))
        if pid > 0:
            found.append(pid)
    return found


def kill_orphan(identity: Identity) -> None:
    """Ends a process that is not our child, with everything below it."""
    if not send(identity, signal.SIGSTOP):
        return
    # It is stopped, so what it has started stays below it until it is gone itself.
    while True:
        below = descendants(identity.pid)
        if not below:
            break
        for pid in below:
            kill(pid)
        time.sleep(0.002)
    send(identity, signal.SIGKILL)


def kill(pid: int) -> None:
    """SIGKILL to something that may have ended in the meantime."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may itself hold spaces and parentheses."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()
