"""The second writing reads the layer lists of the vectors: version 0 to the byte, and what no one may take."""

import json
from pathlib import Path
from typing import Any

import pytest
from second_layers import shared, version_zero
from second_sums import model_hash
from second_wire import Fields, Refused, unpack

VECTORS = Path(__file__).parent.parent / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def model(body: str) -> Fields:
    """A model's body, in its ranges."""
    fields = unpack("model", bytes.fromhex(body))
    shared(fields)
    return fields


@pytest.mark.parametrize("one", vectors("hashes")["version_0"], ids=lambda one: one["name"])
def test_version_0_of_every_golden_model(one: dict[str, Any]) -> None:
    flat = version_zero(one["layers"], bytes.fromhex(one["init"]))
    assert flat.astype("<f4").tobytes().hex() == one["flat"]


def test_every_golden_model_is_read() -> None:
    golden = [one for one in vectors("documents")["frames"] if one["type"] == "model"]
    assert len(golden) > 1
    for one in golden:
        fields = model(one["body"])
        assert fields["layers"] == one["fields"]["layers"]
        assert model_hash(version_zero(shared(fields), fields["init"])) == fields["zero"]
    assert any(one["fields"]["personal"] for one in golden)


@pytest.mark.parametrize(
    "case",
    [
        one
        for one in vectors("refused")["bodies"]
        if one["type"] == "model" and one["rule"] == "11.2" and one["why"] not in ("version 0", "protocol 0")
    ],
    ids=lambda case: case["why"],
)
def test_what_no_one_may_take_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        model(case["body"])
