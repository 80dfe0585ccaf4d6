"""Reads off a run's whole traffic whether anything happened that must never happen, however badly the machines fared.

Device i contributes e_i, at a height that tells the round: a wrong, doubled, lost or invented upload shows in the sum.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from world import World, height

from edge_agent.device import Device
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.server import model_hash
from hushfleet.mqtt.topics import Parsed, Topics
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import ACCEPTED, APPLIED, Header, Plan, Receipt, Result

GRACE = 30.0
"""Seconds by which a round may end after its plan's last moment: downtimes and ticks."""
ONCE = ("card", "list", "key", "ready", "share", "transcript", "plan", "result", "model")
"""Retained kinds that may leave in one form only; each is signed, so a second form would be a second word."""


class Witness:
    """What one run's traffic says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topics = Topics(world.keys.fleet)
        self.plans = {plan.round: plan for plan in map(self._plan, self._payloads("plan"))}
        self.results = {result.round: result for result in map(self._result, self._payloads("result"))}

    @staticmethod
    def _plan(payload: bytes) -> Plan:
        return read(Frame.from_bytes(payload), Plan)

    @staticmethod
    def _result(payload: bytes) -> Result:
        return read(Frame.from_bytes(payload), Result)

    def _payloads(self, kind: str) -> list[bytes]:
        log, parse = self.world.broker.log, self.topics.parse
        return [sent.payload for sent in log if sent.payload and parse(sent.topic).kind == kind]

    def check(self) -> None:
        """AssertionError, with the seed, if anything happened that must not."""
        seed = f"seed {self.world.seed}"
        self.check_nothing_said_twice(seed)
        self.check_sums(seed)
        self.check_receipts(seed)
        self.check_deadlines(seed)

    def check_nothing_said_twice(self, seed: str) -> None:
        """No second upload, mask sum, survivor set, plan, result or set-up message for the same thing."""
        said: dict[tuple[object, ...], set[bytes]] = defaultdict(set)
        for sent in self.world.broker.log:
            at = self.topics.parse(sent.topic)
            subject = _subject(at, sent.payload)
            if sent.payload and subject:
                said[subject].add(sent.payload)
        for subject, forms in said.items():
            assert len(forms) == 1, f"{len(forms)} different messages as {subject}; {seed}"

    def check_sums(self, seed: str) -> None:
        """Every version is the one before plus exactly the mean of those included; every device has one of them."""
        flat, versions = self._version_zero()
        version = 0
        for number, result in sorted(self.results.items()):
            assert (result.base, result.base_hash) == (version, versions[version]), f"round {number}; {seed}"
            if result.outcome != APPLIED:
                assert not result.included, f"round {number} names survivors without a sum; {seed}"
                continue
            included = [index for index in self.world.keys.credentials if result.includes(index)]
            assert len(included) >= 2, f"round {number} opened {included}; {seed}"
            update = np.zeros(len(flat))
            update[included] = height(number)
            flat, version = flat + (update / len(included)).astype(np.float32), version + 1
            versions[version] = model_hash(flat)
            assert (result.version, result.version_hash) == (version, versions[version]), f"round {number}; {seed}"
        for index, node in self.world.nodes.items():
            if isinstance(node, Device) and node.live.hash:
                assert versions.get(node.live.version) == node.live.hash, f"device {index} has another model; {seed}"

    def _version_zero(self) -> tuple[NDArray[np.float32], dict[int, bytes]]:
        model = read(self.world.keys.documents["model"], ModelSpec)
        flat = initial_flat(model.layers, model.init)
        return flat, {0: model_hash(flat)}

    def check_receipts(self, seed: str) -> None:
        """An upload that was accepted is in its round's sum, if there is one; none is in that was never sent."""
        sent_by: dict[int, set[int]] = defaultdict(set)
        accepted: dict[int, set[int]] = defaultdict(set)
        for sent in self.world.broker.log:
            at = self.topics.parse(sent.topic)
            if (at.kind, at.name, at.chunk) == ("up", "upload", 0):
                sent_by[read(Frame.from_bytes(sent.payload), Header).round].add(at.device)
            if (at.kind, at.name) == ("down", "receipt"):
                receipt = read(Frame.from_bytes(sent.payload), Receipt)
                if receipt.state == ACCEPTED:
                    accepted[receipt.round].add(at.device)
        for number, result in self.results.items():
            included = {index for index in self.world.keys.credentials if result.includes(index)}
            assert included <= sent_by[number], f"round {number}: {included - sent_by[number]} never sent; {seed}"
            if result.outcome == APPLIED:
                assert accepted[number] <= included, f"round {number}: accepted, then lost; {seed}"

    def check_deadlines(self, seed: str) -> None:
        """Every round ended, and in time."""
        ended: dict[int, float] = {}
        for sent in self.world.broker.log:
            at = self.topics.parse(sent.topic)
            if at.kind == "result" and sent.payload:
                ended.setdefault(at.round_number, sent.time)
        for number, plan in self.plans.items():
            if plan.until + GRACE < self.world.now:
                assert number in ended, f"round {number} never ended; {seed}"
            if number in ended:
                assert ended[number] <= plan.until + GRACE, f"round {number} ended too late; {seed}"


def _subject(at: Parsed, payload: bytes) -> tuple[object, ...] | None:
    """What a message speaks about, if there may be only one form of it."""
    if at.kind == "plan":
        return (at.kind, read(Frame.from_bytes(payload), Plan).round) if payload else None
    if at.kind in ONCE:
        return (at.kind, at.device, at.to, at.epoch, at.version, at.name, at.round_number, at.chunk)
    if at.kind == "up" and at.name in ("upload", "masksum"):
        return (at.name, at.device, at.round_number, at.chunk)
    if at.kind == "down" and at.name == "survivors":
        return (at.name, at.round_number, at.chunk)
    return None
