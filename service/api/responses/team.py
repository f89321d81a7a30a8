"""Requests and responses about users and keys."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from service.api.responses.shape import Listing, View
from service.security import Role
from service.spec.names import OneLine
from service.tables import ApiKey, User


def _plain(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("a name has printable characters alone, and no blanks around it")
    return name


_MOST_TOKEN_CHARACTERS = 500
_TOKEN = re.compile("[!-~]+")
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain)]


class NewUser(View):
    """A user to create."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    """Unique; the owner of everything that is submitted with the user's keys."""


class UserView(View):
    """A person or a program of the team."""

    id: str
    """``user_`` and 26 characters."""
    object: Literal["user"] = "user"
    """The type of the object."""
    name: str
    """Unique."""
    share_weight: float
    """A user of weight 2 can use twice as much as a user of weight 1 before the other's jobs start first."""
    max_running_jobs: int | None
    """The most jobs that run at once, in all pools; null for any number."""
    max_queued_jobs: int | None
    """The most jobs that wait at once; null for any number."""
    created_at: datetime
    """When the user was added."""


class UserEdit(View):
    """The fields of a user that can be changed."""

    model_config = ConfigDict(extra="forbid")

    share_weight: Annotated[float, Field(ge=1e-6, le=1e6, strict=True)] = 1.0
    """The user's weight in the fair share, relative to the others'."""
    max_running_jobs: Annotated[int, Field(ge=0, le=10**6, strict=True)] | None = None
    """The most jobs that run at once, in all pools; null for any number, 0 for none. Jobs that run already continue."""
    max_queued_jobs: Annotated[int, Field(ge=0, le=10**6, strict=True)] | None = None
    """The most jobs that wait at once; null for any number, 0 for none. Jobs that wait already stay."""


class UserList(Listing[UserView]):
    """All users, by name."""


class KeyRequest(View):
    """A key to create."""

    model_config = ConfigDict(extra="forbid")

    user: Name | None = None
    """The user of the key; a new name creates a user. By default the key's own name."""
    role: Role = "member"
    """What it permits: a viewer reads, a member also submits and manages its own jobs and files, an admin does everything."""
    name: Annotated[OneLine, Field(max_length=100)] | None = None
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
    """``key_`` and 26 characters; not the key itself."""
    object: Literal["key"] = "key"
    """The type of the object."""
    user: str
    """The name of its user."""
    role: Role
    """What it may do."""
    name: str
    """What it is for."""
    created_at: datetime
    """When it was created."""
    revoked_at: datetime | None
    """When it was revoked; null while it is valid."""


class NewKey(KeyView):
    """A key that was just created."""

    key: str
    """The key itself, shown only in this response."""


class KeyList(Listing[KeyView]):
    """All keys, newest first."""


class Me(View):
    """The caller."""

    id: str
    """The user's id."""
    object: Literal["me"] = "me"
    """The type of the object."""
    name: str
    """The user's name."""
    role: Role
    """What the key permits."""
    key_id: str
    """The key's id."""
    hub_token_set_at: datetime | None
    """When the token was set that your jobs fetch networks of the Hub by; null if there is none."""


def _is_token(given: Any) -> Any:
    # A ValueError is told in its own words; of pydantic's own checks an answer repeats what was given.
    if not (isinstance(given, str) and len(given) <= _MOST_TOKEN_CHARACTERS and _TOKEN.fullmatch(given)):
        raise ValueError(f"a token has visible ASCII characters alone, at most {_MOST_TOKEN_CHARACTERS}")
    return given


class HubToken(BaseModel):
    """A token of the Hugging Face Hub."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    token: Annotated[SecretStr, Field(min_length=1, max_length=_MOST_TOKEN_CHARACTERS), BeforeValidator(_is_token)]
    """`hf_…`, with the right to read. No answer ever holds it."""

    @model_validator(mode="before")
    @classmethod
    def _is_an_object_of_a_token(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.keys() != {"token"}:
            raise ValueError("write an object with the field token alone")
        return given


def user_view(user: User) -> UserView:
    """Builds the response for a stored user."""
    return UserView(
        id=user.id,
        name=user.name,
        share_weight=user.share_weight,
        max_running_jobs=user.max_running_jobs,
        max_queued_jobs=user.max_queued_jobs,
        created_at=user.created_at,
    )


def key_view(key: ApiKey, user_name: str) -> KeyView:
    """Builds the response for a stored key."""
    return KeyView(
        id=key.id,
        user=user_name,
        role=key.role,
        name=key.name,
        created_at=key.created_at,
        revoked_at=key.revoked_at,
    )
