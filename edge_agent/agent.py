"""The agent as a service: roles, vault, rows and link wired together, one process (docs/architecture.md)."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nacl.utils import random

from edge_agent.budget import Budget
from edge_agent.byte_ledger import ByteLedger
from edge_agent.collector import Collector
from edge_agent.context import Context
from edge_agent.decisions import Decisions
from edge_agent.device import Device
from edge_agent.limits import Limits
from edge_agent.personal import PARTS
from edge_agent.power import Power, Unfit
from edge_agent.scoring import Scoring
from edge_agent.settings import AgentSettings
from edge_agent.sources.csv import CsvRows
from edge_agent.sources.rows import Source
from edge_agent.sources.sensors import Sensors, readings_path
from edge_agent.sources.store import COMMIT_EVERY, ReadingStore
from edge_agent.vault import Vault
from edge_agent.work import Describe, Ended, Judged, Score, Train
from edge_agent.work_bench import WorkBench
from firmware_profiles import catalog
from hushfleet import BUILD_TIME, __version__
from hushfleet.actions import Store
from hushfleet.bundle import Bundle
from hushfleet.errors import ConfigurationError
from hushfleet.journal import Journal
from hushfleet.mqtt.events import Absence, LinkSettings, Message
from hushfleet.mqtt.topics import Topics
from hushfleet.mqtt.traffic import Lane
from hushfleet.runner import Event
from hushfleet.service import Service
from hushfleet.trust import Trust
from hushfleet.wire.documents import MEMBER, PARTICIPANT, Cert, Certificate, ModelSpec
from hushfleet.wire.framing import Frame, Identity
from hushfleet.wire.round import Plan
from hushfleet.wire.schema import Schema


def load_bundle(settings: AgentSettings) -> Bundle:
    """This device's bundle; ConfigurationError if it is the coordinator's, whose connection it would take over."""
    bundle = Bundle.load(settings.bundle)
    if bundle.seal_secret is not None:
        raise ConfigurationError(
            f"{settings.bundle} is the coordinator's bundle; name this device's own, one of those that hushfleet fleet "
            "add made"
        )
    return bundle


def certificate_of(bundle: Bundle) -> Cert:
    """What the owner certified when the bundle was made."""
    return Certificate.from_body(Frame.from_bytes(bundle.certificate).body).cert


def profile_of(settings: AgentSettings, bundle: Bundle) -> catalog.FirmwareProfile:
    """The firmware profile of the settings, or else of the certificate."""
    if settings.profile is None:
        return catalog.load(certificate_of(bundle).profile)
    # A bare name was read as a path beside the configuration; only a TOML file is one.
    return catalog.load(str(settings.profile) if settings.profile.suffix == ".toml" else settings.profile.name)


def link_of(settings: AgentSettings, bundle: Bundle, store: Store | None) -> catalog.Link:
    """The link of this device's profile: as the owners sealed it, once that is verified here, else as it is known here.

    Args:
        store: the device's records; None where they cannot be read.
    """
    profile = profile_of(settings, bundle)
    sealed = make_trust(bundle, store).profiles if store is not None else None
    firmware = sealed.named(profile.name) if sealed else None
    if firmware is None:
        return profile.link
    return replace(
        profile.link,
        chunk=firmware.chunk,
        window=firmware.window,
        keepalive=firmware.keepalive,
        daily_bytes=firmware.daily,
    )


def make_trust(bundle: Bundle, store: Store) -> Trust:
    """What this device has verified of its fleet's documents."""
    roles = certificate_of(bundle).roles
    own = [name for role, name in ((MEMBER, "roster"), (PARTICIPANT, "schema")) if roles & role]
    needed = ("committee", "policy", "model", "profile", *own)
    return Trust(bundle.fleet, bundle.root_hash, needed, store, BUILD_TIME)


def link_settings(settings: AgentSettings, bundle: Bundle, store: Store | None = None) -> LinkSettings:
    """How this agent connects; `store` as for `link_of`."""
    link = link_of(settings, bundle, store)
    return LinkSettings(
        host=settings.broker.host or bundle.broker_host,
        port=settings.broker.port or bundle.broker_port,
        ca=bundle.authority,
        certificate=bundle.tls_certificate,
        key=bundle.tls_key,
        client_id=str(bundle.index),
        keepalive=link.keepalive,
        window=link.window,
        will_topic=Topics(bundle.fleet).state(bundle.index),
        will_payload=b'{"state": "offline"}',
    )


