"""A colluding participant sends Y_p = Y_v + b·B, and members are said to have failed, one a round (section 10).

With committee secrets that outlive a round this opens the victim's update, although no recovery ever reveals a secret.
With a secret for each round it gains nothing. The adversary is coordinator, broker and participant p.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
import pytest
from adversary import Adversary, Announced, Upload
from numpy.typing import NDArray
from world import height, make_fleet, seeded

from hushfleet.codec import LocalReport, OpeningError, encode_plain, open_plain, plain_step
from hushfleet.hashing import digest
from hushfleet.secagg import group, sharing
from hushfleet.secagg.masks import MaskContext, add_keystream, add_masks, round_key
from hushfleet.secagg.residues import Vector, subtract_from

B_FACTOR = group.scalar(12345)
FLEET, PLAN = bytes(16), bytes(range(32))


def minus(point: bytes) -> bytes:
    return point[:31] + bytes((point[31] ^ 0x80,))


def related(victim: bytes) -> bytes:
    """Y_v + b·B; nobody knows its discrete logarithm."""
    return group.add(victim, group.base_multiply(B_FACTOR))


@dataclass
class LongLivedCommittee:
    """The weakened variant: one secret a member for ever. Recovery gives s_h·Y for each Y asked, never s_h itself."""

    members: int = 4
    threshold: int = 3

    def __post_init__(self) -> None:
        draw = seeded("long-lived")
        self._polynomials = {
            member: [group.reduce(draw(64)) for _ in range(self.threshold)] for member in range(1, self.members + 1)
        }

    def points(self) -> list[tuple[int, bytes]]:
        """(h, S_h), the same in every round."""
        return [(member, group.base_multiply(secret[0])) for member, secret in self._polynomials.items()]

    def recover(self, lost: int, y_points: list[bytes]) -> list[bytes]:
        """What t honest helpers' answers give: s_lost·Y, interpolated in the exponent."""
        helpers = [member for member in self._polynomials if member != lost][: self.threshold]
        shares = [(helper, sharing.evaluate(self._polynomials[lost], helper)) for helper in helpers]
        return [
            reduce(group.add, (group.multiply(_lagrange(helper, helpers, share), y) for helper, share in shares))
            for y in y_points
        ]


def _lagrange(position: int, positions: list[int], share: bytes) -> bytes:
    """share · the coefficient of `position` at 0."""
    numerator = denominator = 1
    for other in positions:
        if other != position:
            numerator, denominator = numerator * other, denominator * (other - position)
    return group.scalar_multiply(group.scalar(numerator * pow(denominator, -1, group.ORDER)), share)


def test_the_weaker_variant_falls_long_lived_secrets_open_the_victims_update() -> None:
    committee, victim, draw = LongLivedCommittee(), 7, seeded("victim")
    update = np.zeros(100, np.float32)
    update[victim] = 1.5
    step, seed = plain_step(4.125, 31), digest("chks", PLAN)
    report = LocalReport(1, 0.5, 1, 0.5, 1)
    vector = encode_plain(
        update, 1.0, report, clip=4.125, step=step, largest_survivor_set=31, checksum_seed=seed, draw=draw
    )
    key = round_key(draw(32), draw, PLAN, bytes(32))
    context = MaskContext(FLEET, PLAN, 1)
    add_masks(vector, key, context, victim, committee.points())
    uploaded = Vector.from_bytes(vector.to_bytes(16), 16, 100, 8)

    # In each of the next c rounds p's point is the victim's, shifted, and one more member is said to have failed.
    for lost, s_point in committee.points():
        (shifted,) = committee.recover(lost, [related(key.point)])
        shared = group.add(shifted, minus(group.multiply(B_FACTOR, s_point)))
        mask = Vector.zeros(100, 16, 8)
        add_keystream(mask, context.seed(shared, victim, lost, key.point, s_point))
        subtract_from(uploaded, mask)
    residues = open_plain(
        uploaded, 1, coords=100, clip=4.125, step=step, largest_weight=1.0, checksum_seed=seed
    ).residues
    assert np.array_equal(residues * step, update)


def shown(adversary: Adversary, announced: Announced, liar: int, y_point: bytes) -> bytes:
    """All uploads as they came, but for the liar's: it signs another point over its own data."""
    uploads: dict[int, Upload] = adversary.uploads(announced)
    uploads[liar] = adversary.sign_claim(liar, announced, y_point, uploads[liar].data)
    return adversary.set_of(announced, [upload.survivor(index) for index, upload in uploads.items()])


def opened(adversary: Adversary, target: Announced, victim: int, liar_secrets: dict[int, bytes]) -> NDArray[np.int64]:
    """The victim's update by the attack's algebra: s·Y_p − b·S = s·Y_v for each member; OpeningError if it is noise."""
    upload = adversary.uploads(target)[victim]
    y_victim, members = upload.header.y, sorted(liar_secrets)
    points = dict(zip(members, [target.plan.points[at : at + 32] for at in range(0, 128, 32)], strict=True))
    context = MaskContext(adversary.world.keys.fleet, target.hash, target.plan.round)
    vector = adversary.vector(upload.data, target)
    for member, secret in liar_secrets.items():
        shifted = group.multiply(secret, related(y_victim))
        shared = group.add(shifted, minus(group.multiply(B_FACTOR, group.base_multiply(secret))))
        mask = Vector.zeros(target.plan.coords, 16, 8)
        add_keystream(mask, context.seed(shared, victim, member, y_victim, points[member]))
        subtract_from(vector, mask)
    return adversary.open(vector, 1, target).residues


def test_against_a_secret_for_each_round_the_related_point_opens_nothing() -> None:
    members, liar, victim = [1, 2, 3, 4], 8, 5
    adversary = Adversary.in_fleet(make_fleet(4, 4, epoch_rounds=8), corrupt=[liar])
    target = adversary.open_round(adversary.newest + 1)
    y_victim = adversary.uploads(target)[victim].header.y
    truth = {member: adversary.look_into(member, target).secret for member in members}
    survivors = shown(adversary, target, liar, related(y_victim))
    for member in members:
        assert adversary.ask_sum(member, target, survivors), adversary.refusals(member)
    secrets = {}
    for k, lost in enumerate(members):
        # The first claim is made in the victim's own round, the others in the rounds after it.
        announced = target if k == 0 else adversary.open_round(target.plan.round + k)
        survivors = shown(adversary, announced, liar, related(y_victim))
        shares = {}
        for helper in [member for member in members if member != lost]:
            assert adversary.ask_sum(helper, announced, survivors), adversary.refusals(helper)
            share = adversary.ask_share(helper, announced, survivors, lost)
            assert share
            shares[helper] = share
        secret = adversary.recovered(lost, shares, announced)
        assert secret
        secrets[lost] = secret
    # Each of the four members was "recovered", in a round of its own.
    with pytest.raises(OpeningError):
        opened(adversary, target, victim, secrets)
    with pytest.raises(OpeningError):
        adversary.open_single(victim, secrets, target)
    # The algebra is sound: with the four secrets of the victim's own round it opens the update. But those are gone.
    assert opened(adversary, target, victim, truth)[victim] == height(target.plan.round) * 256
    held = [key for member in members for key in adversary.world.records[member].data if key.startswith("sheet/")]
    assert held
    assert not [key for key in held if key.endswith(f"/{target.plan.round:020}")]
