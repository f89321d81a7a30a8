"""Secrets of users, stored encrypted: the token that their jobs fetch networks of the Hub by.

Invariant: a secret is read again by a worker's host alone, for a job of its user; no answer, event or log holds it.
"""

from datetime import datetime

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.errors import SecretKeyMissing
from service.tables import UserSecret

HUB_TOKEN = "hub_token"  # noqa: S105 - its name


class SecretUnreadable(Exception):
    """A secret was encrypted with another key than there is here."""


def checked_key(key: str) -> str:
    """Returns the key, unchanged. Raises ValueError, without it, for what is none; empty is for none."""
    try:
        if key:
            Fernet(key)
    except ValueError:
        raise ValueError("STILLHOUSE_SECRET_KEY must be 32 random bytes in URL-safe base64") from None
    return key


def put(session: Session, user_id: str, name: str, secret: str, *, key: str) -> None:
    """Stores a secret in place of the one before. Raises SecretKeyMissing."""
    if not key:
        raise SecretKeyMissing("this service keeps no secrets: its operator has not set STILLHOUSE_SECRET_KEY")
    value = Fernet(key).encrypt(secret.encode())
    stored = insert(UserSecret).values(user_id=user_id, name=name, value=value)
    changed = {"value": value, "set_at": func.now()}
    session.execute(stored.on_conflict_do_update(index_elements=[UserSecret.user_id, UserSecret.name], set_=changed))


def remove(session: Session, user_id: str, name: str) -> None:
    """Forgets a secret; harmless to repeat."""
    session.execute(delete(UserSecret).where(UserSecret.user_id == user_id, UserSecret.name == name))


def set_at(session: Session, user_id: str, name: str) -> datetime | None:
    """When a secret was stored last; None if there is none."""
    return session.scalar(select(UserSecret.set_at).where(UserSecret.user_id == user_id, UserSecret.name == name))


def read(session: Session, user_id: str, name: str, *, key: str) -> str | None:
    """Decrypts a secret; None if there is none. Raises SecretUnreadable."""
    value = session.scalar(select(UserSecret.value).where(UserSecret.user_id == user_id, UserSecret.name == name))
    if value is None:
        return None
    try:
        return Fernet(key).decrypt(value).decode()
    except (InvalidToken, ValueError):
        raise SecretUnreadable(
            f"the {name} of {user_id} cannot be read: STILLHOUSE_SECRET_KEY is not set here, or another one"
        ) from None