def make_device(
    settings: AgentSettings,
    bundle: Bundle,
    store: Store,
    vault_secret: bytes,
    unfit: Callable[[int], Unfit | None] = lambda _: None,
    steps: Callable[[Plan, ModelSpec, int, int], int | Unfit] = lambda plan, *_: plan.steps,
    spread: int = 0,
) -> Device:
    """The device's roles, from its records; `unfit`, `steps` and `spread` as in `Context`."""
    link = link_of(settings, bundle, store)
    context = Context(
        fleet=bundle.fleet,
        index=bundle.index,
        identity=Identity(bundle.index, bundle.identity_seed),
        vault_secret=vault_secret,
        trust=make_trust(bundle, store),
        topics=Topics(bundle.fleet),
        store=store,
        draw=random,
        chunk=link.chunk,
        unfit=unfit,
        steps=steps,
        spread=spread,
        reads_sums=settings.decisions is not None,
    )
    return Device(context, link.window)


class Agent:
    """One agent, from its settings to its end."""

    def __init__(self, settings: AgentSettings, journal: Journal) -> None:
        self._settings = settings
        self._bundle = load_bundle(settings)
        self._vault = Vault(settings.vault, random)
        secret = self._vault.get("vault/secret")
        assert secret is not None
        self._readings = open_readings(settings)
        self._bench = WorkBench(
            source_of(settings, self._readings),
            settings.trainer,
            lambda name, why: journal.write("trainer", name=name, why=why),
            settings.balanced,
        )
        self._collector: Collector | None = None
        self._decisions: Decisions | None = None
        self._fleet: tuple[Schema, dict[str, object]] | None = None
        self._described, self._mattered, self._sensors_were = 0.0, object(), dict[str, object]()
        self._counted = (0, 0)
        profile = profile_of(settings, self._bundle)
        link, schedule = link_of(settings, self._bundle, self._vault), profile.schedule
        self._bytes = ByteLedger(
            settings.vault.with_name("bytes.json"),
            link.daily_bytes,
            lambda why: journal.write("bytes-not-kept", why=why),
        )
        limits, power = Limits(self._bytes, link, schedule), Power(settings.power)
        budget = Budget(
            settings.budget,
            profile,
            settings.vault.with_name("energy.json"),
            lambda why: journal.write("energy-not-kept", why=why),
        )

        def watch(sent: Lane, received: Lane, connected: bool) -> Absence | None:
            budget.note(time.process_time(), sent.line, received.line)
            return limits.watch(sent, received, connected)

        personalise = settings.decisions is not None and settings.decisions.personalise
        self._scoring = Scoring(
            self._bench,
            journal,
            lambda plan, model: personalise and not power.unfit() and budget.pays_for_tuning(plan, model, PARTS),
            random,
        )
        self._service = Service(
            lambda: make_device(
                settings,
                self._bundle,
                self._vault,
                secret,
                lambda size: power.unfit() or limits.unfit(size),
                budget.steps,
                schedule.spread,
            ),
            self._vault,
            link_settings(settings, self._bundle, self._vault),
            journal,
            self._perform,
            _arrival,
            status_path(settings),
            self._describe,
            details=lambda: {
                "bytes": self._bytes.view(time.time()),
                "energy": budget.view() or None,
                "metered": budget.view_metered() or None,
            },
            watch=watch,
        )

    def run(self) -> None:
        """Run until SIGTERM or SIGINT; errors as `Service.run`."""
        bundle, profile = self._bundle, profile_of(self._settings, self._bundle)
        self._service.journal.write("start", device=bundle.name, index=bundle.index, version=__version__)
        online = {"state": "online", "version": __version__, "profile": profile.name}
        self._open_sensors()
        try:
            self._service.run(
                lambda device, now: device.start(bundle.root, bundle.certificate, now), json.dumps(online).encode()
            )
        finally:
            if self._collector:
                self._collector.close()
            if self._decisions:
                self._decisions.close()
            self._bytes.close()
            self._vault.close()

    def _open_sensors(self) -> None:
        settings, journal, bundle = self._settings, self._service.journal, self._bundle
        if settings.sensors is None or self._readings is None:
            return
        if settings.decisions:
            unique = f"hushfleet_{bundle.fleet.hex()[:16]}_{bundle.index}"
            sensors = Sensors(settings.sensors, self._readings)
            self._decisions = Decisions(settings.decisions, sensors, bundle.name, unique, journal)
            self._scoring.decisions = self._decisions
        also = [self._decisions.step] if self._decisions else []
        self._collector = Collector(settings.feeds, settings.sensors, self._readings, journal, *also)

    def _describe(self, device: Device) -> dict[str, object]:
        schema = device.context.trust.schema
        return {
            "device": self._bundle.name,
            "index": self._bundle.index,
            "documents": device.context.trust.state(time.time()),
            "round": device.seen.round,
            "model": device.live.version,
            **self._scoring.view(),
            "statistics": device.participant.statistics.view(),
            "sits_out": device.sits_out(time.time()),
            **self._describe_sensors(time.time()),
            "fleet": self._fleet[1] if self._fleet and self._fleet[0] == schema else None,
            "schema": schema.to_body().hex() if schema else None,
        }

    def _describe_sensors(self, now: float) -> dict[str, object]:
        """Counts as of the last minute: they move all the time, and would have the status written all the time."""
        if self._collector is None:
            return {"sensors": None, "decisions": None}
        decisions = self._decisions.view() if self._decisions else None
        matters = (dict(self._collector.trouble), self._collector.heard(), decisions and decisions | {"told": None})
        if not 0 <= now - self._described < COMMIT_EVERY or matters != self._mattered:
            self._described, self._mattered = now, matters
            self._sensors_were = {"sensors": self._collector.view(), "decisions": decisions}
        return self._sensors_were

    def _perform(self, action: Any) -> None:
        """Training and scoring in the background; the end of training is an event."""
        match action:
            case Ended():
                self._tell(action)
            case Judged() if self._decisions:
                self._decisions.judged(action.schema, action.version, action.sums.judged)
                self._fleet = action.schema, {"devices": action.devices, "channels": action.sums.histograms()}
            case Train() | Describe():
                self._work(action, action.plan.model)
            case Score():
                self._work(action, action.spec)

    def _work(self, action: Train | Describe | Score, spec: bytes) -> None:
        runner = self._service.runner
        trust = runner.role.context.trust
        if trust.model is None or trust.hash_of("model") != spec:
            # A later event of the same commit brought documents with another model: this one's work is over.
            return
        model, schema = model_of(runner.role)
        match action:
            case Train(plan_hash=plan_hash):
                self._bench.train(
                    action,
                    model,
                    schema,
                    lambda delta, report: runner.post(
                        lambda device, now: device.on_trained(plan_hash, delta, report, now)
                    ),
                    lambda why: runner.post(lambda device, _: device.on_training_failed(plan_hash, why)),
                )
            case Describe(plan_hash=plan_hash) if schema:
                self._bench.describe(
                    action,
                    model,
                    schema,
                    lambda numbers: runner.post(lambda device, now: device.on_described(plan_hash, numbers, now)),
                    lambda why: runner.post(lambda device, _: device.on_training_failed(plan_hash, why)),
                )
            case Score():
                self._scoring.start(action, model, schema)

    def _tell(self, ended: Ended) -> None:
        """The device's one line for a round, with the bytes at its socket since the line before."""
        link, (sent, received) = self._service.link, self._counted
        self._counted = (link.bytes_sent, link.bytes_received)
        self._bytes.end_round(ended.round)
        self._service.journal.write(
            "round",
            round=ended.round,
            outcome=ended.outcome,
            included=ended.included,
            bytes_sent=self._counted[0] - sent,
            bytes_received=self._counted[1] - received,
        )


def open_readings(settings: AgentSettings) -> ReadingStore | None:
    """The sensors' readings beside the vault; None if the settings name no sensors."""
    return ReadingStore(readings_path(settings.vault), settings.sensors.keep) if settings.sensors else None


def source_of(settings: AgentSettings, readings: ReadingStore | None) -> Source | None:
    """Where this device's rows come from."""
    if settings.sensors and readings:
        return Sensors(settings.sensors, readings)
    return CsvRows(settings.source, settings.head) if settings.source else None


def model_of(device: Device) -> tuple[ModelSpec, Schema | None]:
    """The model spec in force, which must be here, and the schema that is signed for just that one."""
    trust = device.context.trust
    assert trust.model is not None
    signed = trust.schema if trust.schema and trust.schema.model == trust.hash_of("model") else None
    return trust.model, signed


def _arrival(message: Message) -> Event:
    return lambda device, now: device.on_message(message.topic, message.payload, now)


def status_path(settings: AgentSettings) -> Path:
    """Where a running agent says how it is, beside its vault: the vault itself is its alone."""
    return settings.vault.with_name("status.json")
