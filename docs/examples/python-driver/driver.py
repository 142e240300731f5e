"""`ComputeDriver`, RPC by RPC: decodes, delegates, encodes. NO ISOLATION: for learning."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import platform
import secrets
import sys
from collections.abc import AsyncIterator
from typing import Any, Optional

import grpc

import errors
import spec
from cofferdam.compute.v1 import compute_driver_pb2 as pb
from cofferdam.compute.v1 import compute_driver_pb2_grpc
from gate import Gate, Session
from host import Host
from sandbox import Sandbox
from supervisor import Supervisors
from watch import Journal

REVISION = pb.VersionRange(min=1, max=1)
VERSION = "0.1.0"
HANDLE_VERSION = 1
PAGE_DEFAULT = 500
PAGE_MAX = 1000
CONSOLE_CHUNK_BYTES = 64 << 10
# Between looks at a console that is followed.
CONSOLE_S = 0.2
# The contract says at most one a second.
FINGERPRINT_S = 1.0


def new_incarnation() -> str:
    return secrets.token_hex(16)


def capabilities() -> pb.Capabilities:
    return pb.Capabilities(
        execution=pb.SUPERVISED,
        isolation=pb.NO_ISOLATION,
        images=pb.ImageSources(host=True),
        networks=[pb.OPEN],
        limits=pb.Limits(),
        stop_start=True,
        console=True,
        choose_user=spec.CHOOSE_USER,
    )


class Driver(compute_driver_pb2_grpc.ComputeDriverServicer):
    """What is not here (PrepareImage, SandboxStats, RunCommand, pause, snapshots) is UNIMPLEMENTED by its base."""

    def __init__(self, gate: Gate, host: Host, journal: Journal) -> None:
        self.gate = gate
        self.host = host
        self.journal = journal
        self.supervisors = Supervisors()

    # ── Handshake, settings, fingerprint ─────────────────────────────────────────────────────────────────────────

    async def Handshake(self, request: pb.HandshakeRequest, context: Any) -> pb.HandshakeResponse:
        asked = request.contract
        wrong = list(spec.handshake_violations(request))
        if wrong:
            raise errors.invalid(wrong)
        chosen = min(asked.max, REVISION.max)
        if chosen < max(asked.min, REVISION.min):
            text = f"the gateway speaks revisions {asked.min} to {asked.max}, this driver {REVISION.min} to {REVISION.max}"
            older = "driver" if asked.min > REVISION.max else "gateway"
            raise errors.not_able("CONTRACT_VERSION", "contract", text, f"install a newer {older}")
        self.gate.sessions[context.peer()] = Session(request.gateway_id, request.supervisor)
        return pb.HandshakeResponse(
            contract=REVISION,
            chosen=chosen,
            name="plain-python",
            version=VERSION,
            incarnation=self.journal.incarnation,
            capabilities=capabilities(),
            settings_schema=spec.SETTINGS_SCHEMA,
            driver_config_schema=spec.DRIVER_CONFIG_SCHEMA,
            description=f"NO ISOLATION, for learning: plain child processes, in Python; state in {self.host.state}",
        )

    async def Configure(self, request: pb.ConfigureRequest, context: Any) -> pb.ConfigureResponse:
        wrong = list(spec.struct_violations(request.settings, "", "sandboxes_max", 1, 10_000))
        if wrong:
            raise errors.invalid(wrong)
        self.host.sandboxes_max = spec.integer(request.settings, "sandboxes_max", 64)
        self.gate.configured = True
        return pb.ConfigureResponse(capabilities=capabilities())

    async def Fingerprint(self, request: pb.FingerprintRequest, context: Any) -> AsyncIterator[pb.FingerprintResponse]:
        told = None
        while True:
            now = await self.fingerprint(self.gate.session(context))
            if now != told:
                told = now
                yield now
            await asyncio.sleep(FINGERPRINT_S)

    async def fingerprint(self, session: Session) -> pb.FingerprintResponse:
        now = pb.FingerprintResponse(
            health=pb.HEALTHY,
            attributes={"kernel": os.uname().release, "python": platform.python_version(), "isolation": "none"},
            capacity=pb.Resources(sandboxes=self.host.sandboxes_max),
            used=pb.Resources(sandboxes=len(self.host.sandboxes)),
            limits=pb.Limits(),
        )
        now.checks.add(
            id="isolation",
            result=pb.WARNING,
            detail="there is none: this driver is for learning",
            fix="for real use take another driver",
        )
        checks = [await self.check_supervisor(session), self.check_state()]
        for check in checks:
            now.checks.append(check)
            if check.result == pb.FAILED:
                now.health, now.reason, now.fix = pb.UNHEALTHY, check.detail, check.fix
        return now

    async def check_supervisor(self, session: Session) -> pb.Check:
        problem = await self.supervisors.problem(session.supervisor)
        if problem is None:
            return pb.Check(id="supervisor", result=pb.PASSED, detail=f"{session.supervisor.path} has the right digest")
        fix = "reinstall the gateway, or restart it"
        return pb.Check(id="supervisor", result=pb.FAILED, detail=problem.text, fix=fix)

    def check_state(self) -> pb.Check:
        """Root's workloads run as another user, who must be able to come to the workspace."""
        for directory in [self.host.state, *self.host.state.parents]:
            if spec.CHOOSE_USER and not directory.stat().st_mode & 0o001:
                detail = f"workloads cannot pass through {directory}"
                return pb.Check(id="state", result=pb.FAILED, detail=detail, fix=f"chmod o+x {directory}")
        if not os.access(self.host.state, os.W_OK):
            detail = f"{self.host.state} cannot be written"
            return pb.Check(id="state", result=pb.FAILED, detail=detail, fix=f"chmod u+w {self.host.state}")
        return pb.Check(id="state", result=pb.PASSED, detail=f"{self.host.state} can be used")

    # ── Sandboxes ────────────────────────────────────────────────────────────────────────────────────────────────

    async def ValidateSandbox(self, request: pb.ValidateSandboxRequest, context: Any) -> pb.ValidateSandboxResponse:
        if not request.HasField("spec"):
            raise errors.invalid([errors.Violation("spec", "must be set")])
        wrong = spec.violations(request.spec)
        return pb.ValidateSandboxResponse(
            violations=[pb.FieldViolation(field=violation.field, message=violation.message) for violation in wrong]
        )

    async def CreateSandbox(self, request: pb.CreateSandboxRequest, context: Any) -> pb.CreateSandboxResponse:
        session = self.gate.session(context)
        sandbox = self.host.admit(session.gateway_id, request)
        if sandbox is None:
            supervisor_fd = await self.supervisors.fetch(session.supervisor)
            # Once more, for somebody may have come before us in the meantime; there is no await from here on.
            sandbox = self.host.admit(session.gateway_id, request)
            sandbox = sandbox or self.host.create(session.gateway_id, request, supervisor_fd)
        log("create", sandbox, request.operation_id)
        return pb.CreateSandboxResponse(handle=self.handle(), sandbox=sandbox.refresh())

    async def RecoverSandboxes(self, request: pb.RecoverSandboxesRequest, context: Any) -> pb.RecoverSandboxesResponse:
        gateway_id = self.gate.session(context).gateway_id
        wrong: list[errors.Violation] = []
        for index, item in enumerate(request.items):
            wrong += spec.id_violations(item.sandbox_id, f"items[{index}].sandbox_id")
        if wrong:
            raise errors.invalid(wrong)
        return pb.RecoverSandboxesResponse(results=[self.recover(gateway_id, item) for item in request.items])

    def recover(self, gateway_id: str, item: Any) -> Any:
        result = pb.RecoverSandboxesResponse.Result(sandbox_id=item.sandbox_id)
        sandbox = self.host.sandboxes.get((gateway_id, item.sandbox_id))
        problem = self.handle_problem(item.handle) if item.HasField("handle") else None
        if problem is not None and sandbox is None:
            # It may be where this driver does not look, so its absence here says nothing.
            self.host.incomplete.add(gateway_id)
        if problem is not None:
            result.outcome, result.message = pb.RecoverSandboxesResponse.UNKNOWN, problem
        elif sandbox is None:
            result.outcome, result.message = pb.RecoverSandboxesResponse.GONE, "it is not in the driver's state directory"
        else:
            if item.callback_directory and not spec.callback_violations(item.callback_directory):
                sandbox.link_callback(item.callback_directory)
            result.outcome = pb.RecoverSandboxesResponse.RECOVERED
            result.sandbox.CopyFrom(sandbox.refresh())
            result.handle.CopyFrom(self.handle())
        return result

    def handle(self) -> pb.Handle:
        """Everything about a sandbox is in the state directory; the handle says in which one."""
        return pb.Handle(version=HANDLE_VERSION, data=json.dumps({"state": self.host.identity}).encode())

    def handle_problem(self, handle: pb.Handle) -> Optional[str]:
        """Why nothing can be told by this handle; None if it can."""
        if handle.version != HANDLE_VERSION:
            return f"the handle has version {handle.version}, and this driver reads {HANDLE_VERSION}"
        try:
            state = json.loads(handle.data)["state"]
        except (ValueError, KeyError, TypeError):
            return "the handle is damaged"
        return None if state == self.host.identity else "it was made under another --state directory"

    async def StartSandbox(self, request: pb.StartSandboxRequest, context: Any) -> pb.StartSandboxResponse:
        wrong = spec.token_violations(request.bootstrap_token)
        if wrong:
            raise errors.invalid(wrong)
        session = self.gate.session(context)
        self.host.find(session.gateway_id, request.sandbox_id)
        supervisor_fd = await self.supervisors.fetch(session.supervisor)
        sandbox = self.host.find(session.gateway_id, request.sandbox_id)
        log("start", sandbox, request.operation_id)
        await self.host.start(sandbox, supervisor_fd, request.bootstrap_token)
        return pb.StartSandboxResponse(sandbox=sandbox.refresh())

    async def StopSandbox(self, request: pb.StopSandboxRequest, context: Any) -> pb.StopSandboxResponse:
        sandbox = self.host.find(self.gate.session(context).gateway_id, request.sandbox_id)
        log("stop", sandbox, request.operation_id)
        await self.host.stop(sandbox, request.grace_ms)
        return pb.StopSandboxResponse(sandbox=sandbox.refresh())

    async def DeleteSandbox(self, request: pb.DeleteSandboxRequest, context: Any) -> pb.DeleteSandboxResponse:
        await self.host.delete(self.gate.session(context).gateway_id, request.sandbox_id)
        return pb.DeleteSandboxResponse()

    # ── Observation ──────────────────────────────────────────────────────────────────────────────────────────────

    async def GetSandbox(self, request: pb.GetSandboxRequest, context: Any) -> pb.GetSandboxResponse:
        sandbox = self.host.find(self.gate.session(context).gateway_id, request.sandbox_id)
        return pb.GetSandboxResponse(sandbox=sandbox.refresh())

    async def ListSandboxes(self, request: pb.ListSandboxesRequest, context: Any) -> pb.ListSandboxesResponse:
        after = ""
        if request.page_token:
            incarnation, _, after = decode_token(request.page_token).partition("/")
            if incarnation != self.journal.incarnation:
                raise errors.invalid([errors.Violation("page_token", "is not from this driver and incarnation")])
        size = min(request.page_size or PAGE_DEFAULT, PAGE_MAX)
        rest = [s for s in self.host.of(self.gate.session(context).gateway_id) if s.record.sandbox_id > after]
        page = pb.ListSandboxesResponse(incarnation=self.journal.incarnation)
        page.sandboxes.extend(sandbox.refresh() for sandbox in rest[:size])
        if len(rest) > size:
            page.next_page_token = encode_token(f"{self.journal.incarnation}/{rest[size - 1].record.sandbox_id}")
        else:
            page.complete = self.gate.session(context).gateway_id not in self.host.incomplete
        return page

    async def WatchSandboxes(self, request: pb.WatchSandboxesRequest, context: Any) -> AsyncIterator[pb.WatchSandboxesResponse]:
        gateway_id = self.gate.session(context).gateway_id

        def snapshot() -> list[pb.Sandbox]:
            return [sandbox.refresh() for sandbox in self.host.of(gateway_id)]

        async for event in self.journal.watch(gateway_id, request.cursor, snapshot):
            yield event

    async def ReadConsole(self, request: pb.ReadConsoleRequest, context: Any) -> AsyncIterator[pb.ReadConsoleResponse]:
        sandbox = self.host.find(self.gate.session(context).gateway_id, request.sandbox_id)
        with open(sandbox.directory / "console.log", "rb") as console:
            size = os.fstat(console.fileno()).st_size
            console.seek(max(0, size - request.tail_bytes) if request.tail_bytes else 0)
            while True:
                while data := console.read(CONSOLE_CHUNK_BYTES):
                    yield pb.ReadConsoleResponse(data=data)
                # A file that was removed has no name any more: the sandbox was deleted.
                if not request.follow or os.fstat(console.fileno()).st_nlink == 0:
                    return
                if os.fstat(console.fileno()).st_size < console.tell():
                    console.seek(0)
                await asyncio.sleep(CONSOLE_S)


def encode_token(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise errors.invalid([errors.Violation("page_token", "is not from this driver")]) from None


def log(what: str, sandbox: Sandbox, operation_id: str) -> None:
    """Only what cannot hold a secret."""
    print(f"{what} sandbox={sandbox.record.sandbox_id} operation={operation_id!r}", file=sys.stderr)
