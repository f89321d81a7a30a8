"""The addresses of the service's things: an id stays one part of the path, whatever is in it."""

from urllib.parse import quote

from service.client.errors import InvalidId


def address(collection: str, id_: str, *rest: str) -> str:
    """``/v1/COLLECTION/ID/…``.

    Raises:
        InvalidId: the path would mean another thing. A slash is refused, not quoted: servers read ``%2F`` as one.
    """
    if id_ in {"", ".", ".."} or "/" in id_:
        raise InvalidId(f"{id_!r} is no id; GET /v1/{collection} lists those that exist")
    return "/".join(("/v1", collection, quote(id_, safe="", errors="surrogateescape"), *rest))
