"""What may be asked of this driver: bounds, violations, weaknesses, and when two specs are the same.

Nothing here changes anything. NO ISOLATION: for learning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from google.protobuf import message, struct_pb2

from cofferdam.compute.v1 import compute_driver_pb2 as pb
from errors import Violation

ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
STRING_BYTES_MAX = 1024
LIST_ITEMS_MAX = 1024
MAP_ENTRIES_MAX = 64
MAP_KEY_BYTES_MAX = 256
MAP_VALUE_BYTES_MAX = 4096
STRUCT_BYTES_MAX = 256 << 10
HANDLE_BYTES_MAX = 64 << 10
TOKEN_BYTES = 32
DIGEST_BYTES = 32

# Only root can run a workload as somebody else.
CHOOSE_USER = os.geteuid() == 0

SETTINGS_SCHEMA = json.dumps(
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "sandboxes_max": {
                "type": "integer",
                "minimum": 1,
                "maximum": 10_000,
                "default": 64,
                "description": "How many sandboxes may exist; one more is RESOURCE_EXHAUSTED.",
            }
        },
    }
)
DRIVER_CONFIG_SCHEMA = json.dumps(
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "nice": {
                "type": "integer",
                "minimum": 0,
                "maximum": 19,
                "default": 0,
                "description": "Scheduling priority of everything in the sandbox; 19 is the most modest.",
            }
        },
    }
)


def digest(spec: pb.SandboxSpec) -> str:
    """Two specs are the same if this is. Credentials do not count, nor do fields that this driver does not know."""
    copy = pb.SandboxSpec()
    copy.CopyFrom(spec)
    copy.image.ClearField("credentials")
    if not spec.HasField("image"):
        copy.ClearField("image")
    copy.DiscardUnknownFields()
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def integer(struct: struct_pb2.Struct, name: str, default: int) -> int:
    """A number of a struct that has been checked. Numbers in a Struct are floating-point."""
    return int(struct.fields[name].number_value) if name in struct.fields else default


def struct_violations(struct: struct_pb2.Struct, path: str, name: str, least: int, most: int) -> Iterator[Violation]:
    """What a struct with one optional integer property may be wrong in."""
    for key, value in struct.fields.items():
        where = f"{path}{key}"
        if key != name:
            yield Violation(where, f"there is no such key; there is {name!r}")
        elif value.WhichOneof("kind") != "number_value" or not value.number_value.is_integer():
            yield Violation(where, "must be an integer")
        elif not least <= value.number_value <= most:
            yield Violation(where, f"must be from {least} to {most}")


def violations(spec: pb.SandboxSpec) -> list[Violation]:
    """Everything that is wrong with a spec, with paths from SandboxSpec."""
    return [*bounds(spec), *_refused(spec)]


def create_violations(request: pb.CreateSandboxRequest) -> list[Violation]:
    """Everything that is wrong with a request, with paths from the request: the spec's begin with "spec."."""
    around = pb.CreateSandboxRequest()
    around.CopyFrom(request)
    around.ClearField("spec")
    return [
        *bounds(around),
        *id_violations(request.sandbox_id),
        *token_violations(request.bootstrap_token),
        *callback_violations(request.callback_directory),
        *([] if request.HasField("spec") else [Violation("spec", "must be set")]),
        *(Violation(f"spec.{field}", text) for field, text in violations(request.spec)),
    ]


def _refused(spec: pb.SandboxSpec) -> Iterator[Violation]:
    if spec.image.WhichOneof("source") != "host":
        yield Violation("image", "this driver has no images; the only one is the host itself")
    if spec.image.pull not in pb.PullPolicy.values():
        yield Violation("image.pull", f"{spec.image.pull} is not known to this driver")
    if spec.uid == 0:
        yield Violation("uid", "without isolation, root in the sandbox would be root on the host")
    if spec.gid == 0:
        yield Violation("gid", "without isolation, this would be root's group on the host")
    for limit in ("memory", "cpu", "pids", "disk"):
        if getattr(spec.limits.required, limit):
            yield Violation(f"limits.required.{limit}", "this driver enforces no limits")
    # `class` is a word of Python, so the field cannot be written with a dot.
    if getattr(spec.network, "class") != pb.OPEN:
        yield Violation("network.class", "this driver can give only OPEN, the host's own network")
    if spec.network.allow:
        yield Violation("network.allow", "is for EGRESS, which this driver does not have")
    for index in range(len(spec.mounts)):
        yield Violation(f"mounts[{index}]", "this driver mounts nothing")
    for key in spec.labels:
        if not key:
            yield Violation("labels", "a key is empty")
    if spec.expire_time_unix_ms == 0:
        yield Violation("expire_time_unix_ms", "must be set")
    elif spec.expire_time_unix_ms <= time.time() * 1000:
        yield Violation("expire_time_unix_ms", "has passed")
    if spec.gpus:
        yield Violation("gpus", "this driver has none")
    yield from struct_violations(spec.driver_config, "driver_config.", "nice", 0, 19)
    if spec.isolation_min > pb.NO_ISOLATION:
        yield Violation("isolation_min", "this driver isolates nothing: NO_ISOLATION is all that it gives")
    if spec.root_writable:
        yield Violation("root_writable", "the root is the host's own; what the user may not write stays so")
    if spec.workspace and not spec.workspace.startswith("/"):
        yield Violation("workspace", "must be an absolute path")


