"""Statistics rounds: what opens is the sum of the devices' numbers, under the owners' rules, and the model stays."""

import json
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from adversary import Adversary, Announced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from signed_fleet import CHANNELS, LARGEST_SET
from test_attacks_policy import declines
from test_rounds import sent
from witness import Witness
from world import Crash, FleetKeys, RoundSettings, World, make_fleet

from coordinator.encoding import statistics_encoding
from coordinator.statistics import OPENED, Opened
from coordinator.statistics_table import schema_lines, table
from coordinator.uploads import EVIDENCE
from edge_agent.statistics import Statistics
from hushfleet.actions import Export
from hushfleet.codec import checksum_weights, lanes
from hushfleet.hashing import digest
from hushfleet.plans import VerifiedPlan
from hushfleet.secagg.residues import Vector, vector_length
from hushfleet.statistics import Digits, describe, length
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import BASE_USED_UP, DATA, LANE_RANGE, POLICY, STATISTICS, Plan, Result
from hushfleet.wire.schema import Schema

PARTICIPANTS = (5, 6, 7, 8)
TOP = Digits.of(LARGEST_SET).top


def fleet(**policy: Any) -> FleetKeys:
    return make_fleet(4, 4, **({"noiseless_statistics": 1} | policy)).with_schema()


def schema_of(keys: FleetKeys) -> Schema:
    return read(keys.documents["schema"], Schema)


def some_numbers(keys: FleetKeys, index: int) -> NDArray[np.float64]:
    """A device with ten windows times its index, labels, and readings at one place of each channel's range."""
    labels = np.arange(2 * index, dtype=np.int64) % 3
    values = [np.full(50, index / 10), np.linspace(0, 1, 50) if index % 2 else np.zeros(0)]
    return describe(schema_of(keys), 10 * index, labels, values, [index / 100, float(index % 2 == 0)])


def world_of(keys: FleetKeys, **rounds: Any) -> World:
    chosen: dict[str, Any] = {"collect": 60, "answer": 10, "recover": 30, "total": 4, "statistics_every": 2}
    world = World(keys, rounds=RoundSettings(**(chosen | rounds)))
    world.numbers = lambda index, plan: some_numbers(keys, index)
    return world


def opened(world: World) -> list[Opened]:
    return [Opened.from_body(value) for _, value in world.records[0].scan(OPENED)]


def results(world: World) -> list[Result]:
    return [read(Frame.from_bytes(entry.payload), Result) for entry in sent(world, "result")]


@pytest.mark.parametrize("codec", ["plain", "fast"])
def test_the_sum_of_the_numbers_opens_between_rounds_of_training_and_the_model_stays(codec: str) -> None:
    keys = fleet()
    world = world_of(keys, codec=codec)
    world.run(world.rounds_ended(4))
    world.crash(8)
    world.run(lambda world: len(sent(world, "plan")) == 5)
    # It starts while a statistics round or a later one is under way, and follows the model all the same.
    world.start(8)
    world.run(lambda world: world.conductor.finished)
    world.run_for(5)
    plans = [read(Frame.from_bytes(entry.payload), Plan) for entry in sent(world, "plan")]
    assert [plan.kind for plan in plans] == [1, 0, 0, 1, 0, 0, 1]
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["applied"] * 7
    assert [(result.base, result.version) for result in results(world)] == [
        (0, 0), (0, 1), (1, 2), (2, 2), (2, 3), (3, 4), (4, 4)
    ]  # fmt: skip
    assert all(world.device(index).live.version == 4 for index in world.nodes if index)
    first, second, last = opened(world)
    assert (first.round, first.devices, first.top) == (1, 4, TOP)
    exact = np.sum([some_numbers(keys, index) for index in PARTICIPANTS], axis=0)
    for found in (first, second, last):
        sums = np.frombuffer(found.sums, "<i8") / TOP
        assert np.abs(sums - exact).max() < 4 / TOP
    said = [outcome.get("statistics") for outcome in world.outcomes()]
    assert [str(text).startswith("noise none: the owners signed") for text in said] == [*[True, False, False] * 2, True]
    if codec == "plain":
        Witness(world).check()


