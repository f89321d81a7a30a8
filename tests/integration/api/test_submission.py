"""What a spec names is looked up, and every fault is told before anything is queued."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from service import jobs
from service.database import Database
from service.errors import Conflict
from service.ids import new_id
from service.models import remove as remove_model
from service.tables import JobTeacher, Model, User
from tests.integration.api.conftest import SPEC, Api, Team, run_one, spec, submit
from tests.integration.api.test_models import folder
from tests.integration.jobs.conftest import student


def _pointers(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_spec"
    assert problem["error"]["code"] == "invalid_spec"
    return {fault["pointer"] for fault in problem["errors"]}


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"nonsense": 1}, "/nonsense"),
        ({"task": 7}, "/task"),
        ({"dataset": {"source": "builtin:digits", "targets": ["nope"]}}, "/dataset/targets/0"),
        ({"dataset": {"source": "builtin:digits", "input": "label"}}, "/dataset/input"),
        ({"dataset": {"source": "builtin:cats"}}, "/dataset/source"),
        ({"dataset": {"source": "dataset:ds_none"}}, "/dataset/source"),
        ({"dataset": {"source": "builtin:digits", "transfer": "dataset:ds_none"}}, "/dataset/transfer"),
        ({"dataset": {"source": "builtin:digits", "transfer": "builtin:cats"}}, "/dataset/transfer"),
        ({"dataset": {"source": "builtin:digits", "transfer": "file:/etc/passwd"}}, "/dataset/transfer"),
        ({"dataset": {"source": "builtin:digits", "transfer_fraction": 0.5}}, "/dataset"),
        ({"dataset": {"source": "file:/etc/passwd"}}, "/dataset/source"),
        ({"dataset": {"source": "file:../../etc/passwd"}}, "/dataset/source"),
        ({"dataset": {"source": "ftp://x"}}, "/dataset/source"),
        ({"dataset": {"source": "builtin:digits", "splits": {"train": "nope"}}}, "/dataset/splits/train"),
        ({"teacher": {"source": "model:model_none"}}, "/teacher/source"),
        ({"teacher": {"source": "job:job_00000000000000000000000000"}}, "/teacher/source"),
        ({"depends_on": ["job_00000000000000000000000000"]}, "/depends_on/0"),
        ({"student": {"architecture": {"name": "small-cnm"}}}, "/student/architecture/name"),
        ({"student": {"architecture": {"name": "transformers", "model_type": "vit", "config": {"patch_size": 7}}}}, None),
        ({"method": {"name": "soft-targets", "temperature": 0.0}}, "/method/temperature"),
        ({"method": {"name": "soft-targets", "temperature": -1}}, "/method/temperature"),
        ({"method": {"temperature": 0}}, "/method/temperature"),
        ({"method": {"name": "fitnetz"}}, "/method/name"),
        ({"method": "dkd"}, "/method"),
        ({"method": {"terms": []}}, "/method/terms"),
        ({"method": {"terms": [{"name": "labels"}, {"name": "dkd", "beta": -1}]}}, "/method/terms/1/beta"),
        ({"method": {"terms": [{"weight": 1}]}}, "/method/terms/0/name"),
        ({"method": {"name": "dkd", "terms": []}}, "/method/terms"),
        ({"method": {"name": "nst", "layers": {"student": ["a", "b"], "teacher": ["c"]}}}, "/method/layers"),
        ({"training": {"epochs": "many"}}, "/training/epochs"),
        ({"resources": {"pool": "default", "min_gpu_memory_gib": 1.0}}, "/resources"),
        ({"labels": {"": "x"}}, "/labels/"),
    ],
)
def test_a_fault_is_told_with_its_place_and_nothing_is_stored(
    member: httpx.Client, changes: dict[str, Any], pointer: str | None
) -> None:
    answer = member.post("/v1/jobs", json=spec(**changes))
    found = _pointers(answer)
    assert pointer is None or found == {pointer}, answer.text
    assert member.get("/v1/jobs").json()["data"] == []


def test_every_fault_is_told_at_once(member: httpx.Client) -> None:
    bad = spec(method={"temperature": -1}, training={"epochs": 0, "batch_size": "x"}, more=True)
    assert _pointers(member.post("/v1/jobs", json=bad)) == {
        "/method/temperature",
        "/training/epochs",
        "/training/batch_size",
        "/more",
    }


@pytest.mark.parametrize("body", [[], "text", 3, True])
def test_a_spec_must_be_an_object(member: httpx.Client, body: object) -> None:
    assert member.post("/v1/jobs", json=body).status_code == 422


@pytest.mark.parametrize("parameters", [{}, {"dry_run": "true"}])
@pytest.mark.parametrize("media_type", ["application/json", "application/yaml"])
def test_a_key_that_stands_twice_is_refused_with_its_place(
    member: httpx.Client, media_type: str, parameters: dict[str, str]
) -> None:
    text = json.dumps(spec())
    twice = text.replace('"architecture": {', '"architecture": {"width": 4, "width": 8, ', 1)
    assert twice != text
    headers = {"Content-Type": media_type}
    answer = member.post("/v1/jobs", content=twice, headers=headers, params=parameters)
    assert _pointers(answer) == {"/teacher/architecture/width"}
    assert member.post("/v1/jobs", content=text, headers=headers, params=parameters).status_code in {200, 201}


def test_a_key_that_stands_twice_in_an_edit_is_refused(member: httpx.Client) -> None:
    job = submit(member)
    headers = {"Content-Type": "application/json"}
    answer = member.patch(f"/v1/jobs/{job['id']}", content=b'{"name": "a", "name": "b"}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/name"]


def test_ten_posts_with_one_idempotency_key_make_one_job(team: Team) -> None:
    ada = team.join("ada")
    headers = {"Idempotency-Key": "the same"}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ada.post("/v1/jobs", json=spec(), headers=headers), range(10)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses.count(201) == 1
    assert set(statuses) <= {200, 201, 409}
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["code"] == "request_in_flight"
            assert answer.headers["retry-after"] == "1"
            assert "x-should-retry" not in answer.headers
    assert len(ada.get("/v1/jobs").json()["data"]) == 1


def test_a_repeat_answers_the_first_job_and_another_body_is_refused(team: Team) -> None:
    ada, ben = team.join("ada"), team.join("ben")
    headers = {"Idempotency-Key": "k"}
    first = ada.post("/v1/jobs", json=spec(), headers=headers)
    reordered = dict(reversed(spec().items()))
    again = ada.post("/v1/jobs", json=reordered, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    other = ada.post("/v1/jobs", json=spec(name="another"), headers=headers)
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_mismatch"
    assert ben.post("/v1/jobs", json=spec(), headers=headers).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "\u00e9"])
def test_an_idempotency_key_is_printable_and_short(member: httpx.Client, key: str) -> None:
    answer = member.post("/v1/jobs", json=spec(), headers={b"Idempotency-Key": key.encode("latin-1")})
    assert answer.status_code == 422, answer.text
    assert member.get("/v1/jobs").json()["data"] == []


def test_a_pending_teacher_makes_the_job_wait_for_it(member: httpx.Client) -> None:
    teacher = submit(member)
    student = submit(member, teacher={"source": f"job:{teacher['id']}"})
    assert student["status"] == "waiting"
    told = member.get(f"/v1/jobs/{student['id']}/explain").json()
    assert told["blocked_by"] == [teacher["id"]]
    refused = member.delete(f"/v1/jobs/{teacher['id']}")
    assert refused.status_code == 409
    member.post(f"/v1/jobs/{teacher['id']}/cancel")
    failed = member.get(f"/v1/jobs/{student['id']}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "dependency_failed")


def test_a_teacher_job_that_was_cancelled_is_a_fault_of_the_spec(member: httpx.Client) -> None:
    teacher = submit(member)
    member.post(f"/v1/jobs/{teacher['id']}/cancel")
    assert _pointers(member.post("/v1/jobs", json=spec(teacher={"source": f"job:{teacher['id']}"}))) == {"/teacher/source"}


def test_a_teacher_job_that_was_cancelled_and_kept_its_student_is_told_with_the_models_name(
    member: httpx.Client, database: Database
) -> None:
    teacher = submit(member)["id"]
    fence = run_one(database)
    member.post(f"/v1/jobs/{teacher}/cancel", json={"keep": "last"})
    with database.transaction() as session:
        kept = student(session, fence)
        kept.classes = [str(digit) for digit in range(10)]
        jobs.settle_stopped(session, fence, reason="cancel", models=[kept])
    answer = member.post("/v1/jobs", json=spec(teacher={"source": f"job:{teacher}"}))
    instead = f"model:{kept.id}"
    assert (answer.status_code, answer.json()["errors"]) == (
        422,
        [{"pointer": "/teacher/source", "message": f"job {teacher} is cancelled; what it kept of its student is {instead}"}],
    )
    assert submit(member, teacher={"source": instead})["status"] == "queued"


def test_a_finished_jobs_student_teaches(member: httpx.Client, database: Database) -> None:
    teacher = submit(member)
    fence = run_one(database)
    classes = [str(digit) for digit in range(10)]
    with database.transaction() as session:
        owner_id = jobs.get(session, fence.job_id).owner_id
        model = Model(
            id=new_id("model"),
            owner_id=owner_id,
            name="m",
            task="image-classification",
            job_id=fence.job_id,
            classes=classes,
            input_shape=[1, 8, 8],
            files=[],
        )
        jobs.succeed(session, fence, result={}, files=[], models=[model])
    by_job = submit(member, teacher={"source": f"job:{teacher['id']}"})
    by_model = submit(member, teacher={"source": f"model:{model.id}"})
    assert (by_job["status"], by_model["status"]) == ("queued", "queued")
    refused = member.delete(f"/v1/models/{model.id}")
    assert refused.status_code == 409
    assert teacher["id"] in refused.json()["detail"]
    assert member.delete(f"/v1/jobs/{teacher['id']}").status_code == 409


def test_the_teacher_that_a_job_is_to_train_is_waited_for_and_used_once_it_is_there(
    member: httpx.Client, database: Database
) -> None:
    earlier = submit(member)["id"]
    source = f"job:{earlier}/teacher"
    assert submit(member, teacher={"source": source})["status"] == "waiting"
    fence = run_one(database)
    with database.transaction() as session:
        models = [student(session, fence), student(session, fence)]
        for model, part in zip(models, ("student", "teacher"), strict=True):
            model.part, model.classes = part, [str(digit) for digit in range(10)]
        models[0].input_shape = [3, 64, 64]  # what the student reads is not asked of the teacher
        jobs.succeed(session, fence, result={}, files=[], models=models)
    using = submit(member, teacher={"source": source})
    assert using["status"] == "queued"
    assert (
        member.delete(f"/v1/models/{models[1].id}")
        .json()["detail"]
        .startswith(f"model {models[1].id} is the teacher of job {earlier} and is deleted with it")
    )
    refused = member.delete(f"/v1/jobs/{earlier}")
    assert refused.status_code == 409
    with database.transaction() as session:
        used = session.scalars(select(JobTeacher.model_id).where(JobTeacher.job_id == using["id"]))
        assert used.all() == [models[1].id]


def test_a_teacher_that_no_job_trains_is_refused_with_what_to_name_instead(member: httpx.Client, database: Database) -> None:
    first = submit(member)["id"]
    second = submit(member, teacher={"source": f"job:{first}"})["id"]
    both = submit(member, teacher=[SPEC["teacher"], {"architecture": {"name": "small-cnn", "width": 6}}])["id"]
    for job_id, remedy in ((second, f"name what it learns from, job:{first}"), (both, "trains several teachers")):
        answer = member.post("/v1/jobs", json=spec(teacher={"source": f"job:{job_id}/teacher"}))
        assert _pointers(answer) == {"/teacher/source"}
        assert remedy in answer.json()["errors"][0]["message"]
    fence = run_one(database)
    assert fence.job_id == first
    with database.transaction() as session:  # as before teachers were listed
        jobs.succeed(session, fence, result={}, files=[], models=[student(session, fence)])
    answer = member.post("/v1/jobs", json=spec(teacher={"source": f"job:{first}/teacher"}))
    assert f"job {first} left no teacher" in answer.json()["errors"][0]["message"]


def test_a_job_waits_for_each_of_several_teachers(member: httpx.Client) -> None:
    first, second = submit(member), submit(member)
    teachers = [{"source": f"job:{job['id']}"} for job in (first, second)]
    student = submit(member, teacher=teachers)
    assert student["status"] == "waiting"
    assert member.get(f"/v1/jobs/{student['id']}/explain").json()["blocked_by"] == sorted([first["id"], second["id"]])
    member.post(f"/v1/jobs/{second['id']}/cancel")
    assert member.get(f"/v1/jobs/{student['id']}").json()["error"]["code"] == "dependency_failed"
    assert _pointers(member.post("/v1/jobs", json=spec(teacher=teachers))) == {"/teacher/1/source"}


def test_models_of_several_teachers_stay_while_the_job_needs_them(member: httpx.Client, database: Database) -> None:
    with database.transaction() as session:
        owner = User(id=new_id("user"), name="owner")
        session.add(owner)
        session.flush()
        classes = [str(digit) for digit in range(10)]
        models = [
            Model(
                id=new_id("model"),
                owner_id=owner.id,
                name=name,
                task="image-classification",
                classes=classes,
                input_shape=[1, 8, 8],
                files=[],
            )
            for name in ("a", "b")
        ]
        session.add_all(models)
        ids = [model.id for model in models]
    job = submit(member, teacher=[{"source": f"model:{model_id}"} for model_id in ids])
    for model_id in ids:
        with database.transaction() as session, pytest.raises(Conflict, match=job["id"]):
            remove_model(session, model_id)
    assert _pointers(member.post("/v1/jobs", json=spec(teacher=[{"source": "model:no"}, {"source": "job:job_no"}]))) == {
        "/teacher/0/source",
        "/teacher/1/source",
    }
    member.post(f"/v1/jobs/{job['id']}/cancel")
    with database.transaction() as session:
        remove_model(session, ids[1])


def test_a_teacher_of_other_classes_is_refused(member: httpx.Client, database: Database) -> None:
    with database.transaction() as session:
        owner = User(id=new_id("user"), name="owner")
        session.add(owner)
        session.flush()
        model = Model(
            id=new_id("model"),
            owner_id=owner.id,
            name="m",
            task="image-classification",
            classes=["cat", "dog"],
            input_shape=[3, 32, 32],
            files=[],
        )
        session.add(model)
    assert _pointers(member.post("/v1/jobs", json=spec(teacher={"source": f"model:{model.id}"}))) == {"/teacher/source"}


def test_a_file_under_an_allowed_root_can_be_used_and_a_link_out_of_it_cannot(member: httpx.Client, api: Api) -> None:
    (root,) = api.settings.file_roots
    _write_npz(root / "data.npz")
    good = member.post("/v1/jobs", json=spec(dataset={"source": f"file:{root}/data.npz"}))
    assert good.status_code == 201, good.text
    outside = root.parent / "outside.npz"
    _write_npz(outside)
    (root / "link.npz").symlink_to(outside)
    (root / "broken.npz").write_bytes(b"PK\x03\x04 cut")
    for name in ("link.npz", "../outside.npz", "broken.npz", "missing.npz"):
        assert _pointers(member.post("/v1/jobs", json=spec(dataset={"source": f"file:{root}/{name}"}))) == {"/dataset/source"}


def test_a_network_in_a_folder_under_an_allowed_root_can_teach(member: httpx.Client, api: Api) -> None:
    (root,) = api.settings.file_roots
    source = f"file:{_write_folder(root / 'teacher')}"
    good = member.post("/v1/jobs", json=spec(teacher={"source": source}))
    assert good.status_code == 201, good.text
    assert good.json()["spec"]["teacher"]["source"] == source


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "there is no folder"),
        ("teacher/config.json", "there is no folder"),
        ("../outside", "is outside the folders that this service may read"),
        ("linked", "is outside the folders that this service may read"),
        ("pickled", "such files can run code"),
        ("incomplete", "labels.json is missing"),
        ("of-letters", "trained on other classes"),
    ],
)
def test_a_folder_that_holds_no_network_for_the_job_is_refused_with_its_place(
    name: str, words: str, member: httpx.Client, api: Api
) -> None:
    (root,) = api.settings.file_roots
    _write_folder(root / "teacher")
    _write_folder(root.parent / "outside")
    linked = _write_folder(root / "linked")
    (linked / "labels.json").unlink()
    (linked / "labels.json").symlink_to(root.parent / "outside" / "labels.json")
    (_write_folder(root / "pickled") / "pytorch_model.bin").write_bytes(b"")
    (_write_folder(root / "incomplete") / "labels.json").unlink()
    (_write_folder(root / "of-letters") / "labels.json").write_text(json.dumps(list("abcdefghij")))
    answer = member.post("/v1/jobs", json=spec(teacher={"source": f"file:{root}/{name}"}))
    assert _pointers(answer) == {"/teacher/source"}
    assert words in answer.json()["errors"][0]["message"]


def test_a_network_of_other_classes_may_be_a_student_or_a_teacher_that_is_fine_tuned(member: httpx.Client, api: Api) -> None:
    (root,) = api.settings.file_roots
    (_write_folder(root / "of-letters") / "labels.json").write_text(json.dumps(list("abcdefghij")))
    source = {"source": f"file:{root}/of-letters"}
    assert member.post("/v1/jobs", json=spec(student=source)).status_code == 201
    assert member.post("/v1/jobs", json=spec(teacher=source | {"training": {}})).status_code == 201
    texts = spec(
        task="text-classification", dataset={"source": "builtin:languages"}, teacher=source | {"training": {}}, student=source
    )
    answer = member.post("/v1/jobs", json=texts)
    assert _pointers(answer) == {"/teacher/source", "/student/source"}
    assert "reads images, and text-classification reads texts" in answer.json()["errors"][0]["message"]


def test_a_student_that_a_job_is_still_to_train_is_waited_for(member: httpx.Client) -> None:
    first = submit(member)
    assert submit(member, student={"source": f"job:{first['id']}"})["status"] == "waiting"
    for source in ("job:job_00000000000000000000000000", "model:model_00000000000000000000000000"):
        assert _pointers(member.post("/v1/jobs", json=spec(student={"source": source}))) == {"/student/source"}


@pytest.mark.parametrize(
    "method",
    [
        {"name": "born-again", "generations": 2},
        {"name": "teacher-assistant", "assistants": [{"name": "small-cnn"}]},
        {"name": "distillation-network"},
        {"terms": [{"name": "soft-targets"}, {"name": "distillation-network"}]},
    ],
)
def test_a_method_that_builds_the_student_itself_takes_none_that_exists(member: httpx.Client, method: dict[str, Any]) -> None:
    answer = member.post("/v1/jobs", json=spec(student={"source": "hub:a/b"}, method=method))
    assert _pointers(answer) == {"/student/source"}
    assert "builds its networks itself" in answer.json()["errors"][0]["message"]


def _write_folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    for file in path.iterdir():
        file.unlink()
    for name, content in folder().items():
        (path / name).write_bytes(content)
    return path


def _write_npz(path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(path, image=random.integers(0, 255, (60, 8, 8), dtype=np.uint8), label=np.arange(60) % 3)
