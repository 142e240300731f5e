"""One sandbox: its directory, its processes, and what is seen of it. NO ISOLATION: for learning.

    DIR/sandbox.json   what it is (written by the driver; no secrets)
        lock           held by the keeper as long as it lives
        boot.json      who was started, and
        end.json       how it ended (both written by the keeper, each with the number of the boot)
        callback/      holds `gateway.sock`, a link to the socket in the gateway's directory
        console.log    what the supervisor says
        workspace/     the workload's

Everything that is told about a sandbox is read from there each time, so a driver that was started anew knows as much as
the one before it. Only the revision and the journal belong to one incarnation.

            ┌──────────── Start ────────────┐
            ▼                               │
    CREATING ──► RUNNING ──► STOPPED ───────┘
        └───────────┴──────► FAILED_STATE (deadline, supervisor does not start)        any ──Delete──► DELETING ──► gone
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

import errors
import procs
from cofferdam.compute.v1 import compute_driver_pb2 as pb
from files import read_json, write_json
from keeper import WATCHED, now_unix_ms

HERE = Path(__file__).resolve().parent
# Between looks at a keeper that has not told yet whom it has started.
BOOTING_S = 0.005
DEADLINE_S = 60.0
SOCKET_NAME = "gateway.sock"


@dataclass
class Record:
    """`sandbox.json`. What must outlive the driver."""

    sandbox_id: str
    gateway_id: str
    spec_digest: str
    expire_time_unix_ms: int
    create_time_unix_ms: int
    boot_time_unix_ms: int
    uid: int
    gid: int
    nice: int
    boots: int = 1
    deleting: bool = False
    weaknesses: list[str] = field(default_factory=list)


class Sandbox:
    def __init__(self, directory: Path, record: Record, changed: Callable[[Sandbox], None]) -> None:
        self.directory = directory
        self.record = record
        self.changed = changed
        self.revision = 0
        self.seen = pb.Sandbox()
        # One operation at a time; Delete waits for the other one to give up.
        self.busy = False
        self.news = asyncio.Event()
        self.removing = False
        self.keeper: Optional[subprocess.Popen[bytes]] = None
        self.monitoring: Optional[asyncio.Task[None]] = None
        self.expiry: Optional[asyncio.TimerHandle] = None

    # ── What is seen ─────────────────────────────────────────────────────────────────────────────────────────────

    def refresh(self) -> pb.Sandbox:
        """Looks at the machine; a change gets a new revision and is told."""
        now = self.observe()
        now.revision = self.revision
        if now != self.seen:
            self.revision += 1
            now.revision = self.revision
            self.seen = now
            self.changed(self)
            self.wake()
        copy = pb.Sandbox()
        copy.CopyFrom(self.seen)
        return copy

    def observe(self) -> pb.Sandbox:
        record, boot, end = self.record, self.read("boot.json"), self.read("end.json")
        seen = pb.Sandbox(
            sandbox_id=record.sandbox_id,
            boots=record.boots,
            create_time_unix_ms=record.create_time_unix_ms,
            stream="directory",
            weaknesses=record.weaknesses,
        )
        seen.conditions.add(
            type=pb.STORAGE_READY,
            status=pb.TRUE,
            message=f"the workspace is {self.directory}/workspace",
            change_time_unix_ms=record.create_time_unix_ms,
        )
        started = seen.conditions.add(type=pb.SUPERVISOR_STARTED)
        started.status, started.change_time_unix_ms = pb.IN_PROGRESS, record.boot_time_unix_ms
        if boot is not None:
            seen.start_time_unix_ms = boot["start_time_unix_ms"]
            seen.platform_id = f"pid {boot['supervisor']['pid']}"
            started.status = pb.TRUE
            started.change_time_unix_ms = boot["start_time_unix_ms"]
        if self.is_kept():
            seen.state = pb.CREATING if boot is None else pb.RUNNING
        else:
            end = end or self.lost(boot)
            if now_unix_ms() >= record.expire_time_unix_ms:
                # Also when it was stopped before that: it must not run again.
                end = {"kind": "deadline", "time_unix_ms": max(end["time_unix_ms"], record.expire_time_unix_ms)}
            started.status = pb.FALSE
            started.change_time_unix_ms = end["time_unix_ms"]
            seen.state = state_after(end)
            seen.termination.CopyFrom(termination(record.sandbox_id, end))
        if record.deleting:
            seen.state = pb.DELETING
            seen.ClearField("termination")
        return seen

    def read(self, name: str) -> Optional[dict[str, Any]]:
        """What the keeper of this boot has written, if it has."""
        value = read_json(self.directory / name)
        return value if value is not None and value["boot"] == self.record.boots else None

    def is_kept(self) -> bool:
        """Is there a keeper, and so possibly a process of the sandbox?"""
        try:
            with open(self.directory / "lock", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass  # A driver before us died while it removed the directory.
        return False

    def never_began(self) -> bool:
        """Its first keeper was not started, and so its create not answered."""
        is_first = self.record.boots == 1 and not self.record.deleting
        return is_first and not self.is_kept() and self.read("boot.json") is None and self.read("end.json") is None

    def lost(self, boot: Optional[dict[str, Any]]) -> dict[str, Any]:
        """The keeper is gone and has not said how it ended: it was killed, or the machine was restarted."""
        if boot is not None:
            procs.kill_orphan(procs.Identity(**boot["supervisor"]))
        end = {"boot": self.record.boots, "kind": "lost", "time_unix_ms": now_unix_ms()}
        write_json(self.directory / "end.json", end)
        return end

    # ── What is done ─────────────────────────────────────────────────────────────────────────────────────────────

    def start_keeper(self, supervisor_fd: int, token: bytes) -> None:
        """Starts a boot. The token goes into a pipe whose other end only the supervisor reads."""
        record, workspace = self.record, str(self.directory / "workspace")
        bootstrap = {
            "sandbox_id": record.sandbox_id,
            "token": token.hex(),
            "expire_time_unix_ms": record.expire_time_unix_ms,
            "workload": {"uid": record.uid, "gid": record.gid, "user": user_name(record.uid), "home": workspace},
            "workspace": workspace,
            "oom_score_adj": 500,
        }
        read_fd, write_fd = os.pipe()
        with open(self.directory / "lock", "rb") as lock, open(self.directory / "console.log", "ab") as console:
            # Shared with the keeper by inheritance: it is held until the last of the two has closed it.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The pipe holds 64 KiB, which the bootstrap may have at most, so this does not wait for a reader.
            os.write(write_fd, json.dumps(bootstrap).encode())
            os.close(write_fd)
            arguments = [self.directory, record.boots, record.expire_time_unix_ms, read_fd, supervisor_fd, record.nice]
            # Blocked here and inherited, so that no signal reaches a keeper that is not ready for it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
            try:
                self.keeper = subprocess.Popen(
                    [sys.executable, "-S", str(HERE / "keeper.py"), *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    # Not the driver's: whoever reads the driver's log would wait for the keeper, too.
                    stdout=console,
                    stderr=console,
                    cwd="/",
                    env={},
                    pass_fds=(read_fd, supervisor_fd, lock.fileno()),
                    # A session of its own: what ends the driver's terminal or group does not end the sandbox.
                    start_new_session=True,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                os.close(read_fd)

    def signal_keeper(self, number: signal.Signals) -> None:
        if self.keeper is not None:
            # A child that we have not waited for: the pid cannot be another's.
            self.keeper.send_signal(number)
        elif (boot := self.read("boot.json")) is not None:
            procs.send(procs.Identity(**boot["keeper"]), number)

    async def monitor(self) -> None:
        """Tells of the changes of one boot, until it has ended."""
        while self.refresh().state == pb.CREATING:
            await asyncio.sleep(BOOTING_S)
        boot = self.read("boot.json")
        fd = procs.open_pidfd(procs.Identity(**boot["keeper"])) if boot is not None else None
        if fd is not None:
            try:
                await readable(fd)
            finally:
                os.close(fd)
        if self.keeper is not None:
            self.keeper.wait()
            self.keeper = None
        self.refresh()
        self.wake()

    def await_deadline(self) -> None:
        """The keeper ends what runs. This is for one that is stopped then: it fails, and that is told."""
        self.forget_deadline()
        left_ms = self.record.expire_time_unix_ms - now_unix_ms()
        if left_ms > 0:
            # Bounded, since the wall clock may be set.
            wait_s = min(left_ms / 1000 + 0.01, DEADLINE_S)
            self.expiry = asyncio.get_running_loop().call_later(wait_s, self.await_deadline)
        else:
            self.refresh()

    def forget_deadline(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()

    async def monitored(self) -> None:
        """Waits until the monitor of a boot that has ended is through with it."""
        if self.monitoring is not None:
            await asyncio.wait({self.monitoring})

    async def until_ended(self, timeout_s: Optional[float] = None, deleting: bool = False) -> bool:
        """Waits until nothing of it runs. Gives up with ABORTED if a Delete takes over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.is_kept():
            if self.record.deleting and not deleting:
                raise errors.busy(self.record.sandbox_id, "it is being deleted")
            left_s = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
            if left_s <= 0:
                return False
            try:
                await asyncio.wait_for(self.news.wait(), left_s)
            except asyncio.TimeoutError:
                pass
        return True

    @contextmanager
    def operation(self) -> Iterator[None]:
        if self.record.deleting:
            raise errors.busy(self.record.sandbox_id, "it is being deleted")
        if self.busy:
            raise errors.busy(self.record.sandbox_id, "another operation is under way")
        self.busy = True
        try:
            yield
        finally:
            self.busy = False
            self.wake()

    def wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def save(self) -> None:
        write_json(self.directory / "sandbox.json", asdict(self.record))

    def link_callback(self, callback_directory: str) -> None:
        """The supervisor looks the link up at each connection, so it may be changed while one runs. A link and not a
        path for the supervisor, since an address may have only 107 bytes."""
        link, beside = self.directory / "callback" / SOCKET_NAME, self.directory / "callback" / ".new"
        target = f"{callback_directory}/{SOCKET_NAME}"
        if link.is_symlink() and os.readlink(link) == target:
            return
        beside.unlink(missing_ok=True)
        beside.symlink_to(target)
        os.replace(beside, link)


