"""Refusals: a gRPC code, a sentence, and the google.rpc details that the contract asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

# Details travel in a header, and the contract bounds them: 4 KiB.
VIOLATIONS_BYTES_MAX = 3 << 10
RETRY_MS = 100


class Violation(NamedTuple):
    """Something wrong with one field of a request."""

    field: str
    message: str


class Refusal(Exception):
    """Ends an RPC with a code."""

    def __init__(self, code: grpc.StatusCode, text: str, details: Sequence[message.Message] = ()) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.details = details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The whole status as it travels beside code and text."""
        packed = []
        for detail in self.details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        number: int = self.code.value[0]
        status = status_pb2.Status(code=number, message=self.text, details=packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def invalid(violations: Sequence[Violation]) -> Refusal:
    request, left = error_details_pb2.BadRequest(), VIOLATIONS_BYTES_MAX
    for violation in violations:
        left -= len(violation.field.encode()) + len(violation.message.encode()) + 8
        if left > 0:
            request.field_violations.add(field=violation.field, description=violation.message)
    text = "; ".join(f"{v.field}: {v.message}" for v in violations[:4])
    if len(violations) > 4:
        text += f"; and {len(violations) - 4} more"
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, text, [request])


def not_found(sandbox_id: str) -> Refusal:
    return Refusal(grpc.StatusCode.NOT_FOUND, f"there is no sandbox {sandbox_id}", [_resource(sandbox_id)])


def already_exists(sandbox_id: str) -> Refusal:
    text = f"sandbox {sandbox_id} exists with another spec"
    return Refusal(grpc.StatusCode.ALREADY_EXISTS, text, [_resource(sandbox_id)])


def not_able(kind: str, subject: str, text: str, fix: str = "") -> Refusal:
    """FAILED_PRECONDITION: waiting does not help."""
    violation = error_details_pb2.PreconditionFailure.Violation(type=kind, subject=subject, description=text)
    details: list[message.Message] = [error_details_pb2.PreconditionFailure(violations=[violation])]
    if fix:
        details.append(error_details_pb2.Help(links=[error_details_pb2.Help.Link(description=fix)]))
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"{text}: {fix}" if fix else text, details)


def busy(sandbox_id: str, text: str) -> Refusal:
    """ABORTED: another operation on this sandbox is under way."""
    return Refusal(grpc.StatusCode.ABORTED, f"sandbox {sandbox_id}: {text}", [_retry()])


def full(text: str) -> Refusal:
    quota = error_details_pb2.QuotaFailure.Violation(subject="sandboxes_max", description=text)
    details = [error_details_pb2.QuotaFailure(violations=[quota]), _retry(5_000)]
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text, details)


def unavailable(text: str) -> Refusal:
    return Refusal(grpc.StatusCode.UNAVAILABLE, text, [_retry()])


def _resource(sandbox_id: str) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(resource_type="sandbox", resource_name=sandbox_id)


def _retry(delay_ms: int = RETRY_MS) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration(seconds=delay_ms // 1000, nanos=delay_ms % 1000 * 1_000_000)
    return error_details_pb2.RetryInfo(retry_delay=delay)
