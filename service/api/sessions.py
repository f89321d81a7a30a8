"""Sign-in of people: a cookie that holds their API key, encrypted, and stands for it in every request of the pages.

The cookie ends with the key, since the key itself is checked each time. It is HttpOnly and SameSite=Strict; a request that
changes something must come from a page of this service, by Sec-Fetch-Site or Origin, with a token that no other page knows.
Beside an ``Authorization`` header the cookie counts for nothing.
"""

import base64
import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import response_of
from service.errors import Forbidden
from service.settings import Settings

COOKIE = "stillhouse_session"
CSRF_HEADER = "x-csrf-token"
SESSION_SECONDS = 30 * 24 * 3600
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SCOPE_KEY = "stillhouse.session"


class SessionCipher:
    """Makes and reads the cookies of all processes that have the same settings."""

    def __init__(self, settings: Settings) -> None:
        # Who forges a cookie needs a valid key to put into it: the secret only keeps a stored cookie from being read.
        secret = settings.secret_key.get_secret_value() or f"{settings.database_url} {settings.redis_url}"
        self._digest = hashlib.sha256(f"sessions of {secret}".encode()).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(self._digest))

    def cookie(self, key: str) -> str:
        """The cookie's value for an API key."""
        return self._fernet.encrypt(key.encode()).decode()

    def key(self, cookie: str) -> str | None:
        """The API key of a cookie; None if the cookie is not one, or too old."""
        try:
            return self._fernet.decrypt(cookie, ttl=SESSION_SECONDS).decode()
        except (InvalidToken, ValueError):
            return None

    def csrf_token(self, cookie: str) -> str:
        """What a page with this cookie sends along with each change."""
        return hmac.new(self._digest, cookie.encode(), hashlib.sha256).hexdigest()


class SessionCookies:
    """Middleware: gives a request with a cookie the ``Authorization`` header that it stands for."""

    def __init__(self, app: ASGIApp, *, cipher: SessionCipher) -> None:
        self.app = app
        self._cipher = cipher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        cookie = cookie_of(headers) if "authorization" not in headers else None
        key = None if cookie is None else self._cipher.key(cookie)
        if cookie is None or key is None:
            await self.app(scope, receive, send)
            return
        token = self._cipher.csrf_token(cookie)
        if scope["method"] not in _SAFE and not (
            is_same_origin(headers) and hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), token.encode())
        ):
            refusal = Forbidden(
                f"a change by a session needs the header {CSRF_HEADER} of a page of this service; reload the page"
            )
            await response_of(refusal)(scope, receive, send)
            return
        authorized = [*scope["headers"], (b"authorization", f"Bearer {key}".encode())]
        await self.app({**scope, "headers": authorized, _SCOPE_KEY: token}, receive, send)


def csrf_token(scope: Scope) -> str:
    """The token of the session that a request belongs to; empty for one without a cookie."""
    return str(scope.get(_SCOPE_KEY, ""))


def cookie_of(headers: Headers) -> str | None:
    """The value of the session's cookie; None without one."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


def is_same_origin(headers: Headers) -> bool:
    """Whether a browser sent this from a page of this service. Browsers leave Sec-Fetch-Site out on plain HTTP."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "") != ""
