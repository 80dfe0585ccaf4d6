"""What learning costs a device in joules: metered, reckoned, kept within the day; and a year of it as it is planned."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import golden_fleet
import golden_round
import pytest

from edge_agent.budget import WATT_HOUR, Budget, BudgetSettings, round_joules
from edge_agent.limits import awake_at
from edge_agent.metered import MeteredSettings, metered_interface
from firmware_profiles import catalog
from hushfleet.errors import ConfigurationError
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.layers import Dense
from hushfleet.wire.round import BATTERY, BUSY, STATISTICS, Plan
from planner.costs import Cost, Training, cost
from planner.messages import Committee, Encoding, Messages
from planner.packets import Count, ping
from planner.traffic import Traffic

GATEWAY = catalog.load("gateway-nb-iot")
MODEL = read(golden_fleet.documents().documents["model"], ModelSpec)
PLAN = replace(read(golden_round.played().plan, Plan), steps=100, batch=32)
DAY, NOON = 86_400.0, 1_700_049_600.0


@pytest.fixture(autouse=True)
def coordinated_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def silent(why: str) -> None:
    raise AssertionError(why)


def spent(budget: Budget) -> float:
    """J of today."""
    with budget._lock:
        return budget._joules


def test_processor_radio_and_tail_are_metered_each_once(tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(BudgetSettings(), GATEWAY, tmp_path / "energy.json", silent, clock)
    # 0.6 W computing, 0.8 W sending and 0.2 W receiving at 2,500 bytes a second, a tail of 20 s at 0.2 W.
    budget.note(5.0, 1000, 1000)
    assert spent(budget) == 0
    budget.note(15.0, 1000, 1000)
    assert spent(budget) == pytest.approx(6)
    clock.now += 100
    budget.note(15.0, 6000, 3500)
    assert spent(budget) == pytest.approx(6 + 2 * 0.8 + 1 * 0.2 + 4)
    # Within the tail: what was left of it is not paid twice.
    clock.now += 12
    budget.note(15.0, 6000, 8500)
    assert spent(budget) == pytest.approx(6 + 1.8 + 10 * 0.2 + 2 * 0.2 + 4)
    clock.now += DAY
    budget.note(15.0, 6000, 8500)
    assert spent(budget) == 0


def reckoned(steps: int, size: int = 10_000) -> float:
    step, rest = round_joules(GATEWAY.compute, GATEWAY.energy, PLAN, MODEL, 4)  # type: ignore[arg-type]
    return steps * step + rest + size / 2500 * (0.8 + 0.2) + 2 * 20 * 0.2


@pytest.mark.parametrize(
    ("pays", "shortest", "trains"),
    [(100, 0.5, 100), (99.5, 0.5, 99), (50, 0.5, 50), (49.5, 0.5, 0), (1, 0, 1), (0, 0, 0)],
)
def test_a_day_that_does_not_pay_for_a_round_makes_it_shorter_or_none(
    tmp_path: Path, pays: float, shortest: float, trains: int
) -> None:
    step = reckoned(1) - reckoned(0)
    settings = BudgetSettings(energy=(reckoned(0) + (pays + 1e-6) * step) / WATT_HOUR, shortest=shortest)
    budget = Budget(settings, GATEWAY, tmp_path / "energy.json", silent, Clock())
    found = budget.steps(PLAN, MODEL, 4, 10_000)
    if trains:
        assert found == trains
    else:
        assert isinstance(found, tuple)
        assert found[0] == BATTERY
        assert "Wh a day that [budget] allows" in found[1]


def test_a_round_of_statistics_is_whole_or_not_at_all(tmp_path: Path) -> None:
    plan = replace(PLAN, kind=STATISTICS, steps=0)
    for energy, fits in ((reckoned(0) + 1e-6, True), (reckoned(0) - 1e-6, False)):
        budget = Budget(BudgetSettings(energy=energy / WATT_HOUR), GATEWAY, tmp_path / "energy.json", silent, Clock())
        assert (budget.steps(plan, MODEL, 4, 10_000) == 0) is fits


def test_what_the_day_has_cost_survives_a_crash_but_for_a_small_part(tmp_path: Path) -> None:
    path, clock, settings = tmp_path / "energy.json", Clock(), BudgetSettings(energy=0.1)
    budget = Budget(settings, GATEWAY, path, silent, clock)
    for second in range(300):
        budget.note(float(second), 0, 0)
    again = Budget(settings, GATEWAY, path, silent, clock)
    assert spent(budget) - 0.1 * WATT_HOUR / 32 - 0.6 <= spent(again) <= spent(budget)
    # So it does a clock that begins in 1970, and is set once the network has said what time it is.
    before, set_to, clock.now = spent(again), clock.now, 100.0
    for second in range(300):
        again.note(float(second), 0, 0)
    clock.now = set_to
    again.view()
    assert spent(again) == before
    assert spent(Budget(settings, GATEWAY, path, silent, clock)) == pytest.approx(before, abs=0.1)
    clock.now += DAY
    again.view()
    assert spent(again) == 0
    path.write_text("{")
    told: list[str] = []
    Budget(settings, GATEWAY, path, told.append, clock)
    assert "what was spent begins anew" in told[0]


def test_without_a_limit_nothing_is_written(tmp_path: Path) -> None:
    budget = Budget(BudgetSettings(), GATEWAY, tmp_path / "energy.json", silent, Clock())
    for second in range(300):
        budget.note(float(second), second, 0)
    assert budget.steps(PLAN, MODEL, 4, 10**9) == PLAN.steps
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("hour", "takes_part"), [(9, False), (10, True), (15, True), (16, False), (23, True), (3, False)]
)
def test_only_in_its_hours_a_device_takes_part(tmp_path: Path, hour: int, takes_part: bool) -> None:
    settings = BudgetSettings(hours=("10:00-16:00", "22:30-02:00"))
    clock = Clock(NOON - 12 * 3600 + hour * 3600)
    found = Budget(settings, GATEWAY, tmp_path / "energy.json", silent, clock).steps(PLAN, MODEL, 4, 1000)
    assert (found == PLAN.steps) is takes_part
    if not takes_part:
        assert isinstance(found, tuple)
        assert found[0] == BUSY


def test_what_cannot_be_kept_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"under \[budget\], but the profile gateway-nb-iot lacks energy"):
        Budget(BudgetSettings(energy=1.0), replace(GATEWAY, energy=None), tmp_path / "energy.json", silent)
    with pytest.raises(ConfigurationError, match=r"hours under \[budget\].* 'noon' is not a window"):
        BudgetSettings(hours=("noon",))


def route(root: Path, *default: tuple[str, int], sixth: tuple[tuple[str, int], ...] = ()) -> None:
    """Routing tables as Linux shows them; of each default route its interface and metric."""
    zeros = "0" * 32
    (root / "route").write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        + "".join(f"{name}\t00000000\t0102A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n" for name, metric in default)
        + "wwan9\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        + "ppp9\t00000000\t0102A8C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"
    )
    (root / "ipv6_route").write_text(
        f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
        f"fe80{zeros[4:]} 40 {zeros} 00 {zeros} 00000000 00000002 00000000 00000001    wwan9\n"
        + "".join(
            f"{zeros} 00 {zeros} 00 fe80{zeros[4:]} {metric:08x} 00000003 00000000 00000003     {name}\n"
            for name, metric in sixth
        )
    )


@pytest.mark.parametrize(
    ("default", "sixth", "found"),
    [
        ([("eth0", 100), ("wwan0", 700)], [], None),
        ([("wwan0", 700)], [], "wwan0"),
        ([("wlan0", 600), ("ppp0", 50)], [("eth0", 1)], "ppp0"),
        ([("ppp1", 50)], [], None),
        ([], [("wwan1", 1024), ("eth0", 2048)], "wwan1"),
        ([], [("eth0", 512), ("wwan1", 1024)], None),
        ([], [], None),
    ],
)
def test_which_link_traffic_takes_is_the_kernels_default_route(
    tmp_path: Path, default: list[tuple[str, int]], sixth: list[tuple[str, int]], found: str | None
) -> None:
    settings = MeteredSettings(("wwan*", "ppp0"))
    assert metered_interface(settings, tmp_path) is None
    route(tmp_path, *default, sixth=tuple(sixth))
    assert metered_interface(settings, tmp_path) == found
    assert metered_interface(MeteredSettings(), tmp_path) is None


def test_over_a_metered_link_a_device_takes_part_while_the_month_pays(tmp_path: Path) -> None:
    clock, on = Clock(), ["wwan0"]
    path, settings = tmp_path / "energy.json", BudgetSettings(metered=MeteredSettings(("wwan*",), 1.0))

    def opened() -> Budget:
        return Budget(
            settings, replace(GATEWAY, energy=None), path, silent, clock, lambda _: on[0] if on[0] == "wwan0" else None
        )

    budget = opened()
    budget.note(0.0, 500, 500)
    budget.note(0.0, 600_500, 390_500)
    assert budget.view_metered() == {"month": "2023-11", "spent": 990_000, "limit": 1_000_000, "interface": "wwan0"}
    assert budget.steps(PLAN, MODEL, 4, 10_000) == PLAN.steps
    # After a crash most of it is known still.
    again = opened()
    again.note(0.0, 0, 0)
    again.note(0.0, 1, 0)
    reason, why = again.steps(PLAN, MODEL, 4, 10_000)  # type: ignore[misc]
    assert (reason, why) == (
        BUSY,
        "on the metered link wwan0, where 0.01 of the 1 MB a month that [budget] allows are left",
    )
    # Over another link nothing is counted, and nothing is asked.
    on[0] = "eth0"
    again.note(0.0, 10**9, 10**9)
    assert again.steps(PLAN, MODEL, 4, 10_000) == PLAN.steps
    on[0] = "wwan0"
    assert again.view_metered()["spent"] == 990_001
    # A gateway without a battery for its clock begins in 1970, until the network has said what time it is.
    set_to, clock.now = clock.now, 100.0
    booted = opened()
    booted.note(0.0, 0, 0)
    booted.note(0.0, 100_000, 0)
    clock.now = set_to
    assert booted.view_metered()["spent"] == 990_001
    again = opened()
    assert again.view_metered()["spent"] == 990_001
    clock.now += 30 * DAY
    assert again.steps(PLAN, MODEL, 4, 10_000) == PLAN.steps
    assert again.view_metered()["spent"] == 0


def test_without_an_allowance_a_device_sits_rounds_out_on_a_metered_link(tmp_path: Path) -> None:
    settings = BudgetSettings(metered=MeteredSettings(("*",)))
    budget = Budget(settings, GATEWAY, tmp_path / "energy.json", silent, Clock(), lambda _: "eth0")
    found = budget.steps(PLAN, MODEL, 4, 1)
    assert isinstance(found, tuple)
    assert found[0] == BUSY


# ---- a year


def said() -> Messages:
    return Messages(
        layers=(Dense(64, 32, "relu"), Dense(32, 8)),
        devices=12,
        survivors=10,
        encoding=Encoding("default B=4", 1, 0.1, 4),
        committee=Committee(7, 2, 8),
        epoch_rounds=32,
        round=25,
        device=3,
        chunk=GATEWAY.link.chunk,
        profile=GATEWAY.name,
    )


class Year:
    """A battery gateway's rounds, pings and nights, as its own meter sees them: processor and bytes at the socket."""

    def __init__(self, path: Path, settings: BudgetSettings, training: Training, planned: Cost) -> None:
        path.mkdir(exist_ok=True)
        self.clock = Clock(NOON - DAY / 2)
        self.budget = Budget(settings, GATEWAY, path / "energy.json", silent, self.clock)
        self.traffic, self.training, self.planned = Traffic(said(), member=False), training, planned
        self.plan = replace(read(Frame.from_bytes(said().plan), Plan), steps=training.steps, batch=training.batch)
        self.model = read(Frame.from_bytes(said().documents["model"]), ModelSpec)
        self.processor = self.sent = self.received = self.joules = self.most = self.today = 0.0
        self.steps: list[int] = []
        self.budget.note(0.0, 0, 0)

    def note(self) -> None:
        self.budget.note(self.processor, round(self.sent), round(self.received))
        now = spent(self.budget)
        self.joules += now - (self.today if now >= self.today else 0.0)
        self.today, self.most = now, max(self.most, now)

    def carry(self, count: Count, part: float = 1.0) -> None:
        """Bytes go over the link; those of TLS are what the agent counts."""
        self.clock.now += part * (count.sent_line + count.received_line) / 2500
        self.sent += part * count.sent_tls
        self.received += part * count.received_tls
        self.note()

    def wait(self, until: float) -> None:
        """Nothing but pings by day; at night nothing at all."""
        idle = self.clock.now
        while self.clock.now < until:
            minutes = int(self.clock.now % DAY) // 60
            if sleeps := GATEWAY.schedule.sleeps_on(minutes):
                self.clock.now = idle = awake_at(self.clock.now, sleeps)
            elif self.clock.now >= idle + GATEWAY.link.keepalive:
                self.carry(ping())
                idle = self.clock.now
            else:
                self.clock.now = min(until, self.clock.now + 60)

    def round(self) -> None:
        """Plan, training and upload; later, when all have done so, result and delta."""
        began, members = self.clock.now, said().committee.members
        steps = self.budget.steps(self.plan, self.model, members, round(self.traffic.a_round.sent_tls))
        self.steps.append(steps if isinstance(steps, int) else 0)
        if self.steps[-1]:
            speed, energy = GATEWAY.compute, GATEWAY.energy
            assert speed is not None
            assert energy is not None
            step, rest = round_joules(speed, energy, self.plan, self.model, members)
            compute = (self.steps[-1] * step + rest) / energy.compute.value
            self.processor += compute
            self.clock.now += compute
            self.carry(self.traffic.a_round, 0.6)
            self.wait(began + self.planned.latency + GATEWAY.schedule.spread)
            self.carry(self.traffic.a_round, 0.4)
        self.wait(self.clock.now + self.training.pause)

    def run(self, days: int) -> None:
        end = self.clock.now + days * DAY
        while self.clock.now < end:
            self.round()