def state_after(end: dict[str, Any]) -> pb.SandboxState:
    reason = termination("", end).reason
    broken = reason in (pb.DEADLINE, pb.SUPERVISOR_START_FAILED)
    return pb.FAILED_STATE if broken else pb.STOPPED


def termination(sandbox_id: str, end: dict[str, Any]) -> pb.Termination:
    """From `end.json` to the contract's reasons. Pure."""
    told = pb.Termination(time_unix_ms=end["time_unix_ms"])
    kind, code = end["kind"], end.get("exit_code")
    if kind == "deadline":
        told.reason, text = pb.DEADLINE, "its deadline has passed"
    elif kind == "start_failed" or code == 125:
        told.reason, text = pb.SUPERVISOR_START_FAILED, end.get("message", "the supervisor could not start: see the console")
    elif kind == "asked":
        told.reason, text = pb.STOPPED_BY_REQUEST, "it was stopped by request"
    elif kind == "signaled":
        told.reason, told.signal = pb.SIGNALED, end["signal"]
        text = f"its supervisor was killed by signal {told.signal}"
    elif kind == "exited":
        told.reason, told.exit_code = pb.EXITED, end["exit_code"]
        text = f"its supervisor ended with exit code {told.exit_code}"
    else:
        told.reason, text = pb.PLATFORM_LOST, "it ended unseen: its keeper was killed or the host was restarted"
    told.message = f"sandbox {sandbox_id}: {text}"
    return told


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "sandbox"


async def readable(fd: int) -> None:
    """A pidfd becomes readable when its process has ended."""
    loop = asyncio.get_running_loop()
    happened = asyncio.Event()
    loop.add_reader(fd, happened.set)
    try:
        await happened.wait()
    finally:
        loop.remove_reader(fd)
