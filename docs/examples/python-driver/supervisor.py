"""The gateway's supervisor: a copy in memory of exactly the bytes whose digest was checked."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from typing import Optional

import errors
from cofferdam.compute.v1 import compute_driver_pb2 as pb

# After an upgrade of the gateway there is another one.
COPIES_MAX = 4
BYTES_MAX = 256 << 20


class Supervisors:
    def __init__(self) -> None:
        self.copies: dict[bytes, int] = {}

    async def fetch(self, wanted: pb.Supervisor) -> int:
        """A descriptor to execute; it stays ours. FAILED_PRECONDITION if the file is not what the gateway says."""
        if wanted.sha256 not in self.copies:
            copy = await asyncio.to_thread(copy_checked, wanted)
            # Somebody else may have fetched the same one while we waited.
            os.close(copy) if wanted.sha256 in self.copies else self.keep(wanted.sha256, copy)
        return self.copies[wanted.sha256]

    def keep(self, sha256: bytes, copy: int) -> None:
        while len(self.copies) >= COPIES_MAX:
            os.close(self.copies.pop(next(iter(self.copies))))
        self.copies[sha256] = copy

    async def problem(self, wanted: pb.Supervisor) -> Optional[errors.Refusal]:
        try:
            await self.fetch(wanted)
        except errors.Refusal as refusal:
            return refusal
        return None


def copy_checked(wanted: pb.Supervisor) -> int:
    machine = os.uname().machine
    if wanted.architecture != machine:
        raise _unusable(wanted, f"is for {wanted.architecture or 'no architecture'}, and this host is {machine}")
    try:
        with open(wanted.path, "rb") as file:
            content = file.read(BYTES_MAX)
    except OSError as error:
        raise _unusable(wanted, f"cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).digest() != wanted.sha256:
        raise _unusable(wanted, "has another SHA-256 than the gateway said")
    writable = os.memfd_create("cofferdam-supervisor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(writable, "wb") as memory:
        memory.write(content)
        memory.flush()
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        # What is open for writing cannot be executed, so it is opened once more.
        return os.open(f"/proc/self/fd/{memory.fileno()}", os.O_RDONLY | os.O_CLOEXEC)


def _unusable(wanted: pb.Supervisor, text: str) -> errors.Refusal:
    path = wanted.path or "(no path)"
    return errors.not_able("SUPERVISOR", path, f"the supervisor {path} {text}", "reinstall the gateway, or restart it")
