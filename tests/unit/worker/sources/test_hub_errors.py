"""What is told of the Hub's errors: no address in it permits anything."""

import httpx2
import pytest
from huggingface_hub.utils._http import hf_raise_for_status

from worker.sources.errors import HubAway
from worker.sources.hub import as_told


def signed(status: int) -> Exception:
    request = httpx2.Request("GET", "https://cdn.example/model.safetensors?X-Amz-Signature=CANARY&e=1")
    try:
        hf_raise_for_status(httpx2.Response(status, request=request))
    except Exception as error:  # noqa: BLE001 - whichever the library has for it
        return error
    raise AssertionError("it raises")


@pytest.mark.parametrize(
    "error",
    [
        signed(503),
        signed(429),
        ConnectionError("HTTPSConnectionPool(host='cdn.example', port=443): url: /x?Signature=CANARY (Caused by timeout)"),
        httpx2.ConnectError("no route to https://ana:CANARY@mirror.example/anna/x"),
        ValueError("Illegal header value b'Bearer CANARY'"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_an_error_of_the_hub_is_told_without_what_its_addresses_permit(error: Exception) -> None:
    told = as_told("hub:anna/x", error, "CANARY" if isinstance(error, ValueError) else None)
    assert isinstance(told, HubAway)
    assert "does not answer as it should" in told.message
    assert "CANARY" not in told.message
