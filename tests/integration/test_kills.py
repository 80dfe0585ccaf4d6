"""A short run of random kills, and the oracle that judges it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import kills
import pytest
from contributions import Oracle
from fleet_fixture import COORDINATOR

from hushfleet.codec import pack_opened, unpack_opened
from hushfleet.wire.round import bitmap

pytestmark = pytest.mark.integration

KILLS, SEED = 30, 33


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> kills.Kills:
    return kills.run(KILLS, SEED, tmp_path_factory.mktemp("kills"))


def test_thirty_kills_lose_nothing_and_double_nothing(survived: kills.Kills) -> None:
    assert survived.faults == []
    assert survived.killed >= KILLS
    assert survived.oracle.outcomes["applied"] >= 3


def test_a_seed_is_a_schedule_in_which_everybody_is_hit() -> None:
    services = [COORDINATOR, "both-1", "part-1"]
    first, again, other = (list(islice(kills.blows(seed, services), 200)) for seed in (1, 1, 2))
    assert first == again != other
    assert {victim for blow in first for victim in blow.victims} == {kills.BROKER, *services}
    assert any(set(blow.victims) == {kills.BROKER, *services} for blow in first)


@pytest.fixture
def oracle(survived: kills.Kills) -> Iterator[Oracle]:
    """What the run has left in it, to be falsified."""
    oracle = survived.oracle
    results, deltas, accepted = dict(oracle._results), dict(oracle._deltas), dict(oracle._accepted)
    yield oracle
    oracle.faults.clear()
    oracle._results, oracle._deltas = results, deltas
    oracle._accepted.update(accepted)


def test_the_oracle_sees_an_upload_that_is_lost_doubled_or_invented(oracle: Oracle) -> None:
    number = oracle.judged
    result = oracle._results[number]
    payload, delta = oracle._deltas[result.version]
    included = [index for index in range(1, 7) if result.includes(index)]
    oracle._weigh(number, result)
    assert oracle.faults == []
    for times in (0, 2):
        counted = unpack_opened(delta.body, delta.bits, 256)
        counted[included[0]] *= times
        oracle._deltas[result.version] = payload, replace(delta, body=pack_opened(counted, delta.bits))
        oracle._weigh(number, result)
        assert f"uploads of device {included[0]}, not 1" in oracle.faults.pop()
    oracle._deltas[result.version] = payload, delta
    oracle._included[number] = set(included[1:])
    oracle._weigh(number, result)
    assert f"uploads of device {included[0]}, not 0" in oracle.faults[0]


def test_the_oracle_sees_an_accepted_upload_that_no_result_names(oracle: Oracle) -> None:
    number = oracle.judged
    result = oracle._results[number]
    oracle._results[number] = replace(result, included=bitmap([2, 3, 4, 5, 6]))
    oracle._model = None
    oracle._judge(number)
    assert any(f"round {number}: the uploads of [1] were accepted, then lost" in fault for fault in oracle.faults)
    oracle.faults.clear()
    oracle._accept(number, 1)
    assert "accepted, then lost" in oracle.faults[0]


def test_the_oracle_sees_a_second_word(oracle: Oracle) -> None:
    number = oracle.judged + 1
    for payload in (b"one", b"one", b"two"):
        oracle._keep(oracle._topics.up(0, 1, "upload", number, 1), payload)
    # Each further message of that topic is compared, and the run may have left some.
    assert len(set(oracle.faults)) == 1
    oracle.faults[1:] = []
    told = {"event": "answered", "round": number}
    oracle.hear([("both-1", "answered", told), ("both-1", "answered", told), ("both-2", "Traceback", {})])
    assert len(oracle.faults) == 3


def test_an_end_by_request_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, kills.__file__, "--kills", "1000", "--seed", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as process:
        assert process.stdout is not None
        alarm = threading.Timer(90, process.kill)
        alarm.start()
        lines = [next(process.stdout), next(process.stdout)]
        process.send_signal(signal.SIGINT)
        lines += process.stdout
        alarm.cancel()
    assert "make soak KILLS=1000 SEED=1" in lines[0]
    assert "nothing is left behind" in lines[-1]
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert not [stat for stat in Path("/proc").glob("[0-9]*/stat") if session_of(stat) == process.pid]


def session_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[3])
    except (FileNotFoundError, ProcessLookupError):
        return 0
