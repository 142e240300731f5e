"""What holds for every RPC: handshake first, then Configure; bounds; refusals become statuses; nothing secret is logged."""

from __future__ import annotations

import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio

import errors
import spec
from cofferdam.compute.v1 import compute_driver_pb2 as pb

SERVICE = "cofferdam.compute.v1.ComputeDriver"
WITHOUT_HANDSHAKE = frozenset({"Handshake"})
WITHOUT_SETTINGS = frozenset({"Handshake", "Configure", "Fingerprint"})
# These say everything at once, bounds and the rest, themselves.
OWN_BOUNDS = frozenset({"ValidateSandbox", "CreateSandbox"})


@dataclass(frozen=True)
class Session:
    """What a handshake has told about one connection."""

    gateway_id: str
    supervisor: pb.Supervisor


class Gate(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        # By `context.peer()`, which the door makes different for each connection, and forgotten when that ends.
        self.sessions: dict[str, Session] = {}
        self.configured = False

    def session(self, context: Any) -> Session:
        return self.sessions[context.peer()]

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        service, _, name = details.method.lstrip("/").partition("/")
        if handler is None or service != SERVICE:
            return handler
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self.stream(name, handler.unary_stream), **codec)
        return grpc.unary_unary_rpc_method_handler(self.unary(name, handler.unary_unary), **codec)

    def unary(self, name: str, behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def checked(request: Any, context: Any) -> Any:
            try:
                self.admit(name, request, context)
                return await behaviour(request, context)
            except Exception as error:
                await refuse(name, error, context)

        return checked

    def stream(self, name: str, behaviour: Callable[[Any, Any], AsyncIterator[Any]]) -> Any:
        async def checked(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                self.admit(name, request, context)
                async for response in behaviour(request, context):
                    yield response
            except Exception as error:
                await refuse(name, error, context)

        return checked

    def admit(self, name: str, request: Any, context: Any) -> None:
        if name not in WITHOUT_HANDSHAKE and context.peer() not in self.sessions:
            raise errors.not_able("HANDSHAKE", name, "there was no handshake on this connection", "call Handshake first")
        if name not in WITHOUT_SETTINGS and not self.configured:
            raise errors.not_able("NOT_CONFIGURED", name, "this driver has no settings yet", "call Configure")
        if name in OWN_BOUNDS:
            return
        wrong = list(spec.bounds(request))
        if "sandbox_id" in request.DESCRIPTOR.fields_by_name:
            wrong += spec.id_violations(request.sandbox_id)
        if wrong:
            raise errors.invalid(wrong)


async def refuse(name: str, error: Exception, context: Any) -> NoReturn:
    """The one place where an exception becomes a status."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, NotImplementedError):
        error = errors.Refusal(grpc.StatusCode.UNIMPLEMENTED, f"this driver cannot do {name}")
    if not isinstance(error, errors.Refusal):
        # Where, but not what: the text of an unforeseen exception may quote the request.
        where = "".join(traceback.format_tb(error.__traceback__))
        print(f"fault in {name}: {type(error).__name__}\n{where}", file=sys.stderr)
        error = errors.Refusal(grpc.StatusCode.INTERNAL, f"a fault in the driver, in {name}: {type(error).__name__}")
    await context.abort(error.code, error.text, trailing_metadata=error.trailing_metadata())
    raise AssertionError("abort does not return")
