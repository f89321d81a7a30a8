"""Paths of resources: an id is always exactly one segment of the path, whatever it contains."""

from urllib.parse import quote

from service.client.errors import InvalidId


def address(collection: str, id_: str, *rest: str) -> str:
    """Returns ``/v1/COLLECTION/ID/…``.

    Raises:
        InvalidId: the path would name another resource. A slash is refused, not quoted: servers decode ``%2F`` to one.
    """
    if id_ in {"", ".", ".."} or "/" in id_:
        raise InvalidId(f"{id_!r} is no id; GET /v1/{collection} lists those that exist")
    return "/".join(("/v1", collection, quote(id_, safe="", errors="surrogateescape"), *rest))
