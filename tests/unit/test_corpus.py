"""The inputs that the fuzzer begins with, in every reader."""

from pathlib import Path

import pytest

from tests.fuzz import CORPUS, run_all


@pytest.mark.parametrize("seed", sorted((CORPUS / "inputs").iterdir()), ids=lambda path: path.name)
def test_what_the_fuzzer_begins_with_passes_all_readers(seed: Path) -> None:
    run_all(seed.read_bytes())
