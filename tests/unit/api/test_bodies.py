"""Decoding request bodies strictly."""

import asyncio
import json

import pytest
from fastapi import Request
from starlette.types import Message

from service.api.bodies import decode_json, decode_yaml, read_document, storable_faults
from service.errors import InvalidRequest
from service.spec.yaml_document import MAX_DEPTH


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[Infinity]", b'"\xff"', b'"\\ud800"', b"{} x", b"[" * 5000, b"{'a': 1}"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        decode_json(text)


def test_json_is_decoded() -> None:
    assert decode_json('{"a": [1, 2.5, null, true, "é\\u00e9"]}'.encode()) == {"a": [1, 2.5, None, True, "éé"]}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"a": {"b/c~d": "x\0"}}, "/a/b~1c~0d"),
        ({"a": [1, float("inf")]}, "/a/1"),
        ({"a": 2**63}, "/a"),
        ({"a": -(2**63) - 1}, "/a"),
        ({"a\0": 1}, ""),
        ({1: "x"}, ""),
        ({"a": b"x"}, "/a"),
        ("\ud800", ""),
    ],
)
def test_what_could_not_be_stored_is_told_with_its_place(document: object, pointer: str) -> None:
    assert [fault.pointer for fault in storable_faults(document)] == [pointer]


def test_what_can_be_stored_has_no_fault() -> None:
    assert storable_faults({"a": [1, -(2**63), 2**63 - 1, 1.5, None, True, "é\U0001f600"], "": {}}) == []


def test_nesting_has_a_limit() -> None:
    document: object = "x"
    for _ in range(MAX_DEPTH):
        document = [document]
    assert storable_faults(document) == []
    assert len(storable_faults([document])) == 1


def test_yaml_is_decoded_like_json() -> None:
    assert decode_yaml(b"a: [1, 2.5, null, true, text]\nb: {c: 1e-3}") == {"a": [1, 2.5, None, True, "text"], "b": {"c": 0.001}}


@pytest.mark.parametrize(
    "text", [b"a: &x 1\nb: *x", b"{" * 5000, b"a: b: c", b"!!python/object:os.system {}", b"\xff", b"--- 1\n--- 2"]
)
def test_yaml_that_is_damaged_or_would_grow_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_yaml(text)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/yaml", b"[" + b"{}," * 40_000 + b"]"),
        ("application/json", b"[" + b"{}," * 40_000 + b"0]"),
        ("application/json", b"{" + b",".join(b'"%d":0' % number for number in range(20_000)) + b"}"),
    ],
)
def test_others_have_their_turn_while_a_large_body_is_decoded(content_type: str, body: bytes) -> None:
    async def turns() -> int:
        arrived = False

        async def receive() -> Message:
            nonlocal arrived
            arrived = True
            return {"type": "http.request", "body": body}

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
        reading = asyncio.create_task(read_document(Request(scope, receive)))
        found = 0
        while not reading.done():
            await asyncio.sleep(0)
            found += arrived
        await reading
        return found

    assert asyncio.run(turns()) > 3
