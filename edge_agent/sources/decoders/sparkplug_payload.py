"""The part of a Sparkplug B payload that a listener reads, as protocol buffers; needs the extra [sparkplug].

Names, numbers and types of the fields are those of the Sparkplug 3.0 specification, section 6.4. What is not named
here, such as templates and data sets, is passed over by the parser.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from hushfleet.errors import MalformedError

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "hushfleet.sparkplug"
_VALUE = (
    ("int_value", _Field.TYPE_UINT32),
    ("long_value", _Field.TYPE_UINT64),
    ("float_value", _Field.TYPE_FLOAT),
    ("double_value", _Field.TYPE_DOUBLE),
    ("boolean_value", _Field.TYPE_BOOL),
    ("string_value", _Field.TYPE_STRING),
)
_MESSAGES: dict[str, list[tuple[str, int, int | str, bool]]] = {
    # name, number, type or message, repeated
    "PropertyValue": [(name, number, kind, False) for number, (name, kind) in enumerate(_VALUE, start=3)],
    "PropertySet": [("keys", 1, _Field.TYPE_STRING, True), ("values", 2, "PropertyValue", True)],
    "Metric": [
        ("name", 1, _Field.TYPE_STRING, False),
        ("alias", 2, _Field.TYPE_UINT64, False),
        ("timestamp", 3, _Field.TYPE_UINT64, False),
        ("datatype", 4, _Field.TYPE_UINT32, False),
        ("is_null", 7, _Field.TYPE_BOOL, False),
        ("properties", 9, "PropertySet", False),
        *((name, number, kind, False) for number, (name, kind) in enumerate(_VALUE, start=10)),
    ],
    "Payload": [
        ("timestamp", 1, _Field.TYPE_UINT64, False),
        ("metrics", 2, "Metric", True),
        ("seq", 3, _Field.TYPE_UINT64, False),
    ],
}


def _payload_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    for title, columns in _MESSAGES.items():
        message = file.message_type.add(name=title)
        for name, number, kind, repeated in columns:
            field = message.field.add(name=name, number=number)
            field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = kind  # type: ignore[assignment]  # a number of the enumeration
    # A pool of its own: another program's Sparkplug messages do not meet these.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


_Payload = _payload_class()


def parse_payload(payload: bytes) -> Any:
    """A payload with `timestamp`, `seq` and `metrics`; a metric has the fields named above.

    Raises:
        MalformedError: it is no Sparkplug B payload.
    """
    parsed = _Payload()
    try:
        parsed.ParseFromString(payload)
    except (DecodeError, UnicodeDecodeError):
        raise MalformedError("a payload that is not Sparkplug B") from None
    return parsed
