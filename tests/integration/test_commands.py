"""The commands as a person meets them: what is right is shown, what is wrong is one message that says what to do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from fleet_fixture import COORDINATOR, Fleet, Witness, command
from link_tools import eventually

from broker.local import HOST, free_port
from fleet.desk import Desk
from fleet.transport import create_authority, issue_client, write_key_pair
from hushfleet.wire.documents import PARTICIPANT

pytestmark = pytest.mark.integration

FREE = "part-2"
"""The device that is not running: round 1 waits for it with everybody else's uploads."""
Done = "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("commands"), rounds={"collect": 3600}) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR, *(name for name in fleet.devices if name != FREE))
        for index in range(1, 6):
            fleet.wait_for(COORDINATOR, "accepted", device=index)
        yield fleet


@dataclass
class Bench:
    """A device's or the coordinator's files, to be spoilt without harm to the fleet."""

    fleet: Fleet
    directory: Path
    name: str

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        shutil.copytree(self.fleet.bundle(self.name), self.bundle)
        self.documents = self.directory / "documents"
        shutil.copytree(self.fleet.owner / "documents", self.documents)
        self.rows = self.directory / "rows.csv"
        if self.name != COORDINATOR:
            shutil.copy(self.fleet.rows(self.name), self.rows)
        shutil.copy(self.fleet.configuration("profile"), self.directory / "profile.toml")
        text = self.fleet.configuration(self.name).read_text()
        for old, new in (
            (self.fleet.bundle(self.name), self.bundle),
            (self.fleet.state(self.name), self.state),
            (self.fleet.owner / "documents", self.documents),
            (self.fleet.rows(self.name), self.rows),
        ):
            text = text.replace(str(old), str(new))
        self.config.write_text(text)

    @property
    def bundle(self) -> Path:
        return self.directory / "bundle"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def store(self) -> Path:
        return self.state / self.fleet.store_path(self.name).name

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    def edit(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def broker(self, line: str) -> None:
        """Say in the configuration where the broker is."""
        text = self.config.read_text()
        self.config.write_text(
            text.replace("[broker]\n", f"[broker]\n{line}\n") if "[broker]" in text else f"{text}[broker]\n{line}\n"
        )

    def run(self, what: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        kind = "coordinator" if self.name == COORDINATOR else "agent"
        return command(kind, what, self.config, *arguments)


@pytest.fixture
def device(fleet: Fleet, tmp_path: Path) -> Bench:
    return Bench(fleet, tmp_path / "device", FREE)


@pytest.fixture
def host(fleet: Fleet, tmp_path: Path) -> Bench:
    return Bench(fleet, tmp_path / "host", COORDINATOR)


def check_refusal(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    """One message, the exit code, what is wrong and what to do, and nothing that looks like a failure of ours."""
    assert done.returncode == code, done.stderr
    assert done.stderr.count("hushfleet: ") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    message = done.stderr[done.stderr.index("hushfleet: ") :]
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


# As it should be.


def test_a_certificate_that_soon_runs_out_is_told_by_check_and_by_the_running_service(
    fleet: Fleet, device: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = datetime.now(UTC) + timedelta(days=40)
    monkeypatch.setattr("fleet.transport.LIFETIME", timedelta(days=40))
    with Desk.open(fleet.owner) as desk:
        client = issue_client(desk.authority(), str(desk.register().line(FREE).index))
    write_key_pair(device.bundle, "tls", client)
    told = (
        f"{device.bundle / 'tls.pem'} runs out on {soon.date()}; the owner makes a new one with hushfleet fleet renew"
    )
    checked = device.run("check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"certificate {told}" in checked.stdout
    device.broker(f"port = {free_port()}")
    agent = subprocess.Popen(
        [sys.executable, "-m", "hushfleet", "agent", "run", device.config], stderr=subprocess.PIPE, text=True
    )
    assert agent.stderr is not None
    lines: list[dict[str, object]] = []
    while not lines or lines[-1]["event"] != "disconnected":
        lines.append(json.loads(agent.stderr.readline()))
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=60)
    assert [line["remedy"] for line in lines if line["event"] == "certificate"] == [told]


def test_check_and_test_of_a_good_device_end_well_and_nothing_is_sent(fleet: Fleet, device: Bench) -> None:
    with Witness(fleet) as witness:
        checked = device.run("check")
        assert (checked.returncode, checked.stderr) == (0, "")
        assert f"bundle      {FREE}, index 6" in checked.stdout
        assert checked.stdout.splitlines()[-1] == f"ready; next: hushfleet agent test {device.config}"
        tested = device.run("test")
        assert tested.returncode == 0, tested.stderr
        shown = {line[:12].strip(): line[12:] for line in tested.stdout.splitlines()}
        assert shown["rows"] == "30 to train on, 10 kept aside"
        assert shown["plan"] == "round 1"
        assert shown["trainer"].startswith(("numpy: ", "litert: "))
        assert shown["would send"] == "5568 bytes in 22 chunks, masked: noise to everyone else"
        before, after = (float(word) for word in shown["loss"].split() if word[0].isdigit())
        assert after < before
        assert tested.stdout.splitlines()[-1] == "nothing was sent"
        # The witness is told in order: what a test had sent would be here before this.
        device.run("check")
        witness.wait_for(fleet.topics.state(6))
        assert not any(at.device == 6 for kind in ("up", "card", "ready") for at, _ in witness.seen(kind).values())
    assert not device.state.exists(), "a test leaves no memory behind"


def test_a_members_test_during_a_set_up_sends_no_card_that_its_vault_would_not_know(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.broker.start()
        with Witness(fleet) as witness:
            fleet.start(*(name for name in fleet.everyone if name != "both-1"))
            fleet.wait_for(COORDINATOR, "call", epoch=1)
            tested = command("agent", "test", fleet.configuration("both-1"), "--timeout", "3")
            assert tested.returncode == 0, tested.stderr
            # A card of the test's would have let the others finish without this device's vault knowing its secrets.
            assert fleet.events(COORDINATOR, "epoch-ready") == []
            fleet.start("both-1")
            fleet.wait_for("both-1", "ready", epoch=1, deadline=60)
            assert fleet.wait_for(COORDINATOR, "epoch-ready", deadline=60)["epoch"] == 1
            cards = [payloads for at, payloads in witness.seen("card").values() if at.device == 1]
            assert [len(payloads) for payloads in cards] == [1]
        assert fleet.events("both-1", "restored-vault") == []


def test_status_of_running_services(fleet: Fleet, device: Bench, host: Bench) -> None:
    eventually(partial(has_seen_a_round, fleet.state("part-1") / "status.json"))
    agent = command("agent", "status", fleet.configuration("part-1"))
    assert agent.returncode == 0
    assert "part-1 (running)" in agent.stdout
    assert "broker      connected" in agent.stdout
    whole = json.loads(command("agent", "status", fleet.configuration("part-1"), "--json").stdout)
    assert (whole["running"], whole["documents"], whole["round"]) == (True, "ready", 1)
    coordinator = command("coordinator", "status", fleet.configuration(COORDINATOR))
    assert coordinator.returncode == 0
    assert "round       1, round 1 open with 5 uploads; model version 0" in coordinator.stdout
    for bench in (device, host):
        check_refusal(bench.run("status"), 2, "there is no", "status.json", "has never run")


def test_an_agent_that_waits_for_its_first_plan_has_not_loaded_numpy(tmp_path: Path, fleet: Fleet) -> None:
    def has_loaded(process: int) -> bool:
        return "numpy" in Path(f"/proc/{process}/maps").read_text()

    with Fleet(tmp_path, both=4, participants=1) as waiting:
        waiting.broker.start()
        waiting.start(COORDINATOR, "part-1")
        waiting.wait_for("part-1", "state", state="ready")
        assert not has_loaded(waiting.processes["part-1"].pid)
    eventually(lambda: has_loaded(fleet.processes["part-1"].pid))


def test_check_of_running_services_leaves_their_connections_alone(fleet: Fleet) -> None:
    mark = fleet.mark()
    for kind, name in (("agent", "part-1"), ("coordinator", COORDINATOR)):
        checked = command(kind, "check", fleet.configuration(name))
        assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "as it should be")
    check_refusal(command("agent", "test", fleet.configuration("part-1")), 2, "is running", "stop it first")
    for name in ("part-1", COORDINATOR):
        assert fleet.events(name, "disconnected", mark) == fleet.events(name, "connected", mark) == []


def test_check_of_a_coordinator_that_is_not_running(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.broker.start()
        checked = command("coordinator", "check", fleet.configuration(COORDINATOR))
        assert (checked.returncode, checked.stderr) == (0, "")
        assert "documents   ready" in checked.stdout
        assert "devices     6, committee candidates 4" in checked.stdout
        # Nobody has published the documents yet, and there is no plan.
        check_refusal(command("agent", "test", fleet.configuration(FREE), "--timeout", "3"), 1, "start the coordinator")


# The configuration and the bundle.


@pytest.mark.parametrize("kind", ["agent", "coordinator"])
@pytest.mark.parametrize("what", ["run", "check", "status"])
def test_a_configuration_that_is_not_there(kind: str, what: str, tmp_path: Path) -> None:
    missing = tmp_path / "nothing.toml"
    check_refusal(command(kind, what, missing), 2, f"there is no file {missing}", "create it, or name the right one")


Spoil = Callable[[Bench], object]

CONFIGURATIONS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "unknown key": (lambda bench: bench.edit("bundle =", "bundel ="), ("bundel: unknown key; did you mean 'bundle'?",)),
    "not TOML": (lambda bench: bench.edit("bundle =", "bundle"), ("is not valid TOML", "config.toml")),
    "wrong type": (lambda bench: bench.edit('log = "json"', "log = 7"), ("log: expected one of 'text', 'json'",)),
    "no bundle": (lambda bench: shutil.rmtree(bench.bundle), ("there is no bundle at", "copy the bundle again")),
    "open key": (lambda bench: (bench.bundle / "identity.key").chmod(0o644), ("mode 0644", "run: chmod 600")),
    "open TLS key": (lambda bench: (bench.bundle / "tls.key").chmod(0o640), ("mode 0640", "run: chmod 600")),
    "cut key": (lambda bench: (bench.bundle / "identity.key").write_text("abc"), ("identity.key is damaged", "copy")),
    "no certificate": (lambda bench: (bench.bundle / "certificate").unlink(), ("certificate is missing", "copy")),
    "bad authority": (lambda bench: (bench.bundle / "ca.pem").write_text("?"), ("holds no certificate", "copy")),
}


@pytest.mark.parametrize("name", [FREE, COORDINATOR])
@pytest.mark.parametrize("case", CONFIGURATIONS)
@pytest.mark.parametrize("what", ["run", "check"])
def test_a_spoilt_configuration_or_bundle(fleet: Fleet, tmp_path: Path, name: str, case: str, what: str) -> None:
    spoil, words = CONFIGURATIONS[case]
    bench = Bench(fleet, tmp_path, name)
    spoil(bench)
    check_refusal(bench.run(what), 2, *words)


@pytest.mark.parametrize("what", ["run", "check"])
def test_the_bundle_of_another_role(device: Bench, fleet: Fleet, what: str, tmp_path: Path) -> None:
    device.edit(str(device.bundle), str(fleet.bundle(COORDINATOR)))
    check_refusal(device.run(what), 2, "is the coordinator's bundle", "name this device's own")
    text = fleet.configuration(COORDINATOR).read_text().replace(str(fleet.bundle(COORDINATOR)), str(fleet.bundle(FREE)))
    swapped = tmp_path / "swapped.toml"
    swapped.write_text(text)
    check_refusal(command("coordinator", what, swapped), 2, f"is the bundle of device {FREE}", "devices/coordinator")


# The way to the broker.


def test_check_names_a_budget_that_cannot_be_kept_and_a_ups_that_does_not_answer(device: Bench) -> None:
    device.config.write_text(device.config.read_text() + "\n[budget]\nenergy = 1.0\n")
    check_refusal(
        device.run("check"), 2, "energy is set under [budget], but the profile small lacks", "docs/planning.md"
    )
    nut = f"box@127.0.0.1:{free_port()}"
    device.config.write_text(device.config.read_text().replace("energy = 1.0", f'[power]\nnut = "{nut}"'))
    check_refusal(device.run("check"), 2, f"the UPS {nut} does not answer", "is upsd running there?")


def test_a_broker_that_cannot_be_reached_is_named_with_the_remedy(device: Bench, host: Bench) -> None:
    port = free_port()
    device.broker(f"port = {port}")
    check_refusal(device.run("check"), 2, f"nothing listens on {HOST}:{port}", "correct the port")
    check_refusal(device.run("test"), 1, f"nothing listens on {HOST}:{port}", "correct the port")
    host.broker(f"port = {port}")
    check_refusal(host.run("check"), 2, f"nothing listens on {HOST}:{port}", "correct the port")


def test_a_name_that_nobody_knows(device: Bench) -> None:
    device.broker('host = "broker.invalid"')
    check_refusal(device.run("check"), 2, "the broker's name broker.invalid cannot be resolved", "correct the broker's")


def test_a_broker_of_another_fleet(device: Bench) -> None:
    (device.bundle / "ca.pem").write_bytes(create_authority("another").certificate_pem)
    check_refusal(device.run("check"), 2, "is not signed by the authority in", "broker of another fleet")
    check_refusal(device.run("test"), 1, "is not signed by the authority in", "broker of another fleet")


def test_a_service_that_cannot_reach_its_broker_says_so_once_and_still_ends_cleanly(fleet: Fleet) -> None:
    fleet.configure_agent(FREE, port=free_port())
    mark = fleet.mark()
    fleet.start(FREE)
    told = fleet.wait_for(FREE, "disconnected", mark)
    assert "nothing listens on" in told["reason"]
    assert "start the broker" in told["remedy"]
    assert fleet.stop(FREE) == [0]
    assert json.loads(fleet.lines(FREE, mark)[-1])["event"] == "stopped"
    stopped = command("agent", "status", fleet.configuration(FREE))
    assert "not running" in stopped.stdout
    assert "nothing listens on" in stopped.stdout
    fleet.configure_agent(FREE)


# The clock.


def behind(*arguments: str | Path) -> list[str]:
    """The command line of a command whose software was made long after this machine's time."""
    start = (
        "import sys, hushfleet; hushfleet.BUILD_TIME = 2**34; from hushfleet.cli import main; sys.argv[0] = 'h'; main()"
    )
    return [sys.executable, "-c", start, *map(str, arguments)]


def test_a_clock_before_the_softwares_own_time(device: Bench, fleet: Fleet, tmp_path: Path) -> None:
    for kind, config in (("agent", device.config), ("coordinator", fleet.configuration(COORDINATOR))):
        done = subprocess.run(behind(kind, "check", config), capture_output=True, text=True, timeout=60, check=False)
        check_refusal(done, 2, "clock shows", "set it")
    with subprocess.Popen(behind("agent", "run", device.config), stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        events = (json.loads(line) for line in running.stderr)
        assert "set it (NTP)" in next(told for told in events if told["event"] == "clock")["remedy"]
        running.send_signal(signal.SIGTERM)
        assert [told["event"] for told in events][-1] == "stopped"
    assert running.returncode == 0


# The device's rows.

ROWS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "missing": (lambda bench: bench.rows.unlink(), ("there is no file", "rows.csv", "create it")),
    "a directory": (
        lambda bench: bench.edit(str(bench.rows), str(bench.directory)),
        ("is not a file", "name the CSV file"),
    ),
    "empty": (lambda bench: bench.rows.write_text(""), ("does not begin with a header",)),
    "not text": (lambda bench: bench.rows.write_bytes(b"\xff\xfe\x00" * 9), ("is not UTF-8 text", "save it as CSV")),
    "no label": (
        lambda bench: replace(bench.rows, "label", "lable"),
        ("has no column 'label'", "did you mean 'lable'?"),
    ),
    "header only": (lambda bench: bench.rows.write_text(bench.rows.read_text().split("\n")[0]), ("but no rows",)),
    "not a number": (lambda bench: replace(bench.rows, "0.", "zero", 1), ("line 2, column 'x", "is not a number")),
    "not finite": (lambda bench: replace(bench.rows, "1.0000", "nan", 1), ("line 2, column 'x", "nan or infinite")),
    "too few columns": (
        lambda bench: bench.rows.write_text("a,label\n1,0\n"),
        ("gives 1 features, the model takes 16",),
    ),
    "cut": (
        lambda bench: bench.rows.write_text(bench.rows.read_text()[:-20]),
        ("line 41 has", "line that was cut off"),
    ),
}


def replace(path: Path, old: str, new: str, count: int = -1) -> None:
    path.write_text(path.read_text().replace(old, new, count))


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_cannot_be_used_are_named_by_their_place(device: Bench, case: str) -> None:
    spoil, words = ROWS[case]
    spoil(device)
    check_refusal(device.run("test"), 2, *words)


@pytest.mark.parametrize("case", ["missing", "a directory", "empty", "not text", "no label"])
def test_check_finds_rows_that_are_no_rows(device: Bench, case: str) -> None:
    spoil, words = ROWS[case]
    spoil(device)
    check_refusal(device.run("check"), 2, "not ready", *words)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_rows_that_this_user_may_not_read(device: Bench) -> None:
    device.rows.chmod(0)
    for what in ("check", "test"):
        check_refusal(device.run(what), 2, "may not be read by this user", "read permission")


def test_a_running_agent_with_broken_rows_declines_and_says_why(fleet: Fleet) -> None:
    whole = fleet.rows(FREE).read_text()
    replace(fleet.rows(FREE), "0.", "zero", 1)
    mark = fleet.mark()
    fleet.start(FREE)
    try:
        assert "line 2, column 'x" in fleet.wait_for(FREE, "declined", mark)["why"]
        # The coordinator hears that it declined, and no more; the others are enough then.
        declined = fleet.wait_for(COORDINATOR, "declined", mark, device=6)
        assert "column" not in json.dumps(declined)
        assert fleet.wait_for(COORDINATOR, "round", mark)["uploads"] == 5
    finally:
        assert fleet.stop(FREE) == [0]
        fleet.rows(FREE).write_text(whole)


# What services keep.

STORES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "damaged": (lambda bench: spoil_middle(bench.store), ("is damaged",)),
    "cut": (lambda bench: bench.store.write_bytes(bench.store.read_bytes()[:4096]), ("is damaged",)),
    "another file": (lambda bench: bench.store.write_bytes(b"not a database" * 400), ("is damaged",)),
    "gone": (lambda bench: bench.store.unlink(), ("the file is missing",)),
    "open to others": (lambda bench: bench.store.chmod(0o644), ("other users may use this file", "run: chmod 600")),
    "open directory": (lambda bench: bench.state.chmod(0o755), ("other users may enter", "run: chmod 700")),
}
REMEDIES = {FREE: "enrol this device anew", COORDINATOR: "start with an empty ledger"}


def spoil_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:4000] = os.urandom(3900)
    path.write_bytes(content)


@pytest.mark.parametrize("name", [FREE, COORDINATOR])
@pytest.mark.parametrize("case", STORES)
def test_a_vault_or_ledger_that_cannot_be_trusted(fleet: Fleet, tmp_path: Path, name: str, case: str) -> None:
    bench = Bench(fleet, tmp_path, name)
    source = "part-1" if name == FREE else COORDINATOR
    fleet.stop(source)
    shutil.copytree(fleet.state(source), bench.state)
    fleet.start(source)
    if name == FREE:
        assert bench.store.exists()
    spoil, words = STORES[case]
    spoil(bench)
    remedy = () if case.startswith("open") else (REMEDIES[name],)
    check_refusal(bench.run("run"), 1, str(bench.state), *words, *remedy)


def test_a_second_process_on_the_same_vault_or_ledger_is_told_so(fleet: Fleet) -> None:
    services = (
        ("agent", "run", "part-1"),
        ("coordinator", "run", COORDINATOR),
        ("coordinator", "roll-back", COORDINATOR),
    )
    for kind, what, name in services:
        pid = fleet.processes[name].pid
        done = command(kind, what, fleet.configuration(name), *(["1"] if what == "roll-back" else []))
        check_refusal(done, 1, str(fleet.store_path(name)), f"in use by process {pid}", "stop that one first")


# The owners' documents.


@pytest.mark.parametrize("document", ["manifest", "policy", "roster", "committee", "model", "root.1"])
def test_documents_that_are_missing_or_damaged(host: Bench, document: str) -> None:
    path = host.documents / document
    content = path.read_bytes()
    path.unlink()
    for what in ("check", "run"):
        check_refusal(host.run(what), 2, str(host.documents), "hushfleet fleet")
    path.write_bytes(content[:-1])
    if document != "root.1":
        host.broker(f"port = {free_port()}")
        check_refusal(host.run("check"), 2, f"{document}:", "sign again with hushfleet fleet sign")


def test_documents_of_another_fleet(host: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.rmtree(host.documents)
    shutil.copytree(Fleet(other).owner / "documents", host.documents)
    check_refusal(host.run("check"), 2, "root 1 is not the one", "copy all of the owners' documents again")


def test_documents_that_have_run_out(tmp_path: Path) -> None:
    with Fleet(tmp_path, signed=time.time() - 40 * 86_400) as fleet:
        fleet.broker.start()
        checked = command("coordinator", "check", fleet.configuration(COORDINATOR))
        check_refusal(checked, 2, "signatures have run out", "hushfleet fleet sign")
        fleet.start(COORDINATOR, FREE)
        for name in (COORDINATOR, FREE):
            told = fleet.wait_for(name, "state", state="stale-fleet")
            assert "hushfleet fleet sign" in told["remedy"]
        check_refusal(command("agent", "test", fleet.configuration("part-1"), "--timeout", "5"), 1, "sign again")
        # Signed again, and the coordinator told: the fleet goes on.
        with Desk.open(fleet.owner) as desk:
            desk.sign(draw=os.urandom, now=int(time.time()))
        fleet.processes[COORDINATOR].signal(signal.SIGHUP)
        fleet.wait_for(COORDINATOR, "state", state="ready")
        fleet.wait_for(FREE, "state", state="ready")
        assert fleet.stop(COORDINATOR, FREE) == [0, 0]


# Ends and beginnings.


def has_seen_a_round(status: Path) -> bool:
    return status.exists() and json.loads(status.read_text())["round"] > 0


def test_sigterm_ends_a_service_cleanly_even_while_it_trains(tmp_path: Path) -> None:
    with Fleet(tmp_path, rounds={"steps": 65_535, "batch": 64}) as fleet:
        fleet.broker.start()
        fleet.start(*fleet.everyone)
        fleet.wait_for(COORDINATOR, "plan")
        for name in ("part-1", "both-1"):
            # It has verified the plan: the next thing is to train.
            eventually(partial(has_seen_a_round, fleet.state(name) / "status.json"))
        for names in (("part-1", "both-1"), (COORDINATOR,)):
            assert fleet.stop(*names) == [0] * len(names)
            for name in names:
                assert json.loads(fleet.lines(name)[-1])["event"] == "stopped"


def test_a_device_joins_a_running_fleet_and_is_taken_into_the_next_rounds(tmp_path: Path) -> None:
    with Fleet(tmp_path, rounds={"enough": 0.8}) as fleet:
        fleet.broker.start()
        fleet.start(*fleet.everyone)
        fleet.wait_for(COORDINATOR, "round", uploads=6)
        with Desk.open(fleet.owner) as desk:
            profile = str(fleet.configuration("profile"))
            desk.add(["part-3"], PARTICIPANT, profile, draw=os.urandom, now=int(time.time()))
            desk.sign(draw=os.urandom, now=int(time.time()))
        fleet.rows("part-3").write_text(fleet.rows("part-1").read_text())
        fleet.configure_agent("part-3")
        fleet.processes[COORDINATOR].signal(signal.SIGHUP)
        fleet.start("part-3")
        fleet.wait_for("part-3", "accepted")
        fleet.wait_for(COORDINATOR, "round", uploads=7, outcome="applied")
