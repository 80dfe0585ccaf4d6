"""The vectors of statistics rounds, made again by the second implementation."""

import json
from pathlib import Path
from typing import Any

import pytest
from second_statistics import encoded, grid_for, judged, numbers_of, opened
from second_wire import Refused

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "vectors" / "statistics.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"N={case['largest_survivor_set']}")
def test_vectors_and_sums_are_those_of_the_text(case: dict[str, Any]) -> None:
    grid, seed = grid_for(case["largest_survivor_set"]), bytes.fromhex(case["checksum_seed"])
    assert (grid.base, grid.digits, 1.0 / grid.top) == (case["base"], case["digits"], case["step"])
    for device in case["devices"]:
        said = numbers_of(device["windows"], device["labels"], case["classes"], device["values"], device["missing"])
        said += judged(case["task"], case["classes"], device["outputs"], device["targets"])
        assert said == pytest.approx(device["numbers"], rel=1e-12)
        assert len(said) * grid.digits == case["coords"]
        words = bytes.fromhex(device["randomness"])
        assert encoded(device["numbers"], grid, seed, words).hex() == device["vector"]
    total = bytes.fromhex(case["total"])
    shape = (len(case["devices"]), case["channels"], case["classes"], case["task"])
    assert opened(total, *shape, grid, seed) == case["sums"]
    for at in (0, case["coords"] * 2 - 1, len(total) - 9):
        with pytest.raises(Refused):
            opened(total[:at] + bytes([total[at] ^ 1]) + total[at + 1 :], *shape, grid, seed)
