"""The platform: all sandboxes on this host, and what can be done with them. NO ISOLATION: for learning.

    STATE/<gateway>/<sandbox id>/…

The directory *is* the inventory: what is there exists, and what is not there does not. Unless the operator has started the
driver with another directory than before; so it has an identity, which is in every handle.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path
from typing import Optional

import errors
import spec
from cofferdam.compute.v1 import compute_driver_pb2 as pb
from files import read_json, write_json
from keeper import now_unix_ms
from sandbox import Record, Sandbox
from watch import Journal

# A workload that runs as another user must be able to reach its workspace; nothing else in there can be read by it.
DIRECTORY_MODE = 0o711 if spec.CHOOSE_USER else 0o700


class Host:
    def __init__(self, state: Path, journal: Journal) -> None:
        self.state = state
        self.journal = journal
        self.sandboxes: dict[tuple[str, str], Sandbox] = {}
        self.sandboxes_max = 64
        # Tells this state directory from every other one.
        self.identity = ""
        # Gateways that know of sandboxes under another state directory: a list for them is not everything.
        self.incomplete: set[str] = set()

    def load(self) -> None:
        """Finds what an earlier driver has left. Starts nothing."""
        known = read_json(self.state / "state.json")
        if known is None:
            known = {"identity": secrets.token_hex(16)}
            write_json(self.state / "state.json", known)
        self.identity = known["identity"]
        for directory in sorted(self.state.glob("*/*/")):
            value = read_json(directory / "sandbox.json")
            if value is None or directory.name.startswith("."):
                # Its create was never answered, or its delete nearly.
                shutil.rmtree(directory)
                continue
            sandbox = Sandbox(directory, Record(**value), self.publish)
            if sandbox.never_began():
                # The same, a moment later: the same create makes it anew.
                shutil.rmtree(directory)
                continue
            self.adopt(sandbox)

    async def close(self) -> None:
        """Stops looking. The sandboxes stay."""
        for sandbox in self.sandboxes.values():
            sandbox.forget_deadline()
        tasks = [sandbox.monitoring for sandbox in self.sandboxes.values() if sandbox.monitoring is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, gateway_id: str, sandbox_id: str) -> Sandbox:
        sandbox = self.sandboxes.get((gateway_id, sandbox_id))
        if sandbox is None:
            raise errors.not_found(sandbox_id)
        return sandbox

    def of(self, gateway_id: str) -> list[Sandbox]:
        """All of one gateway's, sorted by id."""
        return [sandbox for (owner, _), sandbox in sorted(self.sandboxes.items()) if owner == gateway_id]

    def publish(self, sandbox: Sandbox) -> None:
        self.journal.publish(sandbox.record.gateway_id, pb.WatchSandboxesResponse(changed=sandbox.seen))

    # ── Making and unmaking ──────────────────────────────────────────────────────────────────────────────────────

    def admit(self, gateway_id: str, request: pb.CreateSandboxRequest) -> Optional[Sandbox]:
        """The sandbox if this was asked for before; None if it may be made."""
        existing = self.sandboxes.get((gateway_id, request.sandbox_id))
        if existing is not None and existing.record.spec_digest == spec.digest(request.spec):
            if existing.record.deleting:
                raise errors.busy(request.sandbox_id, "it is being deleted")
            return existing
        wrong = spec.create_violations(request)
        if wrong:
            raise errors.invalid(wrong)
        if existing is not None:
            raise errors.already_exists(request.sandbox_id)
        if len(self.sandboxes) >= self.sandboxes_max:
            raise errors.full(f"there are {len(self.sandboxes)} sandboxes, and sandboxes_max is {self.sandboxes_max}")
        return None

    def create(self, gateway_id: str, request: pb.CreateSandboxRequest, supervisor_fd: int) -> Sandbox:
        """Makes what was admitted. When it returns, the keeper runs, and with it the deadline."""
        sandbox = self.prepare(gateway_id, request)
        try:
            sandbox.start_keeper(supervisor_fd, request.bootstrap_token)
        except OSError as error:
            shutil.rmtree(sandbox.directory)
            raise errors.unavailable(f"cannot start a process: {error.strerror}") from None
        self.adopt(sandbox)
        return sandbox

    def prepare(self, gateway_id: str, request: pb.CreateSandboxRequest) -> Sandbox:
        """The directory, all of it or nothing."""
        now, wanted = now_unix_ms(), request.spec
        record = Record(
            sandbox_id=request.sandbox_id,
            gateway_id=gateway_id,
            spec_digest=spec.digest(wanted),
            expire_time_unix_ms=wanted.expire_time_unix_ms,
            create_time_unix_ms=now,
            boot_time_unix_ms=now,
            uid=wanted.uid if spec.CHOOSE_USER else os.getuid(),
            gid=wanted.gid if spec.CHOOSE_USER else os.getgid(),
            nice=spec.integer(wanted.driver_config, "nice", 0),
            weaknesses=spec.weaknesses(wanted),
        )
        parent = self.state / hashlib.sha256(gateway_id.encode()).hexdigest()[:16]
        final, directory = parent / record.sandbox_id, parent / f".new-{record.sandbox_id}"
        try:
            parent.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            directory.mkdir(mode=DIRECTORY_MODE)
            sandbox = Sandbox(directory, record, self.publish)
            (directory / "workspace").mkdir(mode=0o700)
            os.chown(directory / "workspace", record.uid, record.gid)
            (directory / "lock").touch(mode=0o600)
            (directory / "console.log").touch(mode=0o600)
            (directory / "callback").mkdir(mode=0o700)
            sandbox.link_callback(request.callback_directory)
            sandbox.save()
            directory.rename(final)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise errors.unavailable(f"cannot make {final}: {error.strerror}") from None
        sandbox.directory = final
        return sandbox

    def adopt(self, sandbox: Sandbox) -> None:
        self.sandboxes[(sandbox.record.gateway_id, sandbox.record.sandbox_id)] = sandbox
        sandbox.monitoring = asyncio.get_running_loop().create_task(sandbox.monitor())
        sandbox.await_deadline()

    async def stop(self, sandbox: Sandbox, grace_ms: int) -> None:
        with sandbox.operation():
            if grace_ms:
                sandbox.signal_keeper(signal.SIGTERM)
                await sandbox.until_ended(grace_ms / 1000)
            while sandbox.is_kept():
                sandbox.signal_keeper(signal.SIGUSR1)
                await sandbox.until_ended(0.1)
            await sandbox.monitored()

    async def start(self, sandbox: Sandbox, supervisor_fd: int, token: bytes) -> None:
        with sandbox.operation():
            record, state = sandbox.record, sandbox.refresh().state
            if state in (pb.RUNNING, pb.CREATING):
                return
            if state == pb.FAILED_STATE or record.expire_time_unix_ms <= now_unix_ms():
                raise errors.not_able("SANDBOX_STATE", record.sandbox_id, "the sandbox has failed or its deadline has passed")
            await sandbox.monitored()
            record.boots += 1
            record.boot_time_unix_ms = now_unix_ms()
            try:
                # Before the start: a number that was used is never used again.
                sandbox.save()
                sandbox.start_keeper(supervisor_fd, token)
            except OSError as error:
                raise errors.unavailable(f"cannot start a process: {error.strerror}") from None
            self.adopt(sandbox)

    async def delete(self, gateway_id: str, sandbox_id: str) -> None:
        sandbox = self.sandboxes.get((gateway_id, sandbox_id))
        if sandbox is None:
            return
        if sandbox.removing:
            raise errors.busy(sandbox_id, "it is being deleted already")
        sandbox.removing = True
        try:
            await self.remove(sandbox)
        finally:
            # After a cancel it is still there, in DELETING, and the next call goes on from here.
            sandbox.removing = False

    async def remove(self, sandbox: Sandbox) -> None:
        if not sandbox.record.deleting:
            sandbox.record.deleting = True
            try:
                sandbox.save()
            except OSError as error:
                # A full disk must not prevent the one thing that helps.
                print(f"delete {sandbox.record.sandbox_id} goes on without a record: {error.strerror}", file=sys.stderr)
            sandbox.refresh()
        while sandbox.busy:
            await sandbox.news.wait()
        while sandbox.is_kept():
            sandbox.signal_keeper(signal.SIGUSR1)
            await sandbox.until_ended(0.1, deleting=True)
        await sandbox.monitored()
        sandbox.forget_deadline()
        await remove_tree(sandbox.directory / "workspace")
        # Small and without an await: nobody can look at half of it.
        shutil.rmtree(sandbox.directory)
        del self.sandboxes[(sandbox.record.gateway_id, sandbox.record.sandbox_id)]
        gone = pb.SandboxDeleted(sandbox_id=sandbox.record.sandbox_id, revision=sandbox.revision + 1)
        self.journal.publish(sandbox.record.gateway_id, pb.WatchSandboxesResponse(deleted=gone))


async def remove_tree(path: Path) -> None:
    """By `rm`, which also manages trees that are deeper than Python's stack."""
    for arguments in (["rm", "-rf", "--", str(path)], ["chmod", "-R", "u+rwx", "--", str(path)], ["rm", "-rf", "--", str(path)]):
        child = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
        try:
            _, said = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if not path.exists():
            return
    raise errors.unavailable(f"{path} cannot be removed: {said.decode(errors='replace').strip()[-200:]}")
