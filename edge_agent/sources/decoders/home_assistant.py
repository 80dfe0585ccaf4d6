"""Home Assistant's MQTT discovery: whole devices and single components, in long and abbreviated form.

Written after Home Assistant's documentation, "MQTT": "MQTT Discovery". ESPHome and many others announce themselves so.
An entity is read if its `value_template` only picks a value, as `{{ value_json.temperature }}` does; what computes is
named, and not read. Rounding, and defaults for what is missing, are for eyes: the value is read as it was sent.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from edge_agent.sources.decoders.decoder import Decoded, Message
from edge_agent.sources.payloads import (
    at,
    check_filter,
    escape,
    number_of,
    parse_json,
    plain_value,
    table_of,
    text_of,
    texts_of,
    values,
)
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.errors import MalformedError

MOST_ENTITIES = 2048
"""Of one broker; more are not read."""
OWN_ORIGIN = "hushfleet"
"""As agents announce what they decide."""
LONGEST_TEMPLATE = 256
"""Characters of a template that is looked at."""

_LONG_NAMES = {
    "cmps": "components",
    "dev": "device",
    "dev_cla": "device_class",
    "o": "origin",
    "ops": "options",
    "p": "platform",
    "pl_off": "payload_off",
    "pl_on": "payload_on",
    "stat_off": "state_off",
    "stat_on": "state_on",
    "stat_t": "state_topic",
    "unit_of_meas": "unit_of_measurement",
    "val_tpl": "value_template",
}
_TEMPLATE = re.compile(
    r"\{\{-?\s*value(?:_json(?P<picks>[^\s|{}]*))?\s*"
    r"(?:\|\s*(?:is_defined|(?:float|int|round|default)(?:\(\s*[\w.+='\"-]*\s*\))?)\s*)*-?\}\}",
    re.ASCII,
)
_PICK = re.compile(r"""\.([A-Za-z_]\w*)|\['([^'\\]*)'\]|\["([^"\\]*)"\]|\[(\d{1,4})\]""", re.ASCII)
_TWO_STATES = ("binary_sensor", "fan", "siren", "switch")
_ONE_STATE = (*_TWO_STATES, "cover", "lock", "number", "select", "sensor", "text", "valve")
_NO_STATE = ("None", "unknown", "unavailable")


@dataclass(frozen=True, slots=True)
class _Entity:
    """Where an entity's state is found."""

    topic: str
    pointer: str

    @property
    def address(self) -> str:
        return f"{self.topic}#{self.pointer}"


