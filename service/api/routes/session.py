"""Routes of the sign-in, and the files that pages load."""

import hmac
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response

from service.api.dependencies import ServicesOf, Viewer
from service.api.page_route import HEADERS, PageRoute, page
from service.api.sessions import COOKIE, SESSION_SECONDS, SessionCipher, csrf_token, is_same_origin
from service.errors import Forbidden, NotFound, Unauthenticated
from service.web.rendering import MEDIA_TYPES, static_digest, static_files

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_FOR_EVER = "public, max-age=31536000, immutable"


@router.get("/static/{digest}/{name:path}")
async def get_static_file(digest: str, name: str) -> Response:
    """Sends one of the files that pages load."""
    data = static_files().get(name)
    if data is None or not hmac.compare_digest(digest.encode(), static_digest().encode()):
        raise NotFound("there is no such file; reload the page")
    return Response(data, media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": _FOR_EVER})


@router.get("/sign-in")
async def sign_in_page(request: Request, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """The form that takes a key."""
    return page(request, None, "sign_in.html", next=_local(next), fault="")


@router.get("/session")
async def has_session(_caller: Viewer) -> Response:
    """Whether the browser has signed in: a link from another site comes without its cookie."""
    return Response(status_code=204, headers=HEADERS)


@router.post("/session")
async def sign_in(
    request: Request,
    services: ServicesOf,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Takes a key and gives a cookie for it."""
    if not is_same_origin(request.headers):
        raise Forbidden("sign in on the page of this service itself")
    try:
        await services.reads.caller(f"Bearer {key.strip()}")
    except Unauthenticated as error:
        return page(request, None, "sign_in.html", status=401, next=_local(next), fault=error.detail)
    response = Response(status_code=303, headers={**HEADERS, "Location": _local(next)})
    cookie = SessionCipher(services.settings).cookie(key.strip())
    response.set_cookie(
        COOKIE, cookie, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return response


@router.delete("/session")
async def sign_out(request: Request) -> Response:
    """Takes the cookie back; the key stays valid."""
    if not csrf_token(request.scope) and "authorization" not in request.headers:
        raise Unauthenticated("nobody has signed in here")
    response = Response(status_code=204, headers=HEADERS)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def _local(address: str) -> str:
    """An address of this service; the first page instead of any other. Browsers leave out what is not printable."""
    address = "".join(character for character in address if character.isprintable())
    return address if address.startswith("/") and not address.startswith(("//", "/\\")) else "/"
