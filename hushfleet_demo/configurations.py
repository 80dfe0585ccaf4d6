"""The files of a demo's fleet: its rules, the profile of its devices, and what its services are told."""

import json
from typing import Any

PROFILE = """\
name = "demo-gateway"
description = "A gateway on this machine, with the smallest chunks"
memory = 512

[link]
class = "ethernet"
chunk = 256
window = 1
keepalive = 60
"""

FLEET = """\
[fleet]
name = "{name}"

[model]
name = "{model}"
layers = [
{layers}
]

[policy]
{policy}
{schema}"""

COORDINATOR = """\
bundle = "../fleet/devices/coordinator"
documents = "../fleet/documents"
ledger = "../state/coordinator/ledger.db"
log = "json"

[rounds]
total = {rounds}
collect = 20
answer = 2
recover = 10
enough = 0.85
patience = 0.4
steps = {steps}
batch = {batch}
rate = {rate}
momentum = {momentum}
codec = "{codec}"
statistics_every = {statistics_every}
evidence = true

[setup]
cards = 6
keys = 12
ready = 20
"""

AGENT = """\
bundle = "../fleet/devices/{name}"
vault = "../state/{name}/vault.db"
profile = "demo-gateway.toml"
head = "{head}"
log = "json"

[broker]
port = {port}
{rows}"""

ROWS = """
[source]
path = "../rows/{name}.csv"
label = "label"
holdout = {holdout}
"""

RULES = {
    "committee_min": 4,
    "recoveries": 1,
    "smallest_survivor_set": 6,
    "assumed_colluders": 1,
    "interval": 0,
    "epoch_rounds": 32,
}
"""Of a demo's policy, beside those that follow from the task."""


def lines(table: dict[str, Any]) -> str:
    """A table of numbers and flags, as TOML."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
