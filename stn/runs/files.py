"""Files that are whole or not there, whatever is killed. Must not know what is in them."""

import errno
import json
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any


def sync_folder(folder: Path) -> None:
    """Names that were made, or made anew, outlive the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole and flushed, under a name that nobody reads yet."""
    with path.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, content: bytes | str) -> None:
    """The file is the old one or the new one, never a part, whatever is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        write_file(temporary, content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # of a full disk it has none
        raise
    sync_folder(path.parent)


def publish(path: Path, content: str, scratch: Path) -> bool:
    """Make a file that does not exist yet, whole; False where somebody else was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = scratch / f".{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        write_file(temporary, content)
        with suppress(FileExistsError):
            os.link(temporary, path)
        # Not by what link said: over NFS the answer to a link that was made may be lost, and the question repeated.
        mine = temporary.stat().st_nlink == 2
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return mine


def read_text(path: Path) -> str:
    """What is in a file; nothing where there is none. Over NFS a file may be replaced between open and read."""
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
    """The object in a JSON file; nothing where there is none, or where it is damaged."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; a line torn by a kill is left out."""
    return parse_rows(read_text(path).splitlines())


def parse_rows(lines: list[str]) -> list[dict[str, Any]]:
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
