"""The benchmark of bytes up to an accuracy: its training, its sums, its sizes and what it makes of them."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bytes_federation import Averages, FlowerSums, HushfleetSums
from bytes_sizes import FLOAT32, FLOWER, PLAIN_CODEC, SCHEMES, bits_per_parameter, messages, uploaded
from bytes_tasks import Rows, Task, digit_task
from bytes_to_accuracy import Case, goals, reached_after, rows_of
from bytes_training import train_together
from numpy.typing import NDArray

from coordinator.encoding import Codec
from hushfleet.errors import ConfigurationError
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.local import LocalResult, train
from hushfleet.mqtt.topics import Topics
from hushfleet.wire.layers import Dense
from hushfleet_demo.watch_data import load_people

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bytes_to_accuracy.py"
LAYERS = (Dense(12, 40, "relu"), Dense(40, 4))
DEVICES = 10


def rows(count: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    return Rows(generator.standard_normal((count, 12)).astype(np.float32), generator.integers(0, 4, count))


def task(momentum: float = 0.0, clip: float = 8.0) -> Task:
    devices = [rows(3 + 5 * index, index) for index in range(DEVICES)]
    return Task("a test", LAYERS, devices, rows(20, 99), steps=7, batch=16, rate=0.1, momentum=momentum, clip=clip)


def sums(codec: Codec, clip: float = 8.0) -> HushfleetSums:
    return HushfleetSums(task(clip=clip), codec, messages(codec, LAYERS, DEVICES))


def deltas(length: float, seed: int) -> list[LocalResult]:
    generator = np.random.default_rng(seed)
    size = task().parameters
    drawn = generator.standard_normal((DEVICES, size)) * length / size**0.5
    return [LocalResult(one, 16, 1.0) for one in drawn.astype(np.float32)]


def mean(trained: list[LocalResult]) -> NDArray[np.float32]:
    return np.asarray(np.mean([one.delta for one in trained], axis=0))


def publish(topic: str, payload: bytes) -> int:
    """Bytes of an MQTT 5 packet at QoS 1 without properties."""
    rest = 2 + len(topic) + 2 + 1 + len(payload)
    return 1 + 1 + (rest >= 128) + (rest >= 16_384) + rest


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_together_devices_take_the_very_steps_that_each_takes_alone(momentum: float) -> None:
    fleet = task(momentum)
    flat = initial_flat(LAYERS, bytes(32))
    seeds = [bytes([index]) for index in range(DEVICES)]
    alone = [
        train(flat, LAYERS, one.x, one.y, head="softmax", steps=7, batch=16, rate=0.1, momentum=momentum, proximal=0.0,
              order_seed=seed)
        for one, seed in zip(fleet.devices, seeds, strict=True)
    ]  # fmt: skip
    for ours, real in zip(train_together(flat, fleet, seeds), alone, strict=True):
        assert ours.delta == pytest.approx(real.delta, abs=1e-6)
        assert ours.examples == real.examples
        assert ours.training_loss_sum == pytest.approx(real.training_loss_sum)


def test_uneven_digits_are_dealt_once_and_nobody_is_left_without() -> None:
    pool = rows(400, 5)
    fleet = digit_task(pool, DEVICES, 1_000, seed=1)
    dealt = np.concatenate([one.x for one in (*fleet.devices, fleet.test)])
    assert sorted(map(tuple, dealt.tolist())) == sorted(map(tuple, pool.x.tolist()))
    assert len(fleet.test.y) == 160
    assert min(len(one.y) for one in fleet.devices) >= 2


def test_each_schemes_sum_is_the_mean_update() -> None:
    flat, trained = initial_flat(LAYERS, bytes(32)), deltas(1.0, 0)
    for scheme, tolerance in ((Averages(), 1e-6), (FlowerSums("test"), 1e-5), (sums("plain"), 0.02)):
        after = scheme.apply(flat, trained, 1)
        assert np.abs(after - flat - mean(trained)).max() < tolerance


def test_what_an_upload_leaves_out_comes_with_later_ones() -> None:
    scheme = sums("default", clip=2.0)
    flat = start = np.zeros(task().parameters, np.float32)
    said = np.zeros_like(start)
    for number in range(1, 41):
        trained = deltas(0.5, 7)
        said += mean(trained)
        flat = scheme.apply(flat, trained, number)
    assert scheme.void == 0
    # Some eight rounds' worth is still to be said: without residuals nine tenths of everything would be lost.
    along = float(flat @ said / (said @ said))
    assert 0.65 < along < 0.95


def test_a_round_in_which_too_much_wraps_is_void_and_changes_nothing() -> None:
    scheme = sums("fast")
    flat = np.zeros(task().parameters, np.float32)
    for number in range(1, 6):
        flat = scheme.apply(flat, deltas(0.05, number), number)
    assert scheme.void == 0
    assert np.array_equal(scheme.apply(flat, deltas(5.0, 9), 6), flat)
    assert scheme.void == 1


def test_bytes_are_those_of_the_messages_and_of_what_stands_around_them() -> None:
    layers = (Dense(64, 67, "relu"), Dense(67, 10))
    for scheme in SCHEMES:
        joining, once, thrice = (uploaded(scheme, layers, 10, rounds) for rounds in (0, 1, 3))
        assert thrice - once == pytest.approx(2 * (once - joining))
        if scheme == FLOWER:
            continue
        said = messages(scheme, layers, 10)
        up = partial(Topics(bytes(16)).up, 0, said.device, "upload", said.round)
        published = sum(publish(up(number), payload) for number, payload in enumerate((said.header, *said.slices)))
        # Plan, two receipts, result, an old result taken back, and the delta's chunks, which are asked for one by one.
        chunks = 1 + len(said.delta) // 16_384
        heard = 4 * (5 + chunks)
        assert published + heard < once - joining < published + heard + 160 * (chunks + 1), scheme
        assert 500 < joining < 2_000
        if scheme == FLOAT32:
            continue
        members = uploaded(scheme, layers, 10, 32, committee=True) - uploaded(scheme, layers, 10, 32)
        # Seven of ten devices answer each round with a mask sum, and deal their keys once in these 32.
        content = 32 * len(said.mask_sum) + len(said.card) + len(said.key) + 6 * len(said.box) + len(said.ready)
        assert 0.7 * content < members < 0.7 * (1.1 * content + 32 * 200), scheme
    assert len(messages(FLOAT32, layers, 10).upload) == 4 * 5_035
    assert len(messages("thrift", layers, 10).upload) == 256 * 4 // 8 + 64
    assert bits_per_parameter("thrift", layers, 10) == pytest.approx(256 * 4 / 5_035)
    assert bits_per_parameter(PLAIN_CODEC, layers, 10) == 16


@pytest.mark.parametrize(
    ("devices", "hidden", "measured"),
    [(8, 67, 46_684), (10, 67, 48_065), (50, 67, 62_522), (10, 1_333, 807_661), (100, 1_333, 822_123)],
)
def test_flowers_bytes_are_those_that_its_own_code_was_seen_to_send(devices: int, hidden: int, measured: int) -> None:
    layers = (Dense(64, hidden, "relu"), Dense(hidden, 10))
    assert uploaded(FLOWER, layers, devices, 1) == pytest.approx(measured, rel=2e-4)


def test_the_target_is_half_a_point_below_the_last_ten_rounds_of_float32() -> None:
    fleet = task()
    slow = np.concatenate((np.linspace(0.5, 0.8, 31), np.full(20, 0.8)))
    never = np.full(51, 0.7949)
    curves = dict.fromkeys(SCHEMES, slow) | {"thrift": never, "fast": np.full(51, 0.8)}
    found = {row.scheme: row for row in rows_of(Case("digits", DEVICES, 600), fleet, curves)}
    assert found[FLOAT32].accuracy == pytest.approx(0.8)
    assert found[FLOAT32].rounds == 34
    assert (found["fast"].rounds, found["fast"].reached) == (5, True)
    lost = found["thrift"]
    assert (lost.reached, lost.rounds, lost.bytes_up_to_target, lost.times_fewer_than_flower) == (False, *[None] * 3)
    spent = found["fast"].bytes_up_to_target
    assert spent == uploaded("fast", LAYERS, DEVICES, 5)
    assert found["fast"].times_fewer_than_flower == uploaded(FLOWER, LAYERS, DEVICES, 34) / spent
    assert found["default"].accuracy_fp32 == found[FLOAT32].accuracy
    assert reached_after(np.full(4, 1.0), 0.9) is None


def test_goals_are_judged_by_what_has_few_enough_bits() -> None:
    fleet = digit_task(rows(400, 5), DEVICES, 5_000, seed=0)
    below = {"thrift": 0.790, "default": 0.8, "fast": 0.8}
    curves = {scheme: np.full(51, below.get(scheme, 0.8)) for scheme in SCHEMES}
    bits, fewer = goals(rows_of(Case("digits", DEVICES, 5_000), fleet, curves))
    assert bits.value == pytest.approx(1.0)
    assert bits.line().startswith("MISSED")
    assert fewer.value > 50


def test_it_runs_and_writes_what_it_says(tmp_path: Path) -> None:
    try:
        load_people()
    except ConfigurationError as error:
        pytest.skip(f"not run without the recordings: {error}")
    path, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    command: list[str | Path] = [sys.executable, SCRIPT, "--quick", "--data", "watch", "--rounds", "10"]
    command += ["--json", path, "--plot", picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert [row["scheme"] for row in found] == [*SCHEMES]
    assert list(found[0]) == [
        "data",
        "devices",
        "parameters",
        "scheme",
        "bits_per_parameter",
        "accuracy",
        "accuracy_fp32",
        "reached",
        "rounds",
        "bytes_up_to_target",
        "times_fewer_than_flower",
    ]
    assert found[0]["accuracy"] == found[0]["accuracy_fp32"] > 0.6
    assert "watch     8 devices" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
