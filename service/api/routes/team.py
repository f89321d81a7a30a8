"""Routes of users and keys, which admins manage, and of the caller."""

from fastapi import APIRouter

from service import secrets, team
from service.api.bodies import StrictRoute
from service.api.dependencies import Admin, Member, ServicesOf, Viewer
from service.api.parameters import KeyId, UserId
from service.api.problems import described
from service.api.responses.team import (
    HubToken,
    KeyList,
    KeyRequest,
    Me,
    NewKey,
    NewUser,
    UserEdit,
    UserList,
    UserView,
    key_view,
    user_view,
)
from service.errors import Conflict, Forbidden, NotFound, SecretKeyMissing
from service.security import create_key

router = APIRouter(prefix="/v1", tags=["team"], route_class=StrictRoute)


@router.get("/me")
def me(caller: Viewer, services: ServicesOf) -> Me:
    """Returns the user and the role of this key."""
    set_at = services.database.run(lambda session: secrets.set_at(session, caller.user_id, secrets.HUB_TOKEN))
    return Me(id=caller.user_id, name=caller.user_name, role=caller.role, key_id=caller.key_id, hub_token_set_at=set_at)


@router.put("/me/hub-token", status_code=204, responses=described(Forbidden, SecretKeyMissing))
def set_hub_token(caller: Member, given: HubToken, services: ServicesOf) -> None:
    """Keeps a token, encrypted, by which your jobs fetch networks of the Hub that are gated or private."""
    secret, key = given.token.get_secret_value(), services.settings.secret_key.get_secret_value()
    services.database.run(lambda session: secrets.put(session, caller.user_id, secrets.HUB_TOKEN, secret, key=key))


@router.delete("/me/hub-token", status_code=204, responses=described(Forbidden))
def remove_hub_token(caller: Member, services: ServicesOf) -> None:
    """Forgets that token. Harmless to repeat."""
    services.database.run(lambda session: secrets.remove(session, caller.user_id, secrets.HUB_TOKEN))


@router.post("/users", status_code=201, responses=described(Forbidden, Conflict))
def add_user(_caller: Admin, user: NewUser, services: ServicesOf) -> UserView:
    """Adds a user."""
    return services.database.run(lambda session: user_view(team.add_user(session, user.name)))


@router.get("/users", responses=described(Forbidden))
def list_users(_caller: Admin, services: ServicesOf) -> UserList:
    """Returns all users."""
    return UserList(data=services.database.run(lambda session: [user_view(user) for user in team.users(session)]))


@router.patch("/users/{user_id}", responses=described(Forbidden, NotFound))
def edit_user(user_id: UserId, _caller: Admin, edit: UserEdit, services: ServicesOf) -> UserView:
    """Changes a user's share weight and limits."""
    changes = edit.model_dump(exclude_unset=True)
    return services.database.run(lambda session: user_view(team.edit_user(session, user_id, **changes)))


@router.post("/keys", status_code=201, responses=described(Forbidden, Conflict))
def add_key(_caller: Admin, request: KeyRequest, services: ServicesOf) -> NewKey:
    """Creates a key. The key itself is shown in this response only."""
    user_name = request.user or request.name or ""
    key, secret = services.database.run(
        lambda session: create_key(session, user_name=user_name, role=request.role, name=request.name or "")
    )
    return NewKey(**key_view(key, user_name).model_dump(), key=secret)


@router.get("/keys", responses=described(Forbidden))
def list_keys(_caller: Admin, services: ServicesOf) -> KeyList:
    """Returns all keys, also revoked ones."""
    return KeyList(data=services.database.run(lambda session: [key_view(key, name) for key, name in team.keys(session)]))


@router.delete("/keys/{key_id}", status_code=204, responses=described(Forbidden, NotFound, Conflict))
def revoke_key(key_id: KeyId, _caller: Admin, services: ServicesOf) -> None:
    """Revokes a key; it is refused from now on."""
    services.database.run(lambda session: team.revoke(session, key_id))
