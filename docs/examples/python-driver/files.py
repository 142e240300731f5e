"""Small JSON files that are either the old one or the new one, whoever dies when."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Optional


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replaces the file in one step."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(beside, path)


def read_json(path: Path) -> Optional[dict[str, Any]]:
    """None if there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value
