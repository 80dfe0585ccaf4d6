"""The participant: a plan in, one masked upload out (docs/protocol.md, section 4). No I/O, no clock.

It uploads at most once a round, ever. The whole masked upload and the round's number are saved in one transaction
before the first byte leaves; after a crash those bytes go out again, or nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, ClassVar

from edge_agent.bases import Bases, unpacked, with_base
from edge_agent.context import Context
from edge_agent.live_model import LiveModel
from edge_agent.personal_head import PersonalHead
from edge_agent.residual import Residual
from edge_agent.restoration import Restoration
from edge_agent.statistics import NOISELESS, Statistics
from edge_agent.work import Describe, DeviceAction, Train
from hushfleet.actions import Action, Erase, Note, Publish, Save, Wake
from hushfleet.errors import HushfleetError, RefusedError
from hushfleet.hashing import digest
from hushfleet.mqtt.chunks import chunk_hashes, cut, from_bitmap
from hushfleet.plans import PlanRefusedError, VerifiedPlan, picked
from hushfleet.wire.documents import PARTICIPANT
from hushfleet.wire.framing import B32, U32, U64, Bytes, Frame, Table
from hushfleet.wire.round import (
    ACCEPTED,
    BASE_USED_UP,
    DATA,
    MISSING,
    POLICY,
    RECEIPT_REASONS,
    ROTATED,
    STALE_FLEET,
    STATISTICS,
    Claim,
    Decline,
    Header,
    Plan,
    Receipt,
    Result,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.codec import LocalReport
    from hushfleet.secagg.residues import Vector

STATE, UPLOAD = "participant/state", "participant/upload"
ASK_AGAIN = 10.0
"""Seconds without progress after which the header goes out again, to ask what is missing."""
AROUND_A_CHUNK = 200
"""Bytes of topic, framing, TLS and acknowledgement around a chunk, and of the header, at most."""
DAY = 86_400


@dataclass(frozen=True, slots=True)
class State(Table):
    """What a participant has spent: its newest round, how often it used each base, when it uploaded by its clock."""

    KIND: ClassVar[str] = "state"
    answered: U64 = 0
    bases: Bases = b""
    uploaded: U64 = 0


@dataclass(frozen=True, slots=True)
class Upload(Table):
    """One masked upload, kept until its receipt or the end of its round."""

    KIND: ClassVar[str] = "kept"
    round: U64
    plan: B32
    closes: U64
    header: Bytes
    size: U32
    data: Bytes


class Participant:
    """One device's part as participant. Built anew from its records at every start."""

    def __init__(self, context: Context, live: LiveModel, restoration: Restoration) -> None:
        self._context = context
        self._live = live
        self._restoration = restoration
        saved = context.store.get(STATE)
        self._state = State.from_body(saved) if saved else State()
        self._residual = Residual(context.store, context.index)
        self.head = PersonalHead(context.store)
        self.statistics = Statistics(context, restoration)
        kept = context.store.get(UPLOAD)
        self._upload = Upload.from_body(kept) if kept else None
        self._plan: VerifiedPlan | None = None
        self._training, self._steps = False, 0
        self._header_on_its_way = self._asking = self._asked = False
        self._ask_at = self._begin_at = 0.0

    def certified(self, now: float) -> bool:
        """Whether the owners' certificate makes this device a participant now."""
        certificate = self._context.trust.certificate
        if certificate is None or not certificate.cert.roles & PARTICIPANT:
            return False
        return certificate.cert.valid_at(self._context.trust.time(now))

    # Before training.

    def on_plan(self, verified: VerifiedPlan, now: float) -> list[DeviceAction]:
        """Take part in a newly verified plan, or decline with a coarse reason."""
        plan = verified.plan
        actions = self._end_round(plan.round)
        if not self.certified(now) or plan.closes <= now or plan.round <= self._state.answered:
            return actions
        if not picked(verified.hash, self._context.index, plan.sample):
            return [*actions, Note("not-sampled", {"round": plan.round}, "plan")]
        try:
            self._check_profile(plan)
            self._check_past(plan, now)
            if plan.kind == STATISTICS:
                self.statistics.check(plan, now)
            steps = self._steps_for(verified)
        except PlanRefusedError as refusal:
            return [*actions, *self.decline(plan.round, verified.hash, refusal.reason, str(refusal))]
        self._plan, self._training, self._steps = verified, False, steps
        if steps < plan.steps:
            actions.append(Note("shorter", {"round": plan.round, "steps": steps, "of": plan.steps}, "plan"))
        self._begin_at = self._drawn_begin(plan, now)
        return [*actions, Wake(self._begin_at), *self.advance(now)]

    def _drawn_begin(self, plan: Plan, now: float) -> float:
        """A moment of this device's own, at most half of the way to the plan's end, so that uploads do not collide."""
        earliest, spread = max(now, plan.opens), self._context.spread
        if not spread:
            return float(plan.opens)
        fraction = int.from_bytes(self._context.draw(4), "little") / 2**32
        return earliest + fraction * min(spread, max(0.0, plan.closes - earliest) / 2)

    def _check_profile(self, plan: Plan) -> None:
        """Where the owners sealed firmware profiles, this device's must be one of them, and pin the plan's model."""
        trust = self._context.trust
        if trust.profiles is None or trust.certificate is None:
            return
        firmware = trust.profiles.named(trust.certificate.cert.profile)
        if firmware is None:
            raise PlanRefusedError(POLICY, "the owners sealed no firmware profile of the name in this certificate")
        if plan.model not in firmware.models:
            raise PlanRefusedError(POLICY, "the owners' firmware profile of this device does not pin that model spec")

    def _check_past(self, plan: Plan, now: float) -> None:
        policy = self._context.trust.policy
        if policy is None:
            raise PlanRefusedError(STALE_FLEET, "the policy is not here")
        if self._restoration.covers_plan(plan, policy):
            raise PlanRefusedError(POLICY, "the vault was put back from a copy, and may have answered this plan")
        if self._since_upload(now) < policy.interval:
            raise PlanRefusedError(POLICY, "the rounds follow each other faster than the policy allows")
        used = unpacked(self._state.bases).get(plan.base_hash, 0)
        if used >= policy.uploads_per_base and self._since_upload(now) < DAY:
            raise PlanRefusedError(BASE_USED_UP, "this base model has been answered as often as the policy allows")

    def _steps_for(self, verified: VerifiedPlan) -> int:
        """How many local steps to train: work that a battery or a daily cap would cut short is spent in vain."""
        from hushfleet.codec import lanes
        from hushfleet.secagg.residues import vector_length

        plan = verified.plan
        size = vector_length(plan.coords, plan.bits, lanes(plan.tail))
        size += (2 + size // self._context.chunk) * AROUND_A_CHUNK
        unfit = self._context.unfit(size)
        if unfit is not None:
            raise PlanRefusedError(*unfit)
        found = self._context.steps(plan, verified.model, len(verified.committee()), size)
        if not isinstance(found, int):
            raise PlanRefusedError(*found)
        return found

    def _since_upload(self, now: float) -> float:
        """Seconds by this device's own clock: a plan's times are the coordinator's to choose.

        A clock that was set back since then says nothing, and locks nobody out.
        """
        passed = self._context.trust.time(now) - self._state.uploaded
        return passed if passed >= 0 else inf

    def decline(self, round_number: int, plan_hash: bytes, reason: int, why: str) -> list[DeviceAction]:
        """Tell the coordinator, sealed and coarsely, that this device sits the round out."""
        self._plan = None
        note = Note("declined", {"round": round_number, "why": why}, "plan")
        if not self._context.trust.committee:
            return [note]
        sealed = self._context.sealed(Decline(self._context.index, plan_hash, reason))
        return [note, *self._context.up("decline", round_number, sealed)]

    def advance(self, now: float) -> list[DeviceAction]:
        """Start the plan's work once it is open and the live model is its base."""
        if self._plan is None or self._training:
            return []
        plan = self._plan.plan
        if now < self._begin_at or not self._live.at(plan.base, plan.base_hash):
            return []
        if now >= plan.closes:
            self._plan = None
            return [Note("too-late", {"round": plan.round}, "plan")]
        self._training = True
        flat = self.head.whole(self._plan.model, plan.model, self._live.flat(self._plan.model))
        if plan.kind == STATISTICS:
            return [Describe(plan, self._plan.hash, flat, self.head.fitted(self._plan.model, plan.model))]
        return [Train(replace(plan, steps=self._steps), self._plan.hash, flat, self._context.draw(32))]

    # After training.

    def on_training_failed(self, plan_hash: bytes, why: str) -> list[DeviceAction]:
        """The data or the numbers do not allow an upload: decline."""
        if self._plan is None or self._plan.hash != plan_hash:
            return []
        return self.decline(self._plan.plan.round, plan_hash, DATA, why)

    def on_trained(
        self, plan_hash: bytes, delta: "NDArray[np.float32]", report: "LocalReport", now: float
    ) -> list[DeviceAction]:
        """Encode, mask, save and send the update, if the round is still open.

        Args:
            delta: of the whole model; that of this device's own layers, if there are such, stays here.
        """

        def encoded(verified: VerifiedPlan) -> "tuple[Vector, list[Action]]":
            model = verified.model
            vector, actions = self._encoded(verified, delta[: model.parameters()], report)
            return vector, [*actions, *self.head.keep(model, verified.plan.model, delta, verified.plan.clip)]

        return self._on_worked(plan_hash, encoded, now)

    def on_described(self, plan_hash: bytes, numbers: "NDArray[np.float64]", now: float) -> list[DeviceAction]:
        """The same with the numbers of a statistics round."""
        return self._on_worked(plan_hash, lambda verified: self.statistics.encode(verified, numbers, now), now)

    def _on_worked(
        self, plan_hash: bytes, encoded: Callable[[VerifiedPlan], tuple["Vector", list[Action]]], now: float
    ) -> list[DeviceAction]:
        verified, self._plan = self._plan, None
        if verified is None or verified.hash != plan_hash:
            return []
        plan = verified.plan
        if now >= plan.closes:
            return [Note("too-late", {"round": plan.round}, "plan")]
        try:
            vector, actions = encoded(verified)
        except HushfleetError as error:
            return self.decline(plan.round, plan_hash, DATA, str(error))
        y_point, data = self._masked(verified, vector)
        self._upload = self._signed(verified, y_point, data)
        self._header_on_its_way, self._asking, self._asked = True, False, False
        self._ask_at = now + ASK_AGAIN
        said = {"statistics": NOISELESS} if plan.kind == STATISTICS else {}
        used = unpacked(self._state.bases).get(plan.base_hash, 0)
        bases = with_base(self._state.bases, plan.base_hash, used + 1)
        self._state = State(plan.round, bases, int(self._context.trust.time(now)))
        return [
            *actions,
            Save(UPLOAD, self._upload.to_body()),
            Save(STATE, self._state.to_body()),
            Note("uploading", {"round": plan.round, "bytes": len(data), **said}),
            *self._publishes(self._upload),
            Wake(self._ask_at),
        ]

    def _encoded(
        self, verified: VerifiedPlan, delta: "NDArray[np.float32]", report: "LocalReport"
    ) -> tuple["Vector", list[Action]]:
        """The vector before masking, and what is to be saved with it."""
        from hushfleet.codec import encode_plain, expanded

        plan, checksum_seed = verified.plan, digest("chks", verified.hash)
        if plan.codec == ROTATED:
            return self._encoded_rotated(verified, delta, report, checksum_seed)
        vector = encode_plain(
            delta,
            1.0,
            report,
            clip=plan.clip,
            step=plan.step,
            largest_survivor_set=verified.policy.largest_survivor_set,
            checksum_seed=checksum_seed,
            draw=expanded(self._context.draw),
        )
        return vector, []

    def _encoded_rotated(
        self, verified: VerifiedPlan, delta: "NDArray[np.float32]", report: "LocalReport", checksum_seed: bytes
    ) -> tuple["Vector", list[Action]]:
        """The same with the rotated codec: what earlier uploads left out comes along, if nothing goes wrong."""
        from hushfleet.encoding.grid import Grid
        from hushfleet.rotated import encode_rotated

        plan, residual = verified.plan, self._residual
        actions = residual.prepare(plan, self._state.answered, self._live.result_of(residual.pending()))
        before = residual.vector()
        whole = delta if before is None else delta + before
        grid = Grid(len(whole), plan.coords, verified.hash)
        rotated = grid.rotated(whole)
        vector = encode_rotated(
            rotated,
            1.0,
            report,
            grid=grid,
            index=self._context.index,
            bits=plan.bits,
            clip=plan.clip,
            step=plan.step,
            checksum_seed=checksum_seed,
        )
        return vector, [*actions, *residual.keep(plan, verified.hash, whole, rotated)]

    def _masked(self, verified: VerifiedPlan, vector: "Vector") -> tuple[bytes, bytes]:
        """Y and the whole masked vector, packed. y and every seed are forgotten on return."""
        from hushfleet.secagg.masks import MaskContext, add_masks, round_key

        plan, context = verified.plan, self._context
        key = round_key(context.vault_secret, context.draw, verified.hash, digest("body", vector.to_bytes(plan.bits)))
        masks = MaskContext(context.fleet, verified.hash, plan.round)
        add_masks(vector, key, masks, context.index, verified.committee())
        return key.point, vector.to_bytes(plan.bits)

    def _signed(self, verified: VerifiedPlan, y_point: bytes, data: bytes) -> Upload:
        context, plan = self._context, verified.plan
        hashes = chunk_hashes(cut(data, context.chunk))
        unsigned = Header(plan.round, y_point, len(data), context.chunk, hashes, bytes(64))
        claim = Claim(plan.roster, verified.hash, plan.round, context.index, y_point, unsigned.upload_hash())
        signature = context.identity.sign("upload", context.fleet, claim.to_bytes())
        header = Header(plan.round, y_point, len(data), context.chunk, hashes, signature)
        frame = Frame(Header.KIND, header.to_body()).to_bytes()
        return Upload(plan.round, verified.hash, plan.closes, frame, context.chunk, data)

    # Until the receipt.

    def _publishes(self, upload: Upload, chunks: list[int] | None = None) -> list[DeviceAction]:
        """The header, and the chunks (numbered from 1) that are named, or all of them."""
        slices = cut(upload.data, upload.size)
        wanted = range(1, len(slices) + 1) if chunks is None else chunks
        return [
            Publish(self._topic(upload, 0), upload.header),
            *(Publish(self._topic(upload, chunk), slices[chunk - 1]) for chunk in wanted),
        ]

    def _topic(self, upload: Upload, chunk: int) -> str:
        context = self._context
        return context.topics.up(context.shard(), context.index, "upload", upload.round, chunk)

    def on_receipt(self, receipt: Receipt, now: float) -> list[DeviceAction]:
        """Drop the upload once it is durable elsewhere, or send again what is missing."""
        upload = self._upload
        if upload is None or receipt.round != upload.round:
            return []
        if receipt.upload != Header.from_body(Frame.from_bytes(upload.header).body).upload_hash():
            raise RefusedError("a receipt for another upload")
        if receipt.state == MISSING:
            if not self._asked:
                # The answer to the first header, whose chunks are on their way behind it, or to an older question.
                return []
            self._asking, self._asked, self._ask_at = False, False, now + ASK_AGAIN
            count = len(cut(upload.data, upload.size))
            chunks = [index + 1 for index in from_bitmap(receipt.missing, count)]
            return [*self._publishes(upload, chunks)[1:], Wake(self._ask_at)]
        self._upload = None
        note = Note(
            "accepted" if receipt.state == ACCEPTED else "refused-upload",
            {"round": receipt.round, "why": RECEIPT_REASONS[receipt.reason]},
        )
        return [Erase(UPLOAD), note]

    def on_connected(self, now: float) -> list[DeviceAction]:
        """Ask at once for a receipt that is owed: nobody knows what the connection before carried."""
        self._ask_at = now
        return self.ask(now)

    def ask(self, now: float) -> list[DeviceAction]:
        """Without a receipt for a while, send the header again: the coordinator answers what is missing."""
        if self._upload is None or now < self._ask_at:
            return []
        if now >= self._upload.closes:
            return self._end_round(self._upload.round + 1)
        self._ask_at = now + ASK_AGAIN
        if self._header_on_its_way:
            # The link has it, and the chunks behind it: a second one would be answered before they are sent.
            return [Wake(self._ask_at)]
        self._header_on_its_way, self._asking, self._asked = True, True, False
        return [Publish(self._topic(self._upload, 0), self._upload.header), Wake(self._ask_at)]

    def on_delivered(self, topic: str, now: float) -> list[DeviceAction]:
        """The broker has taken a message: while an upload moves nothing is asked, and a question is open from now.

        What came before the broker has the question answers an older one, and would have chunks sent twice.
        """
        if self._upload is None or not topic.startswith(self._topic(self._upload, 0).removesuffix("0")):
            return []
        self._ask_at = now + ASK_AGAIN
        if topic == self._topic(self._upload, 0):
            self._header_on_its_way, self._asked = False, self._asking
        return [Wake(self._ask_at)]

    def on_undelivered(self, topic: str) -> None:
        """The broker did not take a message, or nobody listened: the header has to be sent again."""
        if self._upload is not None and topic == self._topic(self._upload, 0):
            self._header_on_its_way = False

    def on_result(self, result: Result) -> list[DeviceAction]:
        """The round is over: nothing of it is sent any more."""
        if self._plan is not None and self._plan.plan.round <= result.round:
            self._plan = None
        return [*self._residual.on_result(result), *self._end_round(result.round + 1)]

    def forget(self, time: float) -> list[DeviceAction]:
        """Drop the upload kept, and count an upload now: nobody knows when the last one was."""
        self._state = replace(self._state, uploaded=int(time))
        dropped = self._end_round(self._upload.round + 1) if self._upload else []
        return [*dropped, Save(STATE, self._state.to_body())]

    def _end_round(self, next_round: int) -> list[DeviceAction]:
        if self._upload is None or self._upload.round >= next_round:
            return []
        gone, self._upload = self._upload, None
        return [Erase(UPLOAD), Note("upload-dropped", {"round": gone.round})]
