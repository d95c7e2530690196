"""Our slice of the protocol is Envoy's: every message, field, number and type, as envoy-data-plane has them."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from enum import IntEnum
from typing import Any

import betterproto2
import pytest
from envoy_data_plane.envoy.service.ext_proc import v3 as envoy
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from extproc.wire.ext_proc_pb2 import DESCRIPTOR

TYPES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
    FieldDescriptor.TYPE_STRING: "string",
}


def related() -> dict[str, tuple[Descriptor, type[Any]]]:
    """Every message of ours and Envoy's counterpart, found by following the fields of the two top messages."""
    found: dict[str, tuple[Descriptor, type[Any]]] = {}

    def follow(ours: Descriptor, theirs: type[Any]) -> None:
        key = f"{ours.name} as {theirs.__name__}"
        if key not in found:
            found[key] = (ours, theirs)
            for field in ours.fields:
                message: Any = (entry(field)["value"] if is_map(field) else field).message_type
                if message is not None:
                    follow(message, their_class(theirs, field.name))

    for top in (envoy.ProcessingRequest, envoy.ProcessingResponse):
        follow(DESCRIPTOR.message_types_by_name[top.__name__], top)
    return found


def is_map(field: FieldDescriptor) -> bool:
    """Tell whether a field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def entry(field: FieldDescriptor) -> dict[str, FieldDescriptor]:
    """Return the key and the value of a map."""
    assert field.message_type is not None
    return {name: field.message_type.fields_by_name[name] for name in ("key", "value")}


def their_class(owner: type[Any], name: str) -> type[Any]:
    """Return the message or enum class of a field: of a map its values', of a list its elements'."""
    hint = typing.get_type_hints(owner, vars(sys.modules[owner.__module__]))[name]
    while arguments := typing.get_args(hint):
        hint = arguments[0] if isinstance(hint, types.UnionType) else arguments[-1]
    assert isinstance(hint, type)
    return hint


def their_fields(message: type[Any]) -> dict[str, betterproto2.FieldMetadata]:
    """Return Envoy's fields by name."""
    return {field.name: betterproto2.FieldMetadata.get(field) for field in dataclasses.fields(message)}


RELATED = related()


@pytest.mark.parametrize(
    ("field", "theirs"),
    [
        pytest.param(field, theirs, id=f"{key}.{field.name}")
        for key, (ours, theirs) in RELATED.items()
        for field in ours.fields
    ],
)
def test_field(field: FieldDescriptor, theirs: type[Any]) -> None:
    """A field has Envoy's name, number and type, and stands in the same oneof."""
    their = their_fields(theirs)[field.name]
    assert their.number == field.number
    assert bool(their.repeated) == (field.is_repeated and not is_map(field))
    oneof = field.containing_oneof
    assert their.group == (oneof.name if oneof is not None else None)
    if not is_map(field):
        assert their.proto_type == TYPES[field.type]
        return
    assert their.proto_type == "map"
    assert their.map_meta is not None
    assert [part.proto_type for part in their.map_meta] == [TYPES[part.type] for part in entry(field).values()]


@pytest.mark.parametrize(
    ("enum", "theirs"),
    [
        pytest.param(field.enum_type, their_class(theirs, field.name), id=f"{key}.{field.name}")
        for key, (ours, theirs) in RELATED.items()
        for field in ours.fields
        if field.enum_type is not None
    ],
)
def test_enum(enum: EnumDescriptor, theirs: type[IntEnum]) -> None:
    """Each value of an enum means what it means to Envoy."""
    known = {value.value: str(value.name) for value in theirs}
    assert {value.number: known.get(value.number) for value in enum.values} == {
        value.number: value.name for value in enum.values
    }


def test_every_message_is_compared() -> None:
    """No message of ours goes without a counterpart."""
    compared = {ours.full_name for ours, _ in RELATED.values()}
    assert {message.full_name for message in DESCRIPTOR.message_types_by_name.values()} <= compared


def test_an_empty_reply_stands_for_envoys() -> None:
    """`Unchanged` has no fields, so it is whatever reply its phase asks for, with nothing set."""
    counterparts = {theirs.__name__ for ours, theirs in RELATED.values() if ours.name == "Unchanged"}
    assert counterparts == {"HeadersResponse", "BodyResponse", "TrailersResponse"}
