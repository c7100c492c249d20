"""Claims: make claims checks before it lists."""

import subprocess

from tests.support.paths import ROOT


def test_make_claims_checks_and_then_lists() -> None:
    words = ["make", "--dry-run", "--old-file", ".venv/ready", "claims"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.partition("claims.py ")[2] for line in told if "claims.py" in line] == ["check", "list"]
