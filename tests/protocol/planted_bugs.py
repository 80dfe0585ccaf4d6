"""Bugs that a simulator worth its name must find: each a line of the project, and what it reads instead.

They are planted into the source as it is imported, in a process of their own; a line that is gone is noticed.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Bug:
    """A planted bug.

    Attributes:
        module: dotted name.
        right, wrong: the text there, and what is put in its place.
        seed: of the swarm, which finds it.
        only: the fleets in which alone it shows: those with `statistics` rounds or `rollbacks`, or empty.
    """

    module: str
    right: str
    wrong: str
    seed: int = 0
    only: str = ""


BUGS: dict[str, Bug] = {
    "upload-counted-again": Bug(
        "coordinator.uploads",
        "if device in self.accepted or chunk in self._chunks[device]:",
        "if chunk in self._chunks[device] and device not in self.accepted:",
        seed=2,
    ),
    "sum-not-checkpointed": Bug(
        "coordinator.uploads", '            Save(SUM, b"".join((self.total.body.data, self.total.tail.data))),\n', ""
    ),
    "accepted-not-saved": Bug(
        "coordinator.uploads",
        "record = _Record(Frame(Header.KIND, header.to_body()).to_bytes(), 1)",
        "record = _Record(Frame(Header.KIND, header.to_body()).to_bytes(), 0)",
    ),
    "second-survivor-set": Bug(
        "coordinator.round",
        "        if self._open.set:\n",
        "        if self._open.set and not self._uploads.accepted.pop(min(self._uploads.accepted), None):\n",
        seed=4,
    ),
    "late-upload-added": Bug(
        "coordinator.round",
        "self._open is not None and not self._open.set and now",
        "self._open is not None and now",
        seed=1,
    ),
    "round-number-not-saved": Bug("coordinator.round", '            Save(LAST, number.to_bytes(8, "little")),\n', ""),
    "open-round-forgotten": Bug(
        "coordinator.round",
        "            Save(OPEN, self._open.to_body()),\n            Save(LAST",
        "            Save(LAST",
    ),
    "one-device-opened": Bug(
        "edge_agent.member",
        "if not policy.smallest_survivor_set <= len(entries) <= policy.largest_survivor_set:",
        "if len(entries) > policy.largest_survivor_set:",
        seed=20,
    ),
    "wrong-device-named": Bug(
        "coordinator.round",
        "bitmap(included),",
        "bitmap([index + 1 for index in included]),",
    ),
    "mask-sum-subtracted-twice": Bug(
        "coordinator.opening",
        "        if member in self._answered:\n            if",
        "        if False:\n            if",
        seed=2,
    ),
    "threshold-one-too-high": Bug(
        "coordinator.epochs",
        "return len(self.points) - self.transcript.f",
        "return len(self.points) - self.transcript.f + 1",
    ),
    "epoch-round-off-by-one": Bug(
        "coordinator.epochs",
        "return round_points(self.points, self.threshold, self.transcript.round_index(round_number))",
        "return round_points(self.points, self.threshold, (self.transcript.round_index(round_number) + 1)"
        " % self.transcript.rounds)",
    ),
    "upload-forgotten": Bug("edge_agent.participant", "            Save(STATE, self._state.to_body()),\n", "", seed=4),
    "masks-of-another-lane": Bug(
        "hushfleet.secagg.masks",
        "    _add_lane(vector.tail, seed, TAIL)",
        "    _add_lane(vector.tail, seed, BODY if vector.tail[-1] % 2 else TAIL)",
    ),
    "mask-seed-without-round": Bug(
        "edge_agent.participant",
        "masks = MaskContext(context.fleet, verified.hash, plan.round)",
        "masks = MaskContext(context.fleet, verified.hash, plan.round + 1)",
    ),
    "answer-not-recorded": Bug(
        "edge_agent.member", "        return [Save(ANSWER, answer.to_body())]", "        return []"
    ),
    "second-set-answered": Bug(
        "edge_agent.member",
        "        if self._answer is not None and self._answer.round >= plan.round:",
        "        if self._answer is not None and self._answer.round > plan.round:",
        seed=1,
    ),
    "recoveries-not-counted": Bug(
        "edge_agent.member",
        "if len(recovered) >= verified.transcript.f:",
        "if len(recovered) > verified.transcript.f:",
        seed=1,
    ),
    "recoveries-not-persisted": Bug(
        "edge_agent.member",
        "            actions = self._record(replace(answer, recovered=pack_indices([*recovered, request.lost])))",
        "            self._answer = replace(answer, recovered=pack_indices([*recovered, request.lost]))",
    ),
    "secrets-outlive-the-round": Bug(
        "edge_agent.member",
        "        actions = self._sheets.erase_rounds(upto)",
        "        actions = self._sheets.erase_rounds(upto - 1)",
    ),
    "secrets-of-another-round": Bug(
        "edge_agent.sheets",
        "                _key(call.epoch, call.first + k),",
        "                _key(call.epoch, call.first + (k + 1) % call.rounds),",
    ),
    "card-not-saved": Bug(
        "edge_agent.dealer",
        "            *self._sheets.save(call.epoch, attempt),\n            *(Subscribe",
        "            *(Subscribe",
    ),
    "key-not-saved": Bug(
        "edge_agent.dealer",
        "        actions = self._sheets.save(call.epoch, attempt)\n",
        "        actions: list[Action] = []\n        self._sheets.save(call.epoch, attempt)\n",
        seed=2,
    ),
    "retained-not-republished": Bug(
        "coordinator.conductor",
        "[*retained(store), *self.advance(now)]",
        "[*self.advance(now)]",
        seed=3,
    ),
    "mask-sum-answered-without-its-record": Bug(
        "edge_agent.member",
        '        return [*self._record(record), *context.up("masksum", plan.round, sealed), note]',
        '        return [*context.up("masksum", plan.round, sealed), *self._record(replace(record, sum=b"")), note]',
    ),
    "set-asked-before-it-is-saved": Bug(
        "coordinator.round",
        "            Save(OPEN, self._open.to_body()),\n            *self._opening.ask(epoch.members()),",
        "            *self._opening.ask(epoch.members()),",
    ),
    "replay-check-skipped": Bug(
        "edge_agent.device",
        "        if plan.round < self.seen.round or (plan.round == self.seen.round and plan_hash != self.seen.plan):",
        "        if plan.round == self.seen.round and plan_hash != self.seen.plan:",
        seed=13,
    ),
    "receipt-for-another-upload": Bug(
        "coordinator.uploads",
        "        if held is not None and held.upload_hash() == header.upload_hash():",
        "        if held is not None:",
        seed=84,
    ),
    "second-upload-after-a-crash": Bug(
        "edge_agent.participant",
        "plan.closes <= now or plan.round <= self._state.answered:",
        "plan.closes <= now or plan.round < self._state.answered:",
        seed=4,
    ),
    "mask-lanes-swapped": Bug(
        "hushfleet.secagg.masks",
        "        add_keystream(vector, context.seed(shared, participant, member, key.point, s_point))",
        "        _add_lane(vector.body, context.seed(shared, participant, member, key.point, s_point), TAIL)\n"
        "        _add_lane(vector.tail, context.seed(shared, participant, member, key.point, s_point), BODY)",
    ),
    "threshold-one-too-low": Bug(
        "coordinator.epochs",
        "return len(self.points) - self.transcript.f",
        "return len(self.points) - self.transcript.f - 1",
    ),
    "answers-not-erased": Bug(
        "edge_agent.member",
        "        if self._answer is None or self._answer.round > upto or not self._answer.sum:",
        "        if self._answer is None or self._answer.round >= upto or not self._answer.sum:",
    ),
    "sealing-keys-kept": Bug(
        "edge_agent.dealer",
        'replace(attempt, others=b"", secrets=b"", own=b"", ready=ready)',
        'replace(attempt, own=b"", ready=ready)',
    ),
    "checksum-not-checked": Bug(
        "hushfleet.codec",
        "    if expected != tail[Lane.CHECKSUM] % (1 << 64):",
        "    if False:",
    ),
    "blame-of-a-member-that-is-right": Bug(
        "coordinator.opening",
        "        if answer == truth and len(frames) == 1:",
        "        if len(frames) == 0:",
    ),
    "complaint-judged-the-wrong-way": Bug(
        "hushfleet.ceremony",
        "    except WrongBoxError:\n        return dealer\n    return member",
        "    except WrongBoxError:\n        return member\n    return dealer",
        seed=6,
    ),
    "pause-of-a-clock-set-back": Bug(
        "coordinator.setup",
        "if 0 < pause <= LONGEST_PAUSE or not",
        "if 0 < pause or not",
        seed=42,
    ),
    "description-not-recorded": Bug(
        "edge_agent.statistics",
        "        return vector, [Save(RECORD, self._last.to_body())]",
        "        return vector, []",
        seed=29,
        only="statistics",
    ),
    "described-again-from-a-copy": Bug(
        "edge_agent.restoration", "self.at is not None and time < self.at + DAY", "False", seed=79, only="statistics"
    ),
    "described-again-after-a-rollback": Bug("edge_agent.bases", "[-LONGEST:]", "[-1:]", seed=29, only="statistics"),
    "opened-sums-not-named": Bug(
        "coordinator.round",
        "self._end(APPLIED, NO_REASON, now, delta_hash=sums_hash)",
        "self._end(APPLIED, NO_REASON, now, delta_hash=self._plan_hash)",
        seed=9,
        only="statistics",
    ),
    "opened-sums-not-kept": Bug(
        "coordinator.statistics",
        '            Save(f"{OPENED}{plan.round:020}", self.newest.to_body()),\n',
        "",
        seed=9,
        only="statistics",
    ),
    "sums-kept-over-a-rollback": Bug(
        "edge_agent.opened_sums",
        "        if self._kept and self._is_left(self._kept):",
        "        if False:",
        seed=29,
        only="statistics",
    ),
    "other-sums-taken": Bug(
        "edge_agent.opened_sums",
        "        if frame.hash(context.fleet) != named.delta:",
        "        if False:",
        seed=239,
        only="statistics",
    ),
    "rollback-without-its-number": Bug(
        "coordinator.round",
        '            Save(LAST, self.last.to_bytes(8, "little")),\n            *self.models.publish_result(result),\n',
        "            *self.models.publish_result(result),\n",
        seed=69,
        only="rollbacks",
    ),
}


class _BuggyLoader(importlib.machinery.SourceFileLoader):
    """Compiles one module with its bug, and keeps nothing of it."""

    def __init__(self, bug: Bug) -> None:
        super().__init__(bug.module, str(ROOT / (bug.module.replace(".", "/") + ".py")))
        self._bug = bug

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text()
        if source.count(self._bug.right) != 1:
            raise LookupError(f"{self._bug.module} does not hold just once: {self._bug.right!r}")
        return compile(source.replace(self._bug.right, self._bug.wrong), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._bug.module:
            return None
        loader = _BuggyLoader(self._bug)
        return spec_from_file_location(fullname, loader.path, loader=loader)


def plant(bug: Bug) -> None:
    """From now on this process imports the module with its bug."""
    assert bug.module not in sys.modules, f"{bug.module} is imported already"
    sys.meta_path.insert(0, _Finder(bug))
