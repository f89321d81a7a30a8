"""The team's users and keys, beyond what one request proves (see ``security``): lists, new users, the last admin's key."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import Conflict, NotFound
from service.ids import new_id
from service.security import revoke_key
from service.tables import ApiKey, User


def add_user(session: Session, name: str) -> User:
    """Creates a user. Raises Conflict for a name that is taken."""
    if session.scalar(select(User.id).where(User.name == name)) is not None:
        raise Conflict(f"there is a user {name!r} already")
    user = User(id=new_id("user"), name=name)
    session.add(user)
    session.flush()
    session.refresh(user)
    return user


def edit_user(session: Session, user: str, **changes: Any) -> User:
    """Changes a user's share weight or limits; ``user`` is an id or a name. Raises NotFound."""
    found = session.scalar(select(User).where((User.id == user) | (User.name == user)).with_for_update(key_share=True))
    if found is None:
        raise NotFound(f"there is no user {user!r}; GET /v1/users lists them")
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def users(session: Session) -> Sequence[User]:
    """Reads all users, in the order of their names."""
    return session.scalars(select(User).order_by(User.name)).all()


def keys(session: Session) -> list[tuple[ApiKey, str]]:
    """Reads all keys, newest first, each with its user's name."""
    query = select(ApiKey, User.name).join(User, User.id == ApiKey.user_id).order_by(ApiKey.id.desc())
    return [(key, name) for key, name in session.execute(query)]


def revoke(session: Session, key_id: str) -> None:
    """Revokes a key at once; harmless to repeat.

    Raises:
        NotFound: there is no such key.
        Conflict: it is the last key of an admin, and nobody could make keys any more.
    """
    # All admin keys are locked, so that two requests cannot revoke the last two of them at once.
    query = select(ApiKey.id).where(ApiKey.role == "admin", ApiKey.revoked_at.is_(None)).order_by(ApiKey.id).with_for_update()
    if list(session.scalars(query)) == [key_id]:
        raise Conflict("this is the last admin's key: make another one first, then revoke this")
    revoke_key(session, key_id)
