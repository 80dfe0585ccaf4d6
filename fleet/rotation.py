"""A fleet's documents over time: new keys under a new root, and new dates (docs/protocol.md, section 2).

A rotation begins when its root is written and ends when the manifest under that root is in force and the old keys lie
in `keys/retired`. Wherever it dies, the desk is either as before, or the next signature finishes it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fleet import transport
from fleet.composition import DAY, Composition, clock_behind, date_line, day, expiry_warnings
from fleet.desk import ROOT_DAYS, Desk
from fleet.owner import KeySet, Owner
from hushfleet.actions import Draw
from hushfleet.errors import ConfigurationError
from hushfleet.wire.documents import Manifest, Root
from hushfleet.wire.framing import Frame


def rotate(
    desk: Desk, renewed: Mapping[str, tuple[int, int] | None], *, draw: Draw, now: int
) -> tuple[Composition, list[Path]]:
    """Make new keys for some roles; sign the next root with the old and the new ones, and everything else anew.

    Args:
        renewed: `root`, `signer` or `fresh`, to the new (number of keys, threshold); None for as many as before.

    Returns:
        What was signed, and where the old keys are now.

    Raises:
        ConfigurationError: the fleet is not signed yet, an earlier rotation is unfinished, too few root keys are at
            hand, or as `Desk.sign`; nothing was changed.
    """
    root = desk.newest_root()
    _check_finished(desk, root)
    owner = desk.keyring.owner(root)
    key_sets = {
        role: KeySet.draw(draw, *(numbers or (len(root.roles()[role][0]), root.roles()[role][1])))
        for role, numbers in renewed.items()
    }
    frame = owner.sign_next_root(root, key_sets, issued=now, not_after=now + ROOT_DAYS * DAY)
    successor = Root.from_body(frame.body)
    new_owner = Owner(root.fleet, **(owner.key_sets() | key_sets))
    composition, certificates = desk.compose(new_owner, successor, draw=draw, now=now)

    desk.keyring.settle(root)
    desk.keyring.stage(key_sets)
    transport.write_file(desk.documents / f"root.{successor.version}", frame.to_bytes(), 0o644)
    desk.put_in_force(composition, certificates)
    gone = desk.keyring.settle(successor)
    change = f"root: version {successor.version}, valid until {day(successor.not_after)}"
    return replace(composition, changes=(change, *composition.changes)), gone


def redate(desk: Desk, *, days: int | None, now: int) -> Composition:
    """Give the manifest in force a new date, with the freshness key alone.

    Args:
        days: how long it shall last from now; None for as long as fleet.toml says.

    Returns:
        The date alone.

    Raises:
        ConfigurationError: there is no manifest under the newest root, it lasts longer already, or the clock is wrong.
    """
    root = desk.newest_root()
    frame, manifest = _check_finished(desk, root)
    if now < manifest.issued:
        raise clock_behind(manifest, now)
    not_after = now + (days or desk.settings().validity.manifest) * DAY
    date = desk.date()
    dated = date.not_after if date and date.manifest == frame.hash(manifest.fleet) else 0
    lasts = max(manifest.not_after, dated)
    if not_after <= lasts:
        raise ConfigurationError(f"the documents last until {day(lasts)} already; name more days with --days")
    new = desk.keyring.owner(root).sign_date(frame, issued=now, not_after=not_after)
    transport.write_file(desk.documents / "date", new.to_bytes(), 0o644)
    return Composition({"date": new}, (date_line(not_after),), tuple(expiry_warnings(root, not_after, now)))


def _check_finished(desk: Desk, root: Root) -> tuple[Frame, Manifest]:
    """The manifest under the newest root."""
    found = desk.manifest()
    if found is None:
        raise ConfigurationError(f"nothing is signed yet; run: hushfleet fleet sign {desk.directory}")
    if found[1].root != root.version:
        raise ConfigurationError(
            f"the rotation to root {root.version} was interrupted; finish it: hushfleet fleet sign {desk.directory}"
        )
    return found
