"""Keys and roles: random, stored as digests alone, ended at once, and never without an admin."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from service import team
from service.database import Database
from service.errors import Conflict, Forbidden, NotFound, Unauthenticated
from service.security import Caller, Role, authenticate, create_key, revoke_key
from service.tables import ApiKey, Table, User

ROLES: list[Role] = ["viewer", "member", "admin"]


def new_key(database: Database, user: str = "ana", role: Role = "member", name: str = "") -> tuple[str, str]:
    """A key's id and the key."""
    with database.transaction() as session:
        key, secret = create_key(session, user_name=user, role=role, name=name)
    return key.id, secret


def sent(database: Database, authorization: str | None) -> Caller:
    with database.transaction() as session:
        return authenticate(session, authorization)


def test_keys_are_long_and_no_two_are_alike(database: Database) -> None:
    secrets = [new_key(database)[1] for _ in range(20)]
    assert len(set(secrets)) == 20
    for secret in secrets:
        assert secret.startswith("sh_")
        assert len(secret) == len("sh_") + 43, "256 bits in base 64"
    # Each character of a random key takes many values; of a counter or a clock, the first ones would take one.
    assert all(len(set(column)) > 1 for column in zip(*(secret[3:] for secret in secrets), strict=True))


def test_the_database_holds_a_keys_digest_and_never_the_key(database: Database) -> None:
    key_id, secret = new_key(database)
    with database.transaction() as session:
        assert session.get_one(ApiKey, key_id).sha256 == hashlib.sha256(secret.encode()).hexdigest()
        stored = [str(tuple(row)) for table in Table.metadata.sorted_tables for row in session.execute(select(table))]
    assert len(stored) == 2
    assert not any(secret in row or secret.removeprefix("sh_") in row for row in stored)


@pytest.mark.parametrize("role", ROLES)
def test_a_key_tells_who_calls(database: Database, role: Role) -> None:
    key_id, secret = new_key(database, role=role)
    with database.transaction() as session:
        user_id = session.scalars(select(User.id)).one()
    for authorization in (f"Bearer {secret}", f"bearer {secret}", f"BEARER   {secret} "):
        assert sent(database, authorization) == Caller(user_id=user_id, user_name="ana", key_id=key_id, role=role)


def test_a_users_keys_are_made_for_one_user_and_end_one_by_one(database: Database) -> None:
    first, second = new_key(database, name="laptop"), new_key(database, role="viewer")
    assert sent(database, f"Bearer {first[1]}").user_id == sent(database, f"Bearer {second[1]}").user_id
    with database.transaction() as session:
        revoke_key(session, first[0])
    with pytest.raises(Unauthenticated, match="revoked"):
        sent(database, f"Bearer {first[1]}")
    assert sent(database, f"Bearer {second[1]}").role == "viewer"
    with database.transaction() as session:
        assert [(key.id, key.name, user) for key, user in team.keys(session)] == [
            (second[0], "ana", "ana"),
            (first[0], "laptop", "ana"),
        ]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "{key}",
        "Basic {key}",
        "Bearer",
        "Bearer  ",
        "Bearer {cut}",
        "Bearer {key}x",
        "Bearer {key} {key}",
        "Bearer {swapped}",
        "Bearer {digest}",
        "Bearer ' OR '1'='1",
        "Bearer \N{SNOWMAN}",
    ],
)
def test_anything_but_a_whole_key_is_refused(database: Database, header: str | None) -> None:
    _, key = new_key(database)
    digest = hashlib.sha256(key.encode()).hexdigest()
    with pytest.raises(Unauthenticated):
        sent(database, header and header.format(key=key, cut=key[:-1], swapped=key.swapcase(), digest=digest))


def test_revoking_twice_keeps_the_first_time(database: Database) -> None:
    key_id, _ = new_key(database)
    with database.transaction() as session:
        first = revoke_key(session, key_id).revoked_at
    with database.transaction() as session:
        assert revoke_key(session, key_id).revoked_at == first is not None
    with pytest.raises(NotFound, match="key_none"), database.transaction() as session:
        team.revoke(session, "key_none")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("needed", ROLES)
def test_a_role_may_what_lesser_ones_may(role: Role, needed: Role) -> None:
    caller = Caller(user_id="user_1", user_name="ana", key_id="key_1", role=role)
    if ROLES.index(role) >= ROLES.index(needed):
        caller.require(needed)
    else:
        with pytest.raises(Forbidden, match=f"needs the role {needed}"):
            caller.require(needed)


@pytest.mark.parametrize(
    ("role", "owner", "may"),
    [
        ("viewer", "user_1", False),
        ("viewer", "user_2", False),
        ("member", "user_1", True),
        ("member", "user_2", False),
        ("admin", "user_1", True),
        ("admin", "user_2", True),
    ],
)
def test_what_is_somebodys_is_theirs_and_the_admins(role: Role, owner: str, may: bool) -> None:
    caller = Caller(user_id="user_1", user_name="ana", key_id="key_1", role=role)
    if may:
        caller.require_owner(owner, "job job_1")
    else:
        with pytest.raises(Forbidden):
            caller.require_owner(owner, "job job_1")


def test_a_revoked_admins_key_does_not_count_as_one(database: Database) -> None:
    first, second = new_key(database, "ana", "admin"), new_key(database, "ben", "admin")
    new_key(database, "cleo", "member")
    with database.transaction() as session:
        team.revoke(session, first[0])
    with database.transaction() as session:
        team.revoke(session, first[0])
    with pytest.raises(Conflict, match="last admin"), database.transaction() as session:
        team.revoke(session, second[0])
    assert sent(database, f"Bearer {second[1]}").role == "admin"


def test_admins_who_revoke_each_other_at_once_leave_one(database: Database) -> None:
    for _ in range(5):
        keys = [new_key(database, name, "admin")[0] for name in ("ana", "ben", "cleo")]
        barrier = Barrier(len(keys))

        def revoke(key_id: str) -> bool:
            with database.transaction() as session:
                session.connection()
                barrier.wait(60)  # noqa: B023
                try:
                    team.revoke(session, key_id)
                except Conflict:
                    return False
            return True

        with ThreadPoolExecutor(len(keys)) as pool:
            outcomes = list(pool.map(revoke, keys))
        assert outcomes.count(False) == 1
        with database.transaction() as session:
            left = session.scalars(select(ApiKey.id).where(ApiKey.role == "admin", ApiKey.revoked_at.is_(None))).all()
            assert left == [keys[outcomes.index(False)]]
            session.delete(session.get_one(ApiKey, left[0]))  # the next round begins without an admin


def test_a_user_who_is_added_twice_at_once_is_there_once(database: Database) -> None:
    barrier = Barrier(4)

    def add(_: int) -> bool:
        try:
            with database.transaction() as session:
                session.connection()
                barrier.wait(60)
                team.add_user(session, "zoe")
        except (Conflict, IntegrityError):
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(add, range(4))) == [False, False, False, True]
    with database.transaction() as session:
        assert [user.name for user in team.users(session)] == ["zoe"]
