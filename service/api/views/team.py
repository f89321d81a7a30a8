"""Users and keys, as clients see them."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from service.api.views.jobs import View
from service.security import Role
from service.tables import ApiKey, User


def _plain(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("a name has printable characters alone, and no blanks around it")
    return name


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain)]


class NewUser(View):
    """A user to be made."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ada"}]})

    name: Name


class UserView(View):
    """A person or a program of the team."""

    id: str
    object: Literal["user"] = "user"
    name: str
    created_at: datetime


class UserList(View):
    """All users, by name."""

    object: Literal["list"] = "list"
    data: list[UserView]


class KeyRequest(View):
    """A key to be made."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user": "ada", "role": "member", "name": "laptop"}]}
    )

    user: Name | None = None
    """Whose key it is; a new name makes a new user. By default the key's own name."""
    role: Role = "member"
    name: Annotated[str, Field(max_length=100)] | None = None
    """What the key is for."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.user and not self.name:
            raise ValueError("give user, name or both")
        if not self.user and self.name:
            _plain(self.name)
        return self


class KeyView(View):
    """A key, without the key itself."""

    id: str
    object: Literal["key"] = "key"
    user: str
    role: Role
    name: str
    created_at: datetime
    revoked_at: datetime | None


class NewKey(KeyView):
    """A key that was just made."""

    key: str
    """The key itself, shown this once."""


class KeyList(View):
    """All keys, newest first."""

    object: Literal["list"] = "list"
    data: list[KeyView]


class Me(View):
    """Who the caller is."""

    id: str
    object: Literal["me"] = "me"
    name: str
    role: Role
    key_id: str


def user_view(user: User) -> UserView:
    """A stored user as clients see it."""
    return UserView(id=user.id, name=user.name, created_at=user.created_at)


def key_view(key: ApiKey, user_name: str) -> KeyView:
    """A stored key as clients see it."""
    return KeyView(
        id=key.id,
        user=user_name,
        role=key.role,
        name=key.name,
        created_at=key.created_at,
        revoked_at=key.revoked_at,
    )
