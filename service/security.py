"""API keys and roles. A key is 256 random bits, shown once; only its SHA-256 is stored."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.errors import Forbidden, NotFound, Unauthenticated
from service.ids import new_id
from service.tables import ApiKey, User

Role = Literal["viewer", "member", "admin"]
_RANK = {"viewer": 0, "member": 1, "admin": 2}
_PREFIX = "sh_"


@dataclass(frozen=True)
class Caller:
    """The user who makes a request, by an API key."""

    user_id: str
    user_name: str
    key_id: str
    role: Role

    def require(self, role: Role) -> None:
        """Raises Forbidden for a lesser role."""
        if _RANK[self.role] < _RANK[role]:
            raise Forbidden(f"this needs the role {role}; your key's is {self.role}. An admin can make keys: POST /v1/keys")

    def require_owner(self, owner_id: str, what: str) -> None:
        """Raises Forbidden unless the caller owns the thing, or is an admin."""
        self.require("member")
        if self.role != "admin" and self.user_id != owner_id:
            raise Forbidden(f"{what} belongs to somebody else; its owner or an admin can do this")

    def require_priority(self, priority: str | None) -> None:
        """Raises Forbidden for a priority that only an admin may give."""
        if priority == "high" and self.role != "admin":
            raise Forbidden("priority 'high' is an admin's to give; use 'normal' or 'low'", param="/priority")


def authenticate(session: Session, authorization: str | None) -> Caller:
    """Reads an ``Authorization: Bearer <key>`` header (RFC 6750). Raises Unauthenticated."""
    query = (
        select(ApiKey.id.label("key_id"), ApiKey.user_id, ApiKey.role, ApiKey.revoked_at, User.name.label("user_name"))
        .join(User, User.id == ApiKey.user_id)
        .where(ApiKey.sha256 == key_digest(authorization))
    )
    return caller_of(session.execute(query).one_or_none())


def key_digest(authorization: str | None) -> str:
    """The SHA-256 of an ``Authorization`` header's key, by which the key is stored. Raises Unauthenticated."""
    if not authorization:
        raise Unauthenticated("send your key: Authorization: Bearer <key>")
    key = bearer_key(authorization)
    if key is None:
        raise Unauthenticated("the Authorization header must read: Bearer <key>")
    return _digest(key)


def caller_of(row: Any) -> Caller:
    """The caller by the row of a key and its user, None if there is none. Raises Unauthenticated."""
    if row is None:
        raise Unauthenticated("this key is not valid; ask an admin for a new one")
    if row.revoked_at is not None:
        raise Unauthenticated("this key was revoked; ask an admin for a new one")
    return Caller(user_id=row.user_id, user_name=row.user_name, key_id=row.key_id, role=row.role)


def bearer_key(authorization: str | None) -> str | None:
    """The key of an ``Authorization`` header, of which case and blanks around it say nothing; None if it holds none."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def create_key(session: Session, *, user_name: str, role: Role, name: str = "") -> tuple[ApiKey, str]:
    """Creates a key for a user, who is created with the first one; returns its row, and the key itself, which is not stored."""
    user = session.scalar(select(User).where(User.name == user_name))
    if user is None:
        user = User(id=new_id("user"), name=user_name)
        session.add(user)
        session.flush()
    secret = _PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(id=new_id("key"), user_id=user.id, name=name or user_name, role=role, sha256=_digest(secret))
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """Revokes a key at once; harmless to repeat. Raises NotFound."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now()))
    key = session.get(ApiKey, key_id, populate_existing=True)
    if key is None:
        raise NotFound(f"there is no key {key_id!r}")
    session.info.setdefault("changed", set()).add(key_id)
    return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