class HomeAssistant:
    """Decodes discovery messages, and the states of the entities that they announce.

    Args:
        prefix: the discovery prefix, `homeassistant` unless it is set to another.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._announced: dict[str, tuple[_Entity, ...]] = {}
        self._states: dict[str, Counter[_Entity]] = {}

    @property
    def filters(self) -> frozenset[str]:
        """See `Decoder`; the state topics of what was announced are among them."""
        return frozenset({f"{self._prefix}/+/+/config", f"{self._prefix}/+/+/+/config", *self._states})

    def covers(self, topic: str) -> bool:
        """See `Decoder`."""
        return topic in self._states or self._is_announcement(topic)

    def decode(self, message: Message) -> Decoded:
        """See `Decoder`."""
        return self._announce(message) if self._is_announcement(message.topic) else self._state(message)

    def _is_announcement(self, topic: str) -> bool:
        levels = topic.removeprefix(f"{self._prefix}/").split("/")
        return topic.startswith(f"{self._prefix}/") and levels[-1] == "config" and len(levels) in (3, 4)

    def _announce(self, message: Message) -> Decoded:
        self._forget(message.topic)
        if not message.payload:
            return Decoded()
        announced = parse_json(message.payload)
        if not isinstance(announced, dict):
            raise MalformedError("a discovery message that is no JSON object")
        if table_of(_long(announced).get("origin")).get("name") == OWN_ORIGIN:
            # A model's scores are not to be what it learns from.
            return Decoded()
        platform = message.topic.removeprefix(f"{self._prefix}/").split("/")[0]
        others = sum(map(len, self._announced.values()))
        entities: list[_Entity] = []
        quantities: list[Quantity] = []
        refused: list[str] = []
        for component in _components(platform, _long(announced)):
            try:
                read = _read(component)
                if read is None:
                    continue
                entity, quantity = read
                if entity is not None and others + len(entities) >= MOST_ENTITIES:
                    raise MalformedError(f"more than {MOST_ENTITIES} entities")
            except MalformedError as error:
                refused.append(str(error))
                continue
            quantities.append(quantity)
            if entity is not None:
                entities.append(entity)
        if entities:
            self._announced[message.topic] = tuple(entities)
        for entity in entities:
            self._states.setdefault(entity.topic, Counter())[entity] += 1
        return Decoded((), quantities, refused)

    def _forget(self, topic: str) -> None:
        """An entity may move from one announcement to another; it goes with the last one."""
        for entity in self._announced.pop(topic, ()):
            announced = self._states[entity.topic]
            announced[entity] -= 1
            if not +announced:
                del self._states[entity.topic]
            elif not announced[entity]:
                del announced[entity]

    def _state(self, message: Message) -> Decoded:
        if message.retained:
            return Decoded()
        entities = self._states[message.topic]
        document = parse_json(message.payload) if any(entity.pointer for entity in entities) else None
        readings: list[Reading] = []
        refused: list[str] = []
        for entity in entities:
            part = at(document, entity.pointer) if entity.pointer else plain_value(message.payload)
            found, dropped = values([(entity.pointer, part)])
            refused += dropped
            for _, value in found:
                if value not in _NO_STATE:
                    readings.append(Reading(entity.address, message.time, value))
        return Decoded(readings, (), refused)


def _long(table: dict[str, Any]) -> dict[str, Any]:
    return {_LONG_NAMES.get(key, key): value for key, value in table.items()}


def _components(platform: str, announced: dict[str, Any]) -> list[dict[str, Any]]:
    """The components of a discovery message, each with what all of its device share; a bare platform removes one."""
    if platform != "device":
        return [{"platform": platform, **announced}]
    shared: dict[str, Any] = {key: announced[key] for key in ("~", "state_topic", "device") if key in announced}
    parts = map(table_of, table_of(announced.get("components")).values())
    return [{**shared, **_long(part)} for part in parts if len(part) > 1]


def _read(component: dict[str, Any]) -> tuple[_Entity | None, Quantity] | None:
    """An entity and its quantity; None for what has no state, no entity for a state that is not understood."""
    platform, topic = text_of(component.get("platform")) or "", text_of(component.get("state_topic"))
    if topic is None or platform not in _ONE_STATE:
        return None
    base = text_of(component.get("~")) or ""
    if topic.startswith("~"):
        topic = base + topic[1:]
    elif topic.endswith("~"):
        topic = topic[:-1] + base
    if check_filter(topic) is not None or "+" in topic or "#" in topic or topic.startswith("$"):
        raise MalformedError("a state topic that is none")
    own = text_of(component.get("name")) or (text_of(component.get("device_class")) or "").replace("_", " ")
    names = (text_of(table_of(component.get("device")).get("name")), own)
    about = " ".join(filter(None, names)) or platform
    pointer = _pointer(text_of(component.get("value_template")) or "{{ value }}")
    if pointer is None:
        why = f"{about}: its value_template computes, which is not understood"
        return None, Quantity(f"{topic}# ({about[:40]})", about=why, readable=False)
    taken = _texts(platform, component)
    entity = _Entity(topic, pointer)
    unit = text_of(component.get("unit_of_measurement"))
    low, high = (number_of(component.get(key)) if platform == "number" else None for key in ("min", "max"))
    return entity, Quantity(entity.address, unit, low, high, taken, about)


def _texts(platform: str, component: dict[str, Any]) -> tuple[str, ...]:
    if platform in _TWO_STATES:
        ends = (("state_off", "payload_off", "OFF"), ("state_on", "payload_on", "ON"))
        return texts_of([component.get(state, component.get(payload, usual)) for state, payload, usual in ends])
    return texts_of(component.get("options"))


def _pointer(template: str) -> str | None:
    """The JSON pointer of the value that a template picks; None for a template that does anything else."""
    found = _TEMPLATE.fullmatch(template.strip()) if len(template) <= LONGEST_TEMPLATE else None
    picks = (found["picks"] or "") if found else None
    if picks is None or _PICK.sub("", picks):
        return None
    return "".join(f"/{escape(''.join(filter(None, groups)))}" for groups in _PICK.findall(picks))
