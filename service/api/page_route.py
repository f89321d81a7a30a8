"""What the routes of pages share: HTML with the strict policy, an error as a page, and the way to the sign-in."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.api.sessions import csrf_token
from service.errors import StillhouseError, Unauthenticated
from service.security import Caller
from service.web.rendering import CONTENT_SECURITY_POLICY, render

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Cookie",
    "Cache-Control": "no-store",
}


class PageRoute(APIRoute):
    """Sends those who have not signed in to the sign-in, and shows an error as a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_for_people(request: Request) -> Response:
            try:
                return await handle(request)
            except Unauthenticated:
                here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                query = urlencode({"next": here}) if here != "/" else ""
                return Response(status_code=303, headers={**HEADERS, "Location": f"/sign-in?{query}".rstrip("?")})
            except StillhouseError as error:
                return page(request, None, "error.html", status=error.status, detail=error.detail)

        return handle_for_people


def page(request: Request, caller: Caller | None, template: str, *, status: int = 200, **context: Any) -> Response:
    """Renders a page for its reader; ``caller``: None for one that needs none."""
    text = render(template, caller=caller, csrf=csrf_token(request.scope), path=request.url.path, code=status, **context)
    return Response(text, status_code=status, media_type="text/html", headers=HEADERS)
