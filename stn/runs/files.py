"""Files that are complete or absent, whatever is killed, and readers that tolerate damage."""

import errno
import json
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any


def sync_folder(folder: Path) -> None:
    """fsync the directory so that new or renamed entries survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: bytes | str) -> None:
    """Write and fsync a file, under a name that nobody reads yet."""
    with path.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace a file atomically: readers see the old content or the new one, whatever is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        write_file(temporary, content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a full disk reports none
        raise
    sync_folder(path.parent)


def publish(path: Path, content: str, scratch: Path) -> bool:
    """Create a complete file under a new name; return False if another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = scratch / f".{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        write_file(temporary, content)
        with suppress(FileExistsError):
            os.link(temporary, path)
        # Not the result of link: over NFS the reply to a link that succeeded may be lost, and the request repeated.
        mine = temporary.stat().st_nlink == 2
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return mine


def read_text(path: Path) -> str:
    """Return a file's text, "" if there is none; over NFS it may be replaced between open and read: retry once."""
    for last in (False, True):
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            if last or error.errno != errno.ESTALE:
                raise
    raise AssertionError


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} if it is missing or damaged."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file without lines that a kill has torn."""
    return parse_rows(read_text(path).splitlines())


def parse_rows(lines: list[str]) -> list[dict[str, Any]]:
    """Return the JSON objects among these lines."""
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
