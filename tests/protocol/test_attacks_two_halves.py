"""Members that did not fail, said to have failed: to each helper another one (docs/protocol.md, section 7).

The bound is C ≤ c − 2f − 1, here 2 of 5 with f = 1. At the bound nothing single opens, whatever is claimed to whom;
with one corrupt member more, everything does. The adversary is the coordinator with C members' vaults.
"""

from itertools import product

import numpy as np
import pytest
from adversary import Adversary, Announced
from world import height, make_fleet

from hushfleet.codec import OpeningError
from hushfleet.secagg.residues import add_into, subtract_from

MEMBERS, F, BOUND = 5, 1, 2


def attacked(corrupt: int) -> tuple[Adversary, Announced, bytes]:
    """A committee of five, the last `corrupt` of them the adversary's; a round with all uploads in."""
    keys = make_fleet(4, MEMBERS, recoveries=F, committee_min=MEMBERS)
    adversary = Adversary.in_fleet(keys, corrupt=range(MEMBERS - corrupt + 1, MEMBERS + 1))
    announced = adversary.open_round(adversary.newest + 1)
    uploads = adversary.uploads(announced)
    return adversary, announced, adversary.set_of(announced, [upload.survivor(i) for i, upload in uploads.items()])


def secrets_after(
    adversary: Adversary, announced: Announced, survivors: bytes, claims: dict[int, list[int]]
) -> dict[int, bytes]:
    """Every member's round secret that is known after telling each honest member which others failed, in order."""
    epoch = adversary.epoch(announced.plan.epoch)
    shares: dict[int, dict[int, bytes]] = {member: {} for member in epoch.members()}
    for member in adversary.corrupt:
        for lost in epoch.members():
            share = adversary.sheet(member, announced).share_of(lost)
            if share is not None:
                shares[lost][member] = share
    for helper, lost_ones in claims.items():
        for lost in lost_ones:
            share = adversary.ask_share(helper, announced, survivors, lost)
            if share is not None:
                shares[lost][helper] = share
    known = {member: adversary.sheet(member, announced).secret for member in adversary.corrupt}
    for lost, held in shares.items():
        secret = adversary.recovered(lost, held, announced)
        if secret is not None:
            known[lost] = secret
    return known


# Each of the three honest members is told that one of the two others failed, then asked for all the rest too.
CLAIMS = list(product([2, 3], [1, 3], [1, 2]))


@pytest.mark.parametrize("first", CLAIMS, ids=lambda claims: "-".join(map(str, claims)))
def test_at_the_bound_no_claims_of_failure_open_a_single_update(first: tuple[int, int, int]) -> None:
    adversary, announced, survivors = attacked(BOUND)
    honest = [1, 2, 3]
    for member in honest:
        assert adversary.ask_sum(member, announced, survivors)
    claims = {
        helper: [lost, *(other for other in range(1, MEMBERS + 1) if other not in (helper, lost))]
        for helper, lost in zip(honest, first, strict=True)
    }
    known = secrets_after(adversary, announced, survivors, claims)
    unopened = set(honest) - set(known)
    # Each helper spent its one recovery, so at most one honest member fell.
    assert len(unopened) >= len(honest) - 1
    for victim in adversary.uploads(announced):
        with pytest.raises(OpeningError):
            adversary.open_single(victim, known, announced)


def test_beyond_the_bound_two_halves_of_helpers_open_every_single_update() -> None:
    adversary, announced, survivors = attacked(BOUND + 1)
    for member in (1, 2):
        assert adversary.ask_sum(member, announced, survivors)
    known = secrets_after(adversary, announced, survivors, {1: [2], 2: [1]})
    assert set(known) == {1, 2, 3, 4, 5}
    for victim in adversary.uploads(announced):
        opened = adversary.open_single(victim, known, announced)
        expected = np.zeros(announced.plan.coords)
        expected[victim] = height(announced.plan.round) * 256
        assert np.array_equal(opened, expected)


def test_at_the_bound_different_sets_to_different_members_open_nothing() -> None:
    """With one honest member opened, the two others' sums over sets that differ in the victim do not cancel."""
    adversary, announced, survivors = attacked(BOUND)
    uploads = adversary.uploads(announced)
    victim = min(uploads)
    without = adversary.set_of(announced, [upload.survivor(i) for i, upload in uploads.items() if i != victim])
    assert adversary.ask_sum(1, announced, survivors)
    assert adversary.ask_sum(2, announced, survivors)
    other = adversary.ask_sum(3, announced, without)
    assert other
    # Nor is a helper that recorded the one set moved by a request about the other.
    assert adversary.ask_share(3, announced, survivors, 1) is None
    known = secrets_after(adversary, announced, survivors, {2: [1], 3: [1]})
    assert set(known) == {4, 5}
    sums = [adversary.ask_sum(member, announced, survivors) for member in (1, 2)]
    for entries in (list(uploads), [index for index in uploads if index != victim]):
        vector = adversary.vector(uploads[entries[0]].data, announced)
        for index in entries[1:]:
            add_into(vector, adversary.vector(uploads[index].data, announced))
        for answer in (*sums, other):
            assert answer
            subtract_from(vector, adversary.vector(answer.sum, announced))
        for member, secret in known.items():
            masks = adversary.masks(member, secret, announced, [uploads[index].survivor(index) for index in entries])
            subtract_from(vector, masks)
        with pytest.raises(OpeningError):
            adversary.open(vector, len(entries), announced)