def test_the_upload_that_is_shown_is_one_of_training() -> None:
    keys = fleet()
    world = world_of(keys, total=1, evidence=True)
    world.run(world.rounds_ended(1))
    assert world.records[0].get(EVIDENCE) is None
    world.run(lambda world: world.conductor.finished)
    shown = world.records[0].get(EVIDENCE)
    assert shown is not None
    (trained,) = (
        plan for entry in sent(world, "plan") for plan in [read(Frame.from_bytes(entry.payload), Plan)] if not plan.kind
    )
    assert len(shown) == vector_length(trained.coords, trained.bits, lanes(trained.tail))


@pytest.mark.parametrize("codec", ["plain", "default"])
def test_a_device_that_has_seen_no_other_plan_follows_the_model_by_deltas(codec: str) -> None:
    world = world_of(fleet(interval=1000), codec=codec, statistics_every=1)
    world.run(world.rounds_ended(1))
    world.crash(8)
    world.run(world.rounds_ended(3))
    world.run_for(1)
    assert read(Frame.from_bytes(sent(world, "plan")[-1].payload), Plan).kind == STATISTICS
    world.start(8)
    world.run_for(20)
    # A second start: what it is to follow is in no result that is new to it.
    world.crash(8)
    world.records[8].data.pop("model/live")
    world.start(8)
    world.run_for(20)
    assert len(sent(world, "plan")) == 3
    assert world.device(8).live.version == world.device(7).live.version == 1


def test_a_coordinator_goes_on_with_a_statistics_round_and_its_count_after_a_restart() -> None:
    world = world_of(fleet())
    world.run(world.noted(0, "frozen"))
    world.crash(0)
    world.start(0)
    world.run(world.rounds_ended(2))
    world.crash(0)
    world.start(0)
    world.run(lambda world: world.conductor.finished)
    plans = {read(Frame.from_bytes(entry.payload), Plan).round: entry for entry in sent(world, "plan")}
    kinds = [read(Frame.from_bytes(plans[number].payload), Plan).kind for number in sorted(plans)]
    assert kinds == [1, 0, 0, 1, 0, 0, 1]
    newest = world.conductor.round.statistics.newest
    assert newest is not None
    assert newest.round == 7
    Witness(world).check()


