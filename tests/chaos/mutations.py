"""Damaged and hostile variants of an input: bytes, text and values."""

import json
import random
from collections.abc import Callable
from typing import Any

import yaml

TOKENS = (
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\x1b[31m", b"\t", b" ", b"'", b'"', b"\\"),
    *(
        b"-1",
        b"0",
        b"1e999",
        b"-1e999",
        b"nan",
        b"NaN",
        b"Infinity",
        b"1e-400",
        b"9" * 30,
        b"9" * 5000,
        b"0x10",
        b"1_000",
    ),
    *(b"null", b"true", b"no", b"~", b"{}", b"[]", b"[" * 3000, b"{" * 3000, b'{"a":' * 1500, b"- " * 800, b"a" * 4000),
    *(b"&a [*a, *a]", b"*a", b"<<: {}", b"!!python/object:os.system x", b"!!timestamp 2001-01-01", b"? a", b"---\n"),
    *(
        "\u0664".encode(),
        "\u00b2".encode(),
        "\u2028".encode(),
        "\U0001f600".encode(),
        "a\u0300".encode(),
        b"\xed\xa0\x80",
    ),
    *(
        b"0-999999,1000000-1999999",
        b"0-2147483647",
        b"5-2",
        b"--",
        b",",
        b":",
        b"%",
        b"epochs",
        b"2 steps",
        b"1e9 epochs",
    ),
    *(b"../../etc", b"/dev/null", b"/", b"."),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**70,
        -(2**70),
        10**300,
        0.5,
        -0.0,
        1e300,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        " ",
        "x",
        "nan",
        "1e999",
        "\0",
        "\x1b[31m",
        "a\nb",
        "\u2028",
        "\ud800",
        "9" * 400,
        "../x",
        "/",
        "0-2147483647",
    ),
    *([], [[]], [None], [1, "x"], {}, {"": None}, {"a": {"b": []}}, [0] * 1000, "x" * 100_000),
)


def _position(content: bytes, rng: random.Random) -> int:
    return rng.randint(0, len(content))


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8)) if content else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    start = _position(content, rng)
    return content[:start] if rng.random() < 0.5 else content[:start] + content[start + rng.randint(1, 200) :]


def _double(content: bytes, rng: random.Random) -> bytes:
    start = _position(content, rng)
    part = content[start : start + rng.randint(1, 200)]
    return content[:start] + part * rng.choice((2, 3, 50)) + content[start:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    start = _position(content, rng)
    skipped = rng.choice((0, 0, 1, 5, 20))
    return content[:start] + rng.choice(TOKENS) + content[start + skipped :]


def _word(content: bytes, rng: random.Random) -> bytes:
    words = content.split(b" ")
    words[rng.randrange(len(words))] = rng.choice(TOKENS)
    return b" ".join(words)


def _noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 8, 100, 1000)))


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (_flip, _cut, _double, _insert, _insert, _word, _noise)


def _changed(value: Any, rng: random.Random) -> Any:
    """Return a value with one part of it, at any depth, replaced, removed or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(VALUES)
    if isinstance(value, list):
        i = rng.randrange(len(value))
        return [*value[:i], *([] if rng.random() < 0.1 else [_changed(value[i], rng)]), *value[i + 1 :]]
    key = rng.choice(list(value))
    if rng.random() < 0.1:
        return {k: v for k, v in value.items() if k != key}
    if rng.random() < 0.1:
        return {(rng.choice(("x", "", 7, None)) if k == key else k): v for k, v in value.items()}
    return value | {key: _changed(value[key], rng)}


def _values(content: bytes, rng: random.Random, form: str) -> bytes:
    """Return the file with one value changed: the format stays right."""
    if form == "yaml":
        text = yaml.dump(_changed(yaml.safe_load(content), rng), sort_keys=False, allow_unicode=True)
        return text.encode(errors="surrogatepass")
    lines = content.decode().splitlines() if form == "jsonl" else [content.decode()]
    i = rng.randrange(len(lines))
    lines[i] = json.dumps(_changed(json.loads(lines[i]), rng))
    return "\n".join(lines).encode()


def mutated(content: bytes, rng: random.Random, form: str) -> bytes:
    """Return a variant of an input; ``form``: yaml, json, jsonl, or bytes for what has no values."""
    if form != "bytes" and rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 2, 4))):
            try:
                content = _values(content, rng, form)
            except (ValueError, TypeError, yaml.YAMLError, RecursionError, IndexError):
                break
        return content
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        content = rng.choice(BYTES)(content, rng)
    return content
