"""From a frozen survivor set to the opened sum: mask sums, recovery, checks (docs/protocol.md, 4 and 5). No I/O.

Records, erased with the result:

    masksum/{member}          a member's signed answer
    share/{lost}/{member}     a member's signed share of one that did not answer
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordinator.context import Context
from coordinator.epochs import Epoch
from hushfleet.actions import Action, Erase, Note, Save, Store
from hushfleet.errors import RefusedError
from hushfleet.hashing import digest
from hushfleet.secagg import committee, group, sharing
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import Frame, read_message
from hushfleet.wire.round import MaskSum, Plan, Request, Share, Survivor, Survivors

if TYPE_CHECKING:
    from hushfleet.codec import Opened
    from hushfleet.secagg.residues import Vector


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
        self.survivors: tuple[Survivor, ...] = Survivors.from_body(frame.body).survivors()
        self._total, self._lanes = total, lanes(plan.tail)
        self._length = vector_length(plan.coords, plan.bits, self._lanes)
        self._answered: set[int] = set()
        self.recovered: set[int] = set()
        self._shares: dict[int, dict[int, bytes]] = {}
        for key, value in context.store.scan("masksum/"):
            self._subtract(int(key.removeprefix("masksum/")), MaskSum.from_body(_body(value)).sum)
        for key, value in context.store.scan("share/"):
            _, lost, member = key.split("/")
            self._shares.setdefault(int(lost), {})[int(member)] = Share.from_body(_body(value)).share
        for absent in list(self._shares):
            self._recover(absent)

    def outstanding(self) -> list[int]:
        """Members whose masks are still in the sum."""
        return [member for member in self._epoch.members() if member not in self._answered]

    def ask(self, members: Iterable[int]) -> list[Action]:
        """Show members the exact survivor set."""
        return [
            publish
            for member in members
            for publish in self._context.down(member, "survivors", self._plan.round, self.set_frame)
        ]

    # Answers.

    def longest_answer(self, member: int) -> int:
        """Bytes of a member's sealed mask sum, at most; 0 for everyone else."""
        return self._length + 1024 if member in self._epoch.members() else 0

    def on_mask_sum(self, member: int, sealed: bytes) -> list[Action]:
        """Subtract a member's answer.

        Raises:
            MalformedError, RefusedError: not an answer of that member to this set.
        """
        frame = self._unsealed(member, sealed, self._length + 1024)
        answer = read_message(frame, MaskSum, self._context.fleet, self._context.trust.candidate_key)
        if (answer.sender, answer.plan, answer.set) != (member, self._plan_hash, self._set_hash):
            raise RefusedError(f"member {member}: a mask sum of another member, plan or set")
        if answer.group or any(answer.part) or len(answer.sum) != self._length:
            raise RefusedError(f"member {member}: a mask sum of another form")
        if member in self._answered:
            return []
        self._subtract(member, answer.sum)
        return [Save(f"masksum/{member:010}", frame.to_bytes())]

    def _unsealed(self, member: int, sealed: bytes, limit: int) -> Frame:
        if member not in self._epoch.members():
            raise RefusedError(f"device {member} is not a member of this round's committee")
        return self._context.unseal(sealed, limit)

    def _subtract(self, member: int, data: bytes) -> None:
        from hushfleet.secagg.residues import Vector, subtract_from

        subtract_from(self._total, Vector.from_bytes(data, self._plan.bits, self._plan.coords, self._lanes))
        self._answered.add(member)

    # Recovery.

    def request_shares(self) -> list[Action]:
        """Ask those that answered for their shares of those that did not; at most f can be recovered."""
        lost = self.outstanding()
        if len(lost) > self._epoch.transcript.f:
            return []
        actions: list[Action] = []
        for member in lost:
            for helper in sorted(self._answered - self.recovered - set(self._shares.get(member, ()))):
                request = Request(self._context.index, self._plan_hash, self._set_hash, member)
                data = self._context.frame(request).to_bytes()
                actions += self._context.down(helper, "request", self._plan.round, data, part=member)
        return actions

    def on_share(self, member: int, sealed: bytes) -> list[Action]:
        """Check a share against the lost member's commitments; with enough of them, compute its mask sum.

        Raises:
            MalformedError, RefusedError: not a right share of that member for this set.
        """
        frame = self._unsealed(member, sealed, 1024)
        share = read_message(frame, Share, self._context.fleet, self._context.trust.candidate_key)
        if (share.sender, share.plan, share.set) != (member, self._plan_hash, self._set_hash) or share.lost == member:
            raise RefusedError(f"member {member}: a share of another member, plan or set")
        if share.lost not in self._epoch.members() or share.lost in self._answered:
            return []
        position = self._epoch.members().index(member) + 1
        commitments = self._epoch.commitments(share.lost, self._plan.round)
        sharing.check_share(group.check_scalar(share.share), position, commitments)
        self._shares.setdefault(share.lost, {})[member] = share.share
        return [Save(f"share/{share.lost:010}/{member:010}", frame.to_bytes()), *self._recover(share.lost)]

    def _recover(self, lost: int) -> list[Action]:
        """The lost member's mask sum from t shares; no other round is touched."""
        from hushfleet.secagg.masks import MaskContext, mask_sum
        from hushfleet.secagg.residues import Vector

        shares, members = self._shares[lost], self._epoch.members()
        if lost in self._answered or len(shares) < self._epoch.threshold:
            return []
        points = [(members.index(member) + 1, share) for member, share in sorted(shares.items())]
        secret = committee.recover(points, self._epoch.commitments(lost, self._plan.round))
        total = mask_sum(
            Vector.zeros(self._plan.coords, self._plan.bits, self._lanes),
            secret,
            lost,
            MaskContext(self._context.fleet, self._plan_hash, self._plan.round),
            [(survivor.index, survivor.y) for survivor in self.survivors],
        )
        self._subtract(lost, total.to_bytes(self._plan.bits))
        self.recovered.add(lost)
        return [Note("recovered", {"round": self._plan.round, "member": lost})]

    # Opening.

    def open(self, policy: Policy) -> "Opened":
        """The sum of the survivors' updates, when every mask is out; OpeningError if a check fails."""
        from hushfleet.codec import open_plain

        return open_plain(
            self._total,
            len(self.survivors),
            coords=self._plan.coords,
            clip=self._plan.clip,
            step=self._plan.step,
            largest_weight=policy.largest_weight,
            checksum_seed=digest("chks", self._plan_hash),
        )

    def erase(self) -> list[Action]:
        """The round is over: mask sums, shares and with them every scalar go."""
        sums = [f"masksum/{member:010}" for member in self._answered - self.recovered]
        shares = [f"share/{lost:010}/{member:010}" for lost, held in self._shares.items() for member in held]
        return [Erase(key) for key in (*sums, *shares)]


def erase_answers(store: Store) -> list[Action]:
    """What a frozen set left in the records, when its round ends without its committee."""
    return [Erase(key) for prefix in ("masksum/", "share/") for key, _ in store.scan(prefix)]


def _body(frame: bytes) -> bytes:
    return Frame.from_bytes(frame, len(frame)).body
