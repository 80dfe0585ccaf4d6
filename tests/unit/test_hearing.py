"""What agent test and the status say of sensors, for the owner."""

from typing import Any

import pytest

from edge_agent.hearing import Heard, score_line, table
from edge_agent.sources.sensors import ChannelSettings
from hushfleet.wire.schema import Channel, Schema, Standardised


def test_agent_test_shows_that_a_sensor_announces_another_unit() -> None:
    row = Channel("temperature", "degC", -40.0, 85.0)
    rules = Schema(bytes(16), 0, 1, 1, bytes(32), (row,), 1.0, 2, 1, 0.0, 0, "value", (), 0, 0)
    for announced, said in (("°F", "none, but the sensor announces °F, not degC"), ("°C", ""), (None, "")):
        heard = Heard(ChannelSettings("temperature", "t#"), unit=announced)
        _, line = table([heard], rules, 0.0)
        assert said in line
        assert ("announces" in line) == bool(said)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Channel("t", "degC", -40.0, 85.0), "error 0.625 degC"),
        (Standardised("t", "degC", -40.0, 85.0, 20.0, 3.0), "error 0.03 degC"),
    ],
)
def test_a_forecasts_error_is_told_in_its_unit(row: Channel, said: str) -> None:
    schema = Schema(bytes(16), 0, 1, 1, bytes(32), (row,), 1.0, 2, 1, 0.0, 0, "forecast", (), 0, 3)
    score = {"version": 7, "rows": 9, "accuracy": None, "error": 0.01, "loss": 0.5}
    status: dict[str, Any] = {"score": score, "schema": schema.to_body().hex()}
    assert score_line(status) == f"version 7, rows 9, {said}, loss 0.5"
    assert score_line(status | {"schema": None}) == "version 7, rows 9, error 0.01, loss 0.5"