def test_in_a_simulated_year_of_a_battery_gateway_planner_and_budget_agree(tmp_path: Path) -> None:
    training = Training(rounds=50, steps=200, batch=64, pause=3600)
    planned = cost(GATEWAY, Traffic(said(), member=False), GATEWAY.link.window, training, rounds=6000)
    year = Year(tmp_path, BudgetSettings(), training, planned)
    year.run(365)
    assert len(year.steps) / 365 == pytest.approx(6000 / planned.days, rel=0.05)
    assert year.joules / 365 == pytest.approx(planned.energy / planned.days * WATT_HOUR, rel=0.05)
    assert set(year.steps) == {training.steps}


def test_with_a_limit_no_day_spends_more_and_what_there_is_is_used(tmp_path: Path) -> None:
    training = Training(rounds=50, steps=20_000, batch=64, pause=3600)
    planned = cost(GATEWAY, Traffic(said(), member=False), GATEWAY.link.window, training, rounds=6000)
    # Whatever is spent, the connection is kept.
    pings = DAY * GATEWAY.schedule.awake_share() / GATEWAY.link.keepalive * 20 * 0.2
    trained: set[int] = set()
    for part in (0.42, 0.5, 0.58):
        allowed = part * planned.energy / planned.days
        settings = BudgetSettings(energy=allowed, shortest=0.1)
        month = Year(tmp_path / str(part), settings, training, planned)
        month.run(30)
        assert 0.9 * allowed * WATT_HOUR <= month.joules / 30
        assert month.most <= allowed * WATT_HOUR + pings
        trained |= set(month.steps)
    assert {0, training.steps} < trained
    assert min(trained - {0}) >= training.steps / 10
