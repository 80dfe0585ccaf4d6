"""`hushfleet demo watch`: ten people's smartwatch recordings, a model judged on two people whom it never saw.

Eight people's agents train; the two others' follow the model and score it on their own people. The committee are those
two and three participants. On the way one participant is killed while its upload is under way, and one member when a
plan appears.
"""

from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

from hushfleet_demo.comparison import Split
from hushfleet_demo.federation import Course, Federation, Part, Plan
from hushfleet_demo.outcome import Words
from hushfleet_demo.slow_link import SlowLink
from hushfleet_demo.task import Flat
from hushfleet_demo.watch_data import Person, load_people
from hushfleet_demo.watch_splits import own, run_splits, without_federation
from hushfleet_demo.watch_task import TASK

UNSEEN = (3, 10)
"""The people whom the model never sees, by their number: of all 45 choices the one closest to the mean of all."""
MEMBER_PARTICIPANTS = 3
DROPPED_AT, DROPPED_FOR = 8, 3
"""The round in which a participant is killed, and for how many rounds it stays away."""
SLOW = 200.0
"""Bytes a second that leave it in that round: an upload would take some four seconds."""
LOST_AT = 20
"""The round in which a member is killed."""


class Watch:
    """The example: an `Example`."""

    words = Words(
        name="watch",
        agents="ten agents",
        choices="choices of two unseen people",
        score="accuracy on unseen people",
        title="Accuracy on the two people whom the model never saw",
        measure="accuracy",
        new="accuracy on two unseen people",
        alone="a person's own model",
        mean="choices of two",
        epilogue=f"The unseen are people {' and '.join(map(str, UNSEEN))}: one choice of 45, taken because it lies "
        "closest to the mean of all.",
        more_is_better=True,
    )
    task = TASK
    fewest_rounds = 24

    def __init__(self) -> None:
        self._people = load_people()
        self.choices = comb(len(self._people), 2)

    def federation(self, directory: Path, rounds: int, changed: Callable[[Course], None]) -> Federation:
        """The fleet and the two accidents that befall it."""
        training, unseen = self._sides()
        members, plain = training[:MEMBER_PARTICIPANTS], training[MEMBER_PARTICIPANTS:]
        victim, lost = _device(plain[-1]), _device(members[0])
        parts = (
            *(Part(_device(person), "member", None, person.rows, judge=True) for person in unseen),
            *(Part(_device(person), "both", person.rows) for person in members),
            # Neither members nor killed on the way: theirs is the traffic of a participant.
            *(Part(_device(one), "participant", one.rows, measured=_device(one) != victim) for one in plain),
        )
        plan = Plan("watch-demo", "shoulder-exercises", TASK, parts, {"epoch_rounds": 16})
        return WatchFederation(directory, plan, rounds, changed, victim, lost)

    def without_federation(self) -> tuple[float, float]:
        """Accuracy on the unseen people: of the others' own models on average, and of all rows pooled."""
        training, unseen = self._sides()
        return without_federation(own(training), training, unseen)

    def finding(self, model: Flat, course: Course) -> None:
        """Nothing beside the accuracy."""

    def splits(self, count: int, each: Callable[[Split], None]) -> list[Split]:
        """The first `count` choices of two unseen people."""
        return run_splits(self._people, count, each)

    def _sides(self) -> tuple[list[Person], list[Person]]:
        unseen = [person for person in self._people if person.number in UNSEEN]
        return [person for person in self._people if person.number not in UNSEEN], unseen


def _device(person: Person) -> str:
    return f"watch-{person.number}"


class WatchFederation(Federation):
    """The demo's fleet and the two accidents that befall it.

    Args:
        victim: the participant that is killed while its upload is under way.
        lost: the committee member that is killed when a plan appears.
    """

    def __init__(
        self,
        directory: Path,
        plan: Plan,
        rounds: int,
        changed: Callable[[Course], None],
        victim: str,
        lost: str,
    ) -> None:
        super().__init__(directory, plan, rounds, changed)
        self._victim, self._lost_member = victim, lost
        self._line = SlowLink(self.local.port)
        self._under_attack = 0
        self._member_killed = False

    def port_of(self, name: str) -> int:
        """The victim's line can be cut."""
        return self._line.port if name == self._victim else super().port_of(name)

    def run(self) -> None:
        """Run every round; as `Federation.run`."""
        try:
            super().run()
        finally:
            self._line.close()

    def on_uploading(self, name: str, number: int) -> None:
        """The victim's line is so slow that only the beginning of the upload has left when it is cut."""
        if name == self._victim and number >= DROPPED_AT and not self._under_attack:
            self._under_attack = number
            self._line.cut()
            self.local.processes[name].kill()
            self.course.remarks.append(f"round {number}: {name} killed while its upload was under way")

    def on_coordinator(self, what: str, event: dict[str, Any]) -> None:
        """Let the accidents happen when their time has come."""
        super().on_coordinator(what, event)
        if what == "plan" and event["round"] >= LOST_AT and not self._member_killed:
            self.local.processes[self._lost_member].kill()
            self._member_killed = True
            self.course.remarks.append(f"round {event['round']}: committee member {self._lost_member} killed")
        elif what == "round":
            self._on_round(event["round"], event["recovered"])

    def _on_round(self, number: int, recovered: list[int]) -> None:
        course = self.course
        if number == DROPPED_AT - 1:
            self._line.rate = SLOW
        if recovered:
            course.remarks.append(f"round {number}: its masks recovered by the other members")
            self.again(self._lost_member)
        if self._under_attack == number:
            course.dropped.append(number)
            course.remarks.append(f"round {number}: its upload was incomplete; nothing of it is in the sum")
        if course.dropped and number == course.dropped[0] + DROPPED_FOR:
            self._line.rate = None
            course.remarks.append(f"round {number}: {self._victim} comes back")
            self.again(self._victim)
