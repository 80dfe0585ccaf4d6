"""`hushfleet agent test`: connect, learn what the fleet asks, train on the device's own rows, and send nothing.

The device's real roles run against records in memory. What they would publish is dropped; what arrives is not
acknowledged, so that nothing is taken away from the agent itself.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nacl.utils import random

from edge_agent.agent import (
    link_settings,
    load_bundle,
    make_device,
    model_of,
    open_readings,
    profile_of,
    source_of,
)
from edge_agent.device import Device
from edge_agent.settings import AgentSettings
from edge_agent.work import Train
from edge_agent.work_bench import WorkBench
from hushfleet.bundle import Bundle
from hushfleet.errors import LinkError
from hushfleet.journal import Journal
from hushfleet.mqtt.events import AckToken, Connected, Disconnected, IdentityInUse, LinkEvent, Message
from hushfleet.mqtt.link import Link
from hushfleet.runner import Runner
from hushfleet.scratch import ScratchStore
from hushfleet.trust import READY
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.schema import Schema


@dataclass(slots=True)
class Rehearsal:
    """What came of it.

    Attributes:
        documents: state of the fleet's documents.
        round: the plan that was trained for; 0 if none was open and the numbers are this program's own.
        rows, kept_aside: rows that the source gave to train on, and to score with.
        parameters: of the model.
        loss_before, loss_after: mean loss over the rows to train on, of the base model and of the trained one.
        norm: L2 norm of the update.
        bytes, chunks: of the upload that would have been sent.
        trainer: what trained, and why just that.
    """

    documents: str = "no connection"
    round: int = 0
    rows: int = 0
    kept_aside: int = 0
    parameters: int = 0
    loss_before: float = 0.0
    loss_after: float = 0.0
    norm: float = 0.0
    bytes: int = 0
    chunks: int = 0
    trainer: str = ""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Training numbers for a fleet that has no plan open."""

    steps: int = 20
    batch: int = 32
    rate: float = 0.05
    momentum: float = 0.9
    proximal: float = 0.0
    round: int = 0


@dataclass(frozen=True, slots=True)
class _Ear:
    """A link that only listens."""

    link: Link

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Drop a message."""

    def subscribe(self, topic: str, again: bool = True) -> None:
        """Listen."""
        self.link.subscribe(topic, again)

    def unsubscribe(self, topic: str) -> None:
        """Stop listening."""
        self.link.unsubscribe(topic)

    def ack(self, token: AckToken) -> None:
        """Leave the message to the agent."""


def rehearse(
    settings: AgentSettings, journal: Journal, timeout: float, before_training: Callable[[Schema | None], None]
) -> Rehearsal:
    """Do everything a round asks of this device, but send nothing.

    Args:
        settings: the agent's.
        journal: where the steps are told.
        timeout: seconds to wait for connection, documents and an open plan.
        before_training: is called with the schema, if there is one, once the documents are here.

    Raises:
        LinkError: no connection; with the remedy.
        ConfigurationError: the rows cannot be read or do not fit the model.
        RefusedError: training diverged.
    """
    bundle, store = load_bundle(settings), ScratchStore()
    work: list[Train] = []
    trouble: list[str] = []

    def on_link(event: LinkEvent) -> None:
        match event:
            case Connected():
                journal.write("connected", broker=f"{link.settings.host}:{link.settings.port}")
                runner.post(lambda device, now: device.on_connected(event.session_present, now))
            case Disconnected() | IdentityInUse():
                trouble.append(f"{event.reason}; {event.remedy}")
                runner.stop()
            case Message():
                runner.post(lambda device, now: device.on_message(event.topic, event.payload, now))

    def perform(action: Any) -> None:
        if isinstance(action, Train):
            work.append(action)
            runner.stop()

    link = Link(link_settings(settings, bundle), on_link)
    runner = Runner(lambda: make_device(settings, bundle, store, random(32)), store, _Ear(link), journal, perform)
    limit = threading.Timer(timeout, runner.stop)
    limit.start()
    link.start()
    try:
        runner.run(lambda device, now: device.start(bundle.root, bundle.certificate, now))
    finally:
        limit.cancel()
        link.stop()
    if trouble:
        raise LinkError(trouble[-1])
    device: Device = runner.role
    found = Rehearsal(documents=device.context.trust.state(device.context.trust.time(0)))
    model = device.context.trust.model
    if found.documents == READY and model is not None and (settings.source or settings.sensors):
        before_training(model_of(device)[1])
        _train(settings, bundle, device, model, work[0] if work else None, found)
    return found


def _train(
    settings: AgentSettings, bundle: Bundle, device: Device, model: ModelSpec, work: Train | None, found: Rehearsal
) -> None:
    import numpy as np

    from hushfleet.codec import PLAIN_BITS, lanes
    from hushfleet.secagg.residues import vector_length

    def chosen(name: str, why: str) -> None:
        found.trainer = f"{name}: {why}"

    bench = WorkBench(source_of(settings, open_readings(settings)), settings.trainer, chosen, settings.balanced)
    data = bench.rows(model, model_of(device)[1])
    trainer = bench.trainer(model, data.head)
    numbers = work.plan if work else _Numbers()
    spec_hash = device.context.trust.hash_of("model") or b""
    flat = work.flat if work else device.participant.head.whole(model, spec_hash, device.live.flat(model))
    x, y = data.training.x, data.training.y
    result = trainer.train(flat, x, y, numbers, random(32))
    found.round, found.rows, found.kept_aside = numbers.round, len(data.training), len(data.evaluation)
    found.parameters = model.parameters()
    found.loss_before = trainer.evaluate(flat, x, y).loss_sum / len(x)
    found.loss_after = trainer.evaluate(flat + result.delta, x, y).loss_sum / len(x)
    found.norm = float(np.linalg.norm(result.delta[: found.parameters]))
    found.bytes = vector_length(found.parameters, PLAIN_BITS, lanes(0))
    found.chunks = -(-found.bytes // profile_of(settings, bundle).link.chunk)
