"""SECURITY.md names a test for each attack: they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = re.findall(r"`([\w/.]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    for file, name in named:
        path = ROOT / file if "/" in file else ROOT / "tests" / "integration" / "security" / file
        assert f"def {name}(" in path.read_text(encoding="utf-8"), f"{file}::{name}"