def weaknesses(spec: pb.SandboxSpec) -> list[str]:
    """Every departure from the spec, as a sentence."""
    found = [
        "NO ISOLATION: the workload is an ordinary process of the host and can do whatever its user can.",
        "The host's file system is visible, and writable wherever the user may write.",
    ]
    if not CHOOSE_USER:
        found.append(f"The workload runs as the driver's own user {os.getuid()}, not as {spec.uid}.")
    for limit, field in (("memory", "memory_bytes"), ("CPU", "cpu_millis"), ("process", "pids"), ("disk", "disk_bytes")):
        if getattr(spec.limits, field):
            found.append(f"The {limit} limit is not enforced.")
    if spec.limits.tmp_bytes:
        found.append("/tmp is the host's own, without a limit.")
    if spec.hostname:
        found.append("The host name is the host's own.")
    found.append("The workspace is a directory of its own, but not at the path that was asked for.")
    return found


def handshake_violations(request: pb.HandshakeRequest) -> Iterator[Violation]:
    if not 1 <= request.contract.min <= request.contract.max:
        yield Violation("contract", "must be a range of revisions: 1 <= min <= max")
    if not request.gateway_id:
        yield Violation("gateway_id", "must not be empty")
    if request.HasField("supervisor"):
        if len(request.supervisor.sha256) != DIGEST_BYTES:
            yield Violation("supervisor.sha256", f"must have {DIGEST_BYTES} bytes")
        if not request.supervisor.path.startswith("/"):
            yield Violation("supervisor.path", "must be an absolute path")


def id_violations(value: str, field: str = "sandbox_id") -> list[Violation]:
    if ID.fullmatch(value):
        return []
    return [Violation(field, "must be 1 to 63 of [a-z0-9-] and not begin with a dash")]


def callback_violations(path: str) -> list[Violation]:
    if path.startswith("/") and os.path.isdir(path):
        return []
    return [Violation("callback_directory", "must be the absolute path of a directory")]


def token_violations(token: bytes) -> list[Violation]:
    # Never the value, nor anything made of it.
    return [] if len(token) == TOKEN_BYTES else [Violation("bootstrap_token", f"must be {TOKEN_BYTES} bytes")]


def bounds(request: message.Message, prefix: str = "") -> Iterator[Violation]:
    """The bounds of rule 7, for any message of the contract."""
    for field, value in request.ListFields():
        path = prefix + field.name
        kind = field.message_type
        if kind is not None and kind.full_name == "google.protobuf.Struct":
            if value.ByteSize() > STRUCT_BYTES_MAX:
                yield Violation(path, f"is larger than {STRUCT_BYTES_MAX} bytes")
        elif kind is not None and kind.GetOptions().map_entry:
            yield from _map_bounds(value, path)
        elif field.is_repeated:
            if len(value) > LIST_ITEMS_MAX:
                yield Violation(path, f"has more than {LIST_ITEMS_MAX} items")
                continue
            for index, item in enumerate(value):
                yield from _value_bounds(item, f"{path}[{index}]")
        else:
            yield from _value_bounds(value, path)


def _value_bounds(value: Any, path: str) -> Iterator[Violation]:
    if isinstance(value, message.Message):
        yield from bounds(value, f"{path}.")
    elif isinstance(value, str) and len(value.encode()) > STRING_BYTES_MAX:
        yield Violation(path, f"is longer than {STRING_BYTES_MAX} bytes")
    elif isinstance(value, bytes) and len(value) > HANDLE_BYTES_MAX:
        yield Violation(path, f"is longer than {HANDLE_BYTES_MAX} bytes")


def _map_bounds(value: Any, path: str) -> Iterator[Violation]:
    if len(value) > MAP_ENTRIES_MAX:
        yield Violation(path, f"has more than {MAP_ENTRIES_MAX} entries")
        return
    for key, item in value.items():
        if len(key.encode()) > MAP_KEY_BYTES_MAX:
            yield Violation(path, f"a key is longer than {MAP_KEY_BYTES_MAX} bytes")
        if len(item.encode()) > MAP_VALUE_BYTES_MAX:
            yield Violation(f"{path}.{key[:32]}", f"the value is longer than {MAP_VALUE_BYTES_MAX} bytes")