@pytest.mark.parametrize("lie", ["a digit above its range", "a digit below 0", "shares without a whole"])
def test_numbers_out_of_range_are_void_with_the_reason_and_asked_again_after_the_next_training(
    lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fleet()
    world = world_of(keys, total=2)
    honest = Statistics.encode

    def lying(self: Statistics, verified: VerifiedPlan, numbers: NDArray[np.float64], now: float) -> Any:
        if self._context.index != 7 or verified.plan.round > 1:
            return honest(self, verified, numbers, now)
        if lie == "shares without a whole":
            return honest(self, verified, np.ones(len(numbers)), now)
        vector, actions = honest(self, verified, numbers, now)
        return _shifted(vector, verified, 5000 if "above" in lie else -5000), actions

    monkeypatch.setattr(Statistics, "encode", lying)
    world.run(lambda world: world.conductor.finished)
    assert [(outcome["outcome"], outcome["reason"]) for outcome in world.outcomes()] == [
        ("void", LANE_RANGE), ("applied", 0), ("applied", 0), ("applied", 0), ("applied", 0)
    ]  # fmt: skip
    assert [outcome["version"] for outcome in world.outcomes()] == [0, 1, 1, 2, 2]
    assert [found.round for found in opened(world)] == [3, 5]


def _shifted(vector: Vector, verified: VerifiedPlan, by: int) -> Vector:
    """With a checksum that fits, as a device that lies makes it."""
    # Behind windows, labels and two numbers of the first channel: its mean.
    place = Digits.of(LARGEST_SET).count * (5 + 1 + 2 * 16 + 2)
    weights = checksum_weights(len(vector.body) + 1, digest("chks", verified.hash))
    vector.body[place] = np.uint16((int(vector.body[place]) + by) % 2**16)
    vector.tail[1] = np.uint64((int(vector.tail[1]) + by * int(weights[place])) % 2**64)
    return vector


def test_without_the_owners_leave_none_is_planned_and_the_journal_says_why() -> None:
    for keys, why in (
        (fleet(noiseless_statistics=0), "have not signed noiseless_statistics"),
        (make_fleet(4, 4, noiseless_statistics=1), "have signed none for this model"),
    ):
        world = world_of(keys, total=1)
        world.run(lambda world: world.conductor.finished)
        assert [read(Frame.from_bytes(entry.payload), Plan).kind for entry in sent(world, "plan")] == [0]
        assert [note.fields for _, who, note in world.notes if (who, note.event) == (0, "no-statistics")]
        assert why in world.why(0)[0]


# A coordinator that does not ask.


def attacked(keys: FleetKeys) -> Adversary:
    adversary = Adversary.in_fleet(keys, corrupt=[8])
    adversary.world.run_for(1)
    adversary.world.numbers = lambda index, plan: some_numbers(keys, index)
    return adversary


def a_day_passes(adversary: Adversary) -> None:
    """While every machine is off."""
    world = adversary.world
    for device in world.nodes.copy():
        world.crash(device)
    world.run_for(86_400)
    for device in (1, 2, 3, 4, *PARTICIPANTS):
        world.start(device)


def statistics_plan(adversary: Adversary, number: int, keys: FleetKeys, **changes: Any) -> Announced:
    """A plan for statistics as the coordinator would write it, but for the changes."""
    schema = schema_of(fleet())
    encoding = statistics_encoding(schema, read(keys.documents["policy"], Policy))
    fields = {name: getattr(encoding, name) for name in ("codec", "bits", "coords", "keep", "clip", "step")}
    fields |= {"kind": STATISTICS, "tail": 1, "steps": 0, "batch": 0}
    return adversary.announce(adversary.plan(number, **(fields | changes)))


@pytest.mark.parametrize(
    ("keys", "changes", "reason"),
    [
        (fleet(noiseless_statistics=0), {}, POLICY),
        (make_fleet(4, 4, noiseless_statistics=1), {}, DATA),
        (fleet(), {"tail": 0}, POLICY),
        (fleet(), {"step": 1.0}, POLICY),
        (fleet(), {"bits": 8}, POLICY),
        (fleet(), {"codec": 1}, POLICY),
        (fleet(), {"coords": 64}, POLICY),
    ],
    ids=["not signed", "no schema", "no tail", "another step", "fewer bits", "another codec", "fewer numbers"],
)
def test_devices_decline_statistics_that_nobody_allowed(keys: FleetKeys, changes: dict[str, Any], reason: int) -> None:
    adversary = attacked(keys)
    announced = statistics_plan(adversary, 2, keys, **changes)
    adversary.world.run_for(15)
    assert adversary.uploads(announced) == {}
    assert all(declines(adversary, device) == [(2, reason)] for device in PARTICIPANTS)
    if reason == POLICY and "coords" not in changes:
        assert adversary.ask_sum(1, announced, adversary.set_of(announced, [])) is None
        assert "not about the newest plan verified here" in adversary.refusals(1)[-1]


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
def test_a_device_describes_itself_once_a_base_and_then_once_a_day(restart: bool) -> None:
    keys = fleet(uploads_per_base=100)
    adversary = attacked(keys)

    def announce(number: int) -> Announced:
        announced = statistics_plan(adversary, number, keys)
        adversary.world.run_for(15)
        return announced

    assert len(adversary.uploads(announce(2))) == 4
    if restart:
        for device in PARTICIPANTS:
            adversary.world.crash(device)
            adversary.world.start(device)
    assert adversary.uploads(announce(3)) == {}
    assert all(declines(adversary, device) == [(3, BASE_USED_UP)] for device in PARTICIPANTS)
    a_day_passes(adversary)
    assert len(adversary.uploads(announce(4))) == 4


def test_a_model_that_goes_back_to_a_base_has_no_device_describe_itself_on_it_again() -> None:
    world = world_of(fleet(), total=0, statistics_every=1, pause=5.0)
    world.run(world.noted(0, "plan", 4))
    world.roll_back(0)
    world.run(world.rounds_ended(6))
    plans = [read(Frame.from_bytes(entry.payload), Plan) for entry in sent(world, "plan")]
    outcomes = {outcome["round"]: outcome["outcome"] for outcome in world.outcomes()}
    first, again = (plan.round for plan in plans if plan.kind == STATISTICS and plan.base == 0)
    assert (outcomes[first], outcomes[again]) == ("applied", "aborted")
    why = "this device has described itself on this base model already"
    assert all(why in world.why(index) for index in PARTICIPANTS)


def test_a_device_whose_vault_was_put_back_describes_itself_on_no_base_for_a_day() -> None:
    keys = fleet()
    adversary = attacked(keys)
    world = adversary.world

    def announce(number: int) -> Announced:
        announced = statistics_plan(adversary, number, keys)
        world.run_for(15)
        return announced

    copy = dict(world.records[5].data)
    assert sorted(adversary.uploads(announce(2))) == [5, 6, 7, 8]
    world.crash(5)
    world.put_back(5, copy)
    world.start(5)
    # Until it takes part in rounds again.
    world.run_for(310)
    assert adversary.uploads(announce(3)) == {}
    assert (3, BASE_USED_UP) in declines(adversary, 5)
    assert "may have described itself" in world.why(5)[-1]
    a_day_passes(adversary)
    assert sorted(adversary.uploads(announce(4))) == [5, 6, 7, 8]


@pytest.mark.parametrize("restart", [False, True], ids=["in one life", "over a restart"])
def test_neither_plan_nor_result_of_statistics_moves_a_model(restart: bool) -> None:
    keys = fleet()
    adversary = attacked(keys)
    live = adversary.world.device(5).live
    before = (live.version, live.hash)
    assert before[0] == 1
    invented = statistics_plan(adversary, 2, keys, base=9, base_hash=bytes(range(32)))
    adversary.world.run_for(15)
    assert adversary.uploads(invented) == {}
    announced = statistics_plan(adversary, 3, keys)
    adversary.world.run_for(15)
    assert len(adversary.uploads(announced)) == 4
    if restart:
        adversary.world.crash(5)
        adversary.world.start(5)
        adversary.world.run_for(1)
    honest = replace(
        read(Frame.from_bytes(sent(adversary.world, "result")[-1].payload), Result),
        plan=announced.hash,
        round=3,
        base=before[0],
        base_hash=before[1],
        version_hash=before[1],
    )
    moving = replace(honest, version=2, version_hash=bytes(range(32)), delta=bytes(range(32)))
    elsewhere = {"base": 9, "version": 9, "base_hash": bytes(range(32)), "version_hash": bytes(range(32))}
    for forged in (moving, replace(honest, **elsewhere)):  # type: ignore[arg-type]
        adversary.deliver(5, adversary.topics.result(3), adversary.frame(forged))
        device = adversary.world.device(5)
        assert (device.live.version, device.live.hash) == before
        assert device.live.at(*before)
        assert device.live._known() == before
        assert adversary.refusals(5)[-1] == "a statistics round moves no model"


# What the operator reads.


def test_the_operator_reads_means_spreads_and_drift_in_the_schemas_units() -> None:
    keys = fleet()
    world = world_of(keys, total=2, statistics_every=1)
    shift = {1: 0.0, 3: 0.3, 5: 0.3}

    def numbers(index: int, plan: Plan) -> NDArray[np.float64]:
        at = 0.1 + index / 100 + shift[plan.round]
        values = [np.array([at - 0.05, at + 0.05]), np.full(4, 0.5)]
        return describe(schema_of(keys), 12, np.zeros(index, np.int64), values, [0.25, 0.0])

    world.numbers = numbers
    exported: list[bytes] = []
    world.committed = lambda index, actions: exported.extend(
        action.content for action in actions if getattr(action, "name", "") == "statistics.json"
    )
    world.run(lambda world: world.conductor.finished)
    first, second, third = json.loads(exported[-1])
    assert (first["round"], second["round"], third["devices"]) == (1, 3, 4)
    assert first["noise"] == "none: the owners signed noiseless_statistics"
    assert first["windows"] == {"below 10": 0, "below 100": 4, "below 1000": 0, "below 10000": 0, "10000 or more": 0}
    co2, temperature = first["channels"]
    assert (co2["name"], co2["unit"], co2["devices"]) == ("co2", "ppm", 4)
    # Means of 0.15 to 0.18 of 5,000 ppm, each with readings 0.05 to both sides.
    assert co2["mean"] == pytest.approx(825, abs=0.1)
    assert co2["sd"] == pytest.approx(5000 * (0.05**2 + 0.01**2 * 1.25) ** 0.5, abs=0.5)
    assert co2["spread"] == pytest.approx(5000 * 0.01 * 1.25**0.5, abs=1.0)
    assert co2["missing"] == pytest.approx(0.25, abs=1e-4)
    assert (temperature["mean"], temperature["sd"]) == (pytest.approx(22.5, abs=0.01), pytest.approx(0, abs=0.5))
    assert first["labels"]["classes"]["class 0"]["share"] == pytest.approx(1.0)
    assert co2["drift"] is None
    assert second["channels"][0]["drift"] > 1
    assert third["channels"][0]["drift"] == pytest.approx(0, abs=1e-3)
    assert third["channels"][1]["drift"] == pytest.approx(0, abs=1e-3)
    assert sum(co2["histogram"]) == pytest.approx(1, abs=1e-4)
    assert len(first["channels"]) == len(CHANNELS)
    lines = table(second)
    assert lines[1] == "noise none: the owners signed noiseless_statistics"
    shown = next(line for line in lines if line.startswith("co2"))
    assert shown.split()[:4] == ["co2", "ppm", "4", "25.0%"]
    assert "█" in shown
    assert shown.split()[7].endswith("!")
    assert any(line.startswith("  class 0") and "100.0%" in line for line in lines)
    (co2_row, _) = tomllib.loads("\n".join(schema_lines(second)))["channels"]
    told = second["channels"][0]
    assert (co2_row["name"], co2_row["unit"], co2_row["high"]) == ("co2", "ppm", 5000.0)
    assert (co2_row["mean"], co2_row["sd"]) == (pytest.approx(told["mean"]), pytest.approx(told["sd"], rel=1e-5))


def test_the_newest_twenty_are_kept() -> None:
    keys = fleet()
    world = world_of(keys, total=1)
    world.run(lambda world: world.conductor.finished)
    conductor, policy = world.conductor, read(keys.documents["policy"], Policy)
    sums = np.zeros(length(schema_of(keys)), np.int64)
    plan = read(Frame.from_bytes(sent(world, "plan")[0].payload), Plan)
    for number in range(2, 25):
        actions = conductor.round.statistics.opened(sums, 4, policy, replace(plan, round=number), world.now)
        world._commit(0, actions)
        (export,) = (action for action in actions if isinstance(action, Export))
    assert [found["round"] for found in json.loads(export.content)] == list(range(5, 25))
    assert [found.round for found in opened(world)] == list(range(5, 25))
    kept = type(conductor.round.statistics)(conductor.context, 1)
    assert kept.newest is not None
    assert kept.newest.round == 24


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([0, 1, 5, 6]), st.integers(1, 60), st.sampled_from([None, 0, 1, 4]))
def test_machines_that_die_anywhere_leave_right_sums_and_describe_themselves_once(
    machine: int, event: int, left: int | None
) -> None:
    keys = fleet()
    world = World(
        keys,
        rounds=RoundSettings(collect=60, answer=10, recover=30, total=2, statistics_every=1),
        crashes={(machine, event): Crash(left)},
    )
    world.numbers = lambda index, plan: some_numbers(keys, index)
    world.run(lambda world: world.conductor.finished if 0 in world.nodes else False)
    Witness(world).check()
    for found in opened(world):
        (result,) = {result for result in results(world) if result.round == found.round}
        included = [index for index in PARTICIPANTS if result.includes(index)]
        exact = np.sum([some_numbers(keys, index) for index in included], axis=0)
        assert found.devices == len(included)
        assert np.abs(np.frombuffer(found.sums, "<i8") / TOP - exact).max() < len(included) / TOP
