"""Files that are complete or absent, whatever is killed, and readers that tolerate damage."""

import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)
"""Errors of link on file systems without hard links: exFAT, some FUSE and cloud mounts."""


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Put this file's name into an OSError that has none, such as a full disk's."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def temporary_file(path: Path, content: bytes | str) -> Iterator[Path]:
    """Yield a complete file beside ``path``, under a name that nobody reads; afterwards make its new name durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.tmp")
    with named_in_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # new and renamed entries survive a crash
        finally:
            os.close(folder)


def write_atomic(path: Path, content: bytes | str, allowed: Callable[[], bool] | None = None) -> bool:
    """Replace a file atomically: readers see the old content or the new one, whatever is killed.

    ``allowed`` is asked when all but the rename is done; return whether it allowed it.
    """
    with temporary_file(path, content) as temporary:
        if allowed and not allowed():
            return False
        temporary.replace(path)
    return True


def publish(path: Path, content: str) -> bool:
    """Create a complete file under a new name; return False if another process was first."""
    with temporary_file(path, content) as temporary:
        try:
            with suppress(FileExistsError):
                os.link(temporary, path)
            # Not the result of link: over NFS the reply to a link that succeeded may be lost, and the request repeated.
            return temporary.stat().st_nlink == 2
        except FileNotFoundError:  # whoever has taken over deletes temporary files
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return _create(path, content)


def _create(path: Path, content: str) -> bool:
    """Create a file as publish does, without hard links: a kill may leave a torn file, which counts as damaged."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def read_text(path: Path) -> str:
    """Return a file's text, "" if there is none."""
    with suppress(FileNotFoundError):
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return path.read_text(encoding="utf-8", errors="replace")  # over NFS it was replaced between open and read
    return ""


def last_lines(path: Path, size: int = 1 << 16) -> list[str]:
    """Return the lines in the last ``size`` bytes of a file; an empty list if there is none, or a terminal."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace").splitlines()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} if it is missing or damaged."""
    return next(iter(parse_rows([read_text(path)])), {})


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file without lines that a kill has torn."""
    return parse_rows(read_text(path).splitlines())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def parse_rows(texts: list[str]) -> list[dict[str, Any]]:
    """Return the objects among these JSON texts."""
    rows = []
    for text in texts:
        with suppress(ValueError, RecursionError):
            rows.append(json.loads(text, parse_constant=_refuse))
    return [row for row in rows if isinstance(row, dict)]
