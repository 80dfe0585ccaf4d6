"""From a frozen survivor set to the opened sum: mask sums, recovery, checks (docs/protocol.md, 4 and 5). No I/O.

A recovery reveals one member's secret of this round and of no other. It stands in for a member that did not answer, or
examines one that did: its mask sum is recomputed; the two are the same, or the member is blamed with the evidence.

Records, erased with the result:

    masksum/{member}          a member's signed answer
    share/{lost}/{member}     a member's signed share of one that did not answer or is examined
    suspect                   the member under examination
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordinator.context import Context
from coordinator.epochs import Epoch
from hushfleet.actions import Action, Erase, Note, Publish, Save, Store
from hushfleet.errors import RefusedError
from hushfleet.evidence import recomputed
from hushfleet.hashing import digest
from hushfleet.mqtt.inbox import payloads
from hushfleet.secagg import committee, group, sharing
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import Frame, read_message
from hushfleet.wire.round import PLAIN, Blame, MaskSum, Plan, Request, Share, Survivors
from hushfleet.wire.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.codec import Opened
    from hushfleet.secagg.residues import Vector

SUSPECT = "suspect"


class Opening:
    """One frozen set. Built anew from its records at every start.

    Args:
        total: the sum of exactly the set's uploads; the mask sums are subtracted from it in place.
    """

    def __init__(
        self, context: Context, plan: Plan, plan_hash: bytes, set_frame: bytes, epoch: Epoch, total: "Vector"
    ) -> None:
        from hushfleet.codec import lanes
        from hushfleet.secagg.residues import vector_length

        self._context, self._plan, self._plan_hash, self._epoch = context, plan, plan_hash, epoch
        frame = Frame.from_bytes(set_frame, len(set_frame))
        self.set_frame, self._set_hash = set_frame, frame.hash(context.fleet)
        self.survivors = Survivors.from_body(frame.body).indices()
        self._total, self._lanes = total, lanes(plan.tail)
        self._length = vector_length(plan.coords, plan.bits, self._lanes)
        self._answered: set[int] = set()
        self._contradicted: dict[int, bytes] = {}
        self.recovered: set[int] = set()
        self.cleared: set[int] = set()
        self.blamed: dict[int, bytes] = {}
        self._shares: dict[int, dict[int, bytes]] = {}
        suspect = context.store.get(SUSPECT)
        self.suspect = int.from_bytes(suspect, "little") if suspect else None
        for key, value in context.store.scan("masksum/"):
            self._subtract(int(key.removeprefix("masksum/")), MaskSum.from_body(_body(value)).sum)
        for key, value in context.store.scan("share/"):
            _, lost, member = key.split("/")
            self._shares.setdefault(int(lost), {})[int(member)] = Share.from_body(_body(value)).share
        for examined in list(self._shares):
            self._resolve(examined)

    def members(self) -> tuple[int, ...]:
        """T, ascending."""
        return self._epoch.members()

    def outstanding(self) -> list[int]:
        """Members whose masks are still in the sum."""
        return [member for member in self._epoch.members() if member not in self._answered]

    def ask(self, members: Iterable[int]) -> list[Action]:
        """Show members the exact survivor set."""
        topics, chunks = self._context.topics, payloads(self.set_frame, self._context.chunk)
        return [
            Publish(topics.down(member, "survivors", self._plan.round, number), chunk)
            for member in members
            for number, chunk in enumerate(chunks)
        ]

    # Answers.

    def longest_answer(self, member: int) -> int:
        """Bytes of a member's sealed mask sum, at most; 0 for everyone else."""
        return self._length + 1024 if member in self._epoch.members() else 0

    def on_mask_sum(self, member: int, sealed: bytes, now: float) -> list[Action]:
        """Subtract a member's answer.

        Raises:
            MalformedError, RefusedError: not an answer of that member to this set.
        """
        frame = self._unsealed(member, sealed, self._length + 1024)
        answer = read_message(frame, MaskSum, self._context.fleet, self._context.trust.candidate_at(now))
        if (answer.sender, answer.plan, answer.set) != (member, self._plan_hash, self._set_hash):
            raise RefusedError(f"member {member}: a mask sum of another member, plan or set")
        if answer.group or any(answer.part) or len(answer.sum) != self._length:
            raise RefusedError(f"member {member}: a mask sum of another form")
        if member in self.recovered or member in self.blamed:
            return []
        if member in self._answered:
            if answer.sum != self._answer(member):
                self._contradicted[member] = frame.to_bytes()
            return []
        self._subtract(member, answer.sum)
        return [Save(f"masksum/{member:010}", frame.to_bytes())]

    def _answer(self, member: int) -> bytes:
        """A member's mask sum as it signed it."""
        return MaskSum.from_body(_body(self._context.store.get(f"masksum/{member:010}") or b"")).sum

    def _unsealed(self, member: int, sealed: bytes, limit: int) -> Frame:
        if member not in self._epoch.members():
            raise RefusedError(f"device {member} is not a member of this round's committee")
        return self._context.unseal(sealed, limit)

    def _subtract(self, member: int, data: bytes) -> None:
        from hushfleet.secagg.residues import Vector, subtract_from

        subtract_from(self._total, Vector.from_bytes(data, self._plan.bits, self._plan.coords, self._lanes))
        self._answered.add(member)

    # Recovery and examination.

    def spare(self) -> int:
        """Recoveries of this round that are left: crashes and examinations together are at most f."""
        spent = self.recovered | self.cleared | set(self.blamed) | ({self.suspect} - {None})
        return self._epoch.transcript.f - len(spent)

    def examinable(self) -> set[int]:
        """Members whose answers nobody has recomputed yet; first of all one that contradicted itself."""
        left = self._answered - self.recovered - self.cleared - set(self.blamed)
        return left & set(self._contradicted) or left

    def examine(self, member: int) -> list[Action]:
        """Spend a recovery on a member that has answered."""
        self.suspect = member
        note = Note("examining", {"round": self._plan.round, "member": member})
        return [Save(SUSPECT, member.to_bytes(4, "little")), *self.request_shares(), note]

    def request_shares(self) -> list[Action]:
        """Ask for shares of those that did not answer, or of the one examined; at most f can be recovered."""
        lost = self.outstanding()
        if len(lost) > self._epoch.transcript.f:
            return []
        wanted = lost if self.suspect is None else [*lost, self.suspect]
        actions: list[Action] = []
        for member in wanted:
            helpers = self._answered - self.recovered - {member} - set(self._shares.get(member, ()))
            for helper in sorted(helpers):
                request = Request(self._context.index, self._plan_hash, self._set_hash, member)
                data = self._context.frame(request).to_bytes()
                actions += self._context.down(helper, "request", self._plan.round, data, part=member)
        return actions

    def on_share(self, member: int, sealed: bytes, now: float) -> list[Action]:
        """Check a share against the commitments; with enough of them, compute the mask sum they stand for.

        Raises:
            MalformedError, RefusedError: not a right share of that member for this set.
        """
        frame = self._unsealed(member, sealed, 1024)
        share = read_message(frame, Share, self._context.fleet, self._context.trust.candidate_at(now))
        if (share.sender, share.plan, share.set) != (member, self._plan_hash, self._set_hash) or share.lost == member:
            raise RefusedError(f"member {member}: a share of another member, plan or set")
        if share.lost != self.suspect and share.lost not in self.outstanding():
            return []
        position = self._epoch.members().index(member) + 1
        commitments = self._epoch.commitments(share.lost, self._plan.round)
        sharing.check_share(group.check_scalar(share.share), position, commitments)
        self._shares.setdefault(share.lost, {})[member] = share.share
        return [Save(f"share/{share.lost:010}/{member:010}", frame.to_bytes()), *self._resolve(share.lost)]

    def _resolve(self, member: int) -> list[Action]:
        """With t shares: the mask sum of a member that did not answer, or the truth about one that did."""
        shares, members = self._shares[member], self._epoch.members()
        if member in self.recovered or len(shares) < self._epoch.threshold:
            return []
        points = [(members.index(helper) + 1, share) for helper, share in sorted(shares.items())]
        secret = committee.recover(points, self._epoch.commitments(member, self._plan.round))
        survivors = Survivors.from_body(_body(self.set_frame))
        truth = recomputed(secret, member, self._plan, self._plan_hash, survivors, self._context.fleet)
        if member not in self._answered:
            self._subtract(member, truth)
            self.recovered.add(member)
            return [Note("recovered", {"round": self._plan.round, "member": member})]
        return self._conclude(member, secret, truth)

    def _conclude(self, member: int, secret: bytes, truth: bytes) -> list[Action]:
        """End an examination: the member is cleared, or its sum replaced and the member blamed."""
        self.suspect = None
        answer = self._answer(member)
        frames = [self._context.store.get(f"masksum/{member:010}") or b""]
        if member in self._contradicted:
            frames.append(self._contradicted[member])
        if answer == truth and len(frames) == 1:
            self.cleared.add(member)
            return [Erase(SUSPECT), Note("cleared", {"round": self._plan.round, "member": member})]
        self._replace(answer, truth)
        blame = Blame(self._context.index, self._plan_hash, member, self.set_frame, tuple(frames), secret)
        self.blamed[member] = self._context.frame(blame).to_bytes()
        return [Erase(SUSPECT), Note("blamed", {"round": self._plan.round, "member": member})]

    def _replace(self, answer: bytes, truth: bytes) -> None:
        from hushfleet.secagg.residues import Vector, add_into, subtract_from

        for combine, data in ((add_into, answer), (subtract_from, truth)):
            combine(self._total, Vector.from_bytes(data, self._plan.bits, self._plan.coords, self._lanes))

    # Opening.

    def open(self, policy: Policy, parameters: int) -> "Opened":
        """The sum of the survivors' updates of a model of so many parameters, when every mask is out.

        Raises:
            OpeningError: a check fails.
        """
        from hushfleet.codec import open_plain
        from hushfleet.encoding.grid import Grid
        from hushfleet.rotated import open_rotated

        plan, checksum_seed = self._plan, digest("chks", self._plan_hash)
        if plan.codec == PLAIN:
            return open_plain(
                self._total,
                len(self.survivors),
                coords=plan.coords,
                clip=plan.clip,
                step=plan.step,
                largest_weight=policy.largest_weight,
                checksum_seed=checksum_seed,
            )
        return open_rotated(
            self._total,
            self.survivors,
            grid=Grid(parameters, plan.coords, self._plan_hash),
            bits=plan.bits,
            clip=plan.clip,
            step=plan.step,
            largest_weight=policy.largest_weight,
            checksum_seed=checksum_seed,
        )

    def open_statistics(self, policy: Policy, schema: Schema) -> "NDArray[np.int64]":
        """The sums of the survivors' numbers, as `hushfleet.statistics.open_statistics` has them."""
        from hushfleet.statistics import Digits, open_statistics

        return open_statistics(
            self._total,
            len(self.survivors),
            schema,
            digits=Digits.of(policy.largest_survivor_set),
            checksum_seed=digest("chks", self._plan_hash),
        )

    def erase(self) -> list[Action]:
        """The round is over: mask sums, shares and with them every scalar go."""
        sums = [f"masksum/{member:010}" for member in self._answered - self.recovered]
        shares = [f"share/{lost:010}/{member:010}" for lost, held in self._shares.items() for member in held]
        return [Erase(key) for key in (*sums, *shares, SUSPECT)]


def erase_answers(store: Store) -> list[Action]:
    """What a frozen set left in the records, when its round ends without its committee."""
    return [Erase(key) for prefix in ("masksum/", "share/", SUSPECT) for key, _ in store.scan(prefix)]


def _body(frame: bytes) -> bytes:
    return Frame.from_bytes(frame, len(frame)).body
