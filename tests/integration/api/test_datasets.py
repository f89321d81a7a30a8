"""Uploading a dataset: streamed, read through, stored once; whatever is refused leaves nothing behind."""

import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy.orm import Session

from service.database import Database
from service.tables import Dataset
from tests.integration.api.conftest import Api, Team, spec, submit
from tests.unit.words import TASK, task_of_words

FORM = {"name": "squares", "task": "image-classification"}


def npz(**changes: Any) -> bytes:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {"image": random.integers(0, 255, (60, 8, 8), dtype=np.uint8), "label": np.arange(60) % 3}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays | changes)
    return buffer.getvalue()


def upload(client: httpx.Client, content: bytes, **form: str) -> httpx.Response:
    return client.post("/v1/datasets", data=FORM | form, files={"file": ("squares.npz", content)})


def test_an_uploaded_dataset_is_described_and_can_be_trained_on(member: httpx.Client, api: Api) -> None:
    content = npz()
    answer = upload(member, content)
    dataset = answer.json()
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/datasets/{dataset['id']}"
    assert dataset["splits"] == {"train": 60}
    assert dataset["classes"] == ["0", "1", "2"]
    assert dataset["columns"]["image"]["shape"] == [8, 8, 1]
    assert (dataset["sha256"], dataset["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert dataset["filename"] == "squares.npz"
    stored = {path.name: path.stat().st_size for path in api.files() if path.is_file()}
    assert sorted(stored) == ["index.json", "samples.json", "train-00000.parquet"]
    assert (dataset["original_kept"], dataset["stored_bytes"]) == (False, sum(stored.values()) - stored["samples.json"])
    assert list(api.staging_folder.iterdir()) == []
    job = submit(member, dataset={"source": f"dataset:{dataset['id']}"})
    assert job["status"] == "queued"
    seen = member.get(f"/v1/datasets/{dataset['id']}").json()
    samples, facts = seen.pop("samples"), seen.pop("facts")
    assert seen == dataset
    assert (facts["decoded_bytes"], facts["shared_rows"], facts["lengths"]["image"]["most"]) == ({"train": 60 * 64}, [], 8)
    assert samples[1]["targets"] == {"label": "1"}
    assert [(sample["row"], sample["label"], sample["shape"]) for sample in samples] == [
        (row, str(row % 3), [8, 8, 1]) for row in range(5)
    ]


def test_the_same_bytes_twice_are_the_same_dataset(member: httpx.Client, team: Team) -> None:
    first = upload(member, npz())
    again = upload(team.join("ben"), npz(), name="mine")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    other_column = upload(member, npz(picture=np.zeros((60, 8, 8), np.uint8)), input_column="picture")
    assert other_column.status_code == 201
    listed = member.get("/v1/datasets", params={"limit": 1}).json()
    assert listed["has_more"] is True
    assert [dataset["id"] for dataset in listed["data"]] == [other_column.json()["id"]]
    rest = member.get("/v1/datasets", params={"after": other_column.json()["id"]}).json()
    assert [dataset["id"] for dataset in rest["data"]] == [first.json()["id"]]


def upload_texts(client: httpx.Client, *rows: dict[str, Any], **form: str) -> httpx.Response:
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    return client.post("/v1/datasets", data=FORM | form, files={"file": ("texts.jsonl", content)})


def test_a_dataset_of_texts_may_have_several_targets(member: httpx.Client) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a" * 600, "label": "warm", "score": None, "id": 7},
        {"text": "b", "label": None, "score": 0.5, "id": 8},
        {"text": "c", "label": "cold", "score": 1.5, "id": 9},
    ]
    answer = upload_texts(member, *rows, task="text-classification", target_column=" label , score")
    dataset = answer.json()
    assert answer.status_code == 201, answer.text
    assert (dataset["task"], dataset["splits"], dataset["classes"]) == ("text-classification", {"train": 3}, ["cold", "warm"])
    told = {name: (column["kind"], column["num_missing"]) for name, column in dataset["columns"].items()}
    assert told == {"text": ("text", 0), "label": ("label", 1), "score": ("number", 1), "id": ("other", 0)}
    assert dataset["columns"]["label"]["class_counts"] == {"train": [1, 1]}
    first, second, _ = member.get(f"/v1/datasets/{dataset['id']}").json()["samples"]
    assert (first["text"], first["targets"], first["shape"]) == ("a" * 500, {"label": "warm", "score": None}, None)
    assert second["targets"] == {"label": None, "score": 0.5}


def test_rows_in_two_splits_are_told_at_once_and_an_old_description_has_no_such_facts(
    member: httpx.Client, database: Database
) -> None:
    rows = [{"text": f"row {index % 8}", "label": index % 2, "split": "train" if index < 8 else "test"} for index in range(10)]
    dataset = upload_texts(member, *rows, task="text-classification").json()
    assert "2 of 2 rows of split 'test' are in split 'train' too" in dataset["warnings"][-1]["message"]
    assert dataset["warnings"][-1]["code"] == "rows_in_train"
    (shared,) = member.get(f"/v1/datasets/{dataset['id']}").json()["facts"]["shared_rows"]
    assert (shared["split"], shared["also_in"], shared["rows"]) == ("test", "train", 2)
    assert shared["first"][0] == {"here": {"row": 8, "line": 9}, "there": {"row": 0, "line": 1}}

    def forget(session: Session) -> None:
        stored = session.get_one(Dataset, dataset["id"])
        stored.info = {name: value for name, value in stored.info.items() if name != "facts"}

    database.run(forget)
    assert member.get(f"/v1/datasets/{dataset['id']}").json()["facts"] is None


def test_the_same_bytes_are_stored_once_for_each_task_and_targets(member: httpx.Client) -> None:
    rows = [{"text": f"row {index}", "label": index % 2} for index in range(4)]
    tasks = ["text-classification", "causal-lm"]
    stored = [upload_texts(member, *rows, task=task) for task in tasks]
    assert [answer.status_code for answer in stored] == [201, 201]
    assert [answer.json()["classes"] for answer in stored] == [["0", "1"], []]
    again = [upload_texts(member, *rows, task=task) for task in tasks]
    assert [answer.json() for answer in again] == [answer.json() for answer in stored]


def test_a_column_of_weights_is_stored_beside_the_targets_and_is_told_where_it_takes_no_part(member: httpx.Client) -> None:
    rows = [{"text": f"row {index}", "label": index % 2, "trust": 1 + index % 3} for index in range(60)]
    for columns in ({}, {"target_column": "label"}):
        answer = upload_texts(member, *rows, task="text-classification", weight_column="trust", **columns)
        assert answer.status_code == 201, answer.text
        assert (answer.json()["columns"]["trust"]["kind"], answer.json()["classes"]) == ("weight", ["0", "1"])
        (first, *_) = member.get(f"/v1/datasets/{answer.json()['id']}").json()["samples"]
        assert (first["weight"], first["targets"]) == (1.0, {"label": "0"})
    assert upload_texts(member, *rows, task="text-classification", weight_column="trust").status_code == 200
    assert upload_texts(member, *rows, task="text-classification").status_code == 201
    wrong = upload_texts(
        member, *rows[:3], {"text": "a", "label": 0, "trust": -2}, task="text-classification", weight_column="trust"
    )
    assert wrong.status_code == 422


def test_a_dataset_may_have_as_many_targets_with_as_long_names_as_a_spec_names(member: httpx.Client) -> None:
    names = [f"{index:02}{'ü' * 198}" for index in range(64)]
    rows = [{"text": f"row {row}"} | dict.fromkeys(names, row % 2) for row in range(2)]
    first = upload_texts(member, *rows, task="text-classification", target_column=",".join(names))
    assert first.status_code == 201, first.text
    assert first.json()["classes"] == ["0", "1"]
    assert upload_texts(member, *rows, task="text-classification", target_column=",".join(names)).status_code == 200


def test_a_file_that_holds_nothing_for_the_task_is_refused(member: httpx.Client) -> None:
    images = upload(member, npz(), task="text-classification")
    texts = upload_texts(member, {"text": "a", "label": 0}, {"text": "b", "label": 1})
    assert (images.status_code, texts.status_code) == (422, 422)
    assert "an npz file, which holds no texts" in images.json()["detail"]
    assert "neither an npz nor a Parquet nor a zip or tar file" in texts.json()["detail"]


def without_labels() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, image=np.zeros((60, 8, 8), np.uint8))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (without_labels(), "unlabelled", "60 rows have no value in column 'label'"),
        (npz(label=np.arange(60) % 3 * 2), "class_without_rows", "class indices up to 4 and no row of '1', '3'"),
        (npz(label=np.zeros(60, np.int64)), None, "has one class, '0'"),
        (
            npz(test_image=np.zeros((2, 8, 8), np.uint8), test_label=np.array([0, 3])),
            "class_not_in_train",
            "column 'label' of split 'train' has no row of '3', which other splits have",
        ),
    ],
    ids=["no labels", "a gap", "one class", "a class in test alone"],
)
def test_a_file_of_which_not_every_class_is_shown_is_stored_and_a_job_that_learns_its_labels_refused(
    member: httpx.Client, content: bytes, code: str | None, words: str
) -> None:
    answer = upload(member, content)
    assert answer.status_code == 201, answer.text
    codes = [warning["code"] for warning in answer.json()["warnings"]]
    assert codes[-1:] == ([code] if code else [])
    refused = member.post("/v1/jobs", json=spec(dataset={"source": f"dataset:{answer.json()['id']}"}))
    assert refused.status_code == 422
    (fault,) = refused.json()["errors"]
    assert fault["pointer"] == "/dataset/targets/0"
    assert words in fault["message"]


def test_a_job_learns_from_the_rows_that_have_a_label(member: httpx.Client) -> None:
    answer = upload(member, npz(label=np.where(np.arange(60) < 9, -1, np.arange(60) % 3)))
    assert "labels_missing" in [warning["code"] for warning in answer.json()["warnings"]]
    assert submit(member, dataset={"source": f"dataset:{answer.json()['id']}"})["status"] == "queued"


def test_a_stored_spec_names_the_splits_that_its_job_uses(member: httpx.Client) -> None:
    squares, labels = np.zeros((60, 8, 8), np.uint8), np.arange(60) % 3
    buffer = io.BytesIO()
    np.savez(buffer, Train_image=squares, Train_label=labels, val_image=squares, val_label=labels)
    dataset = upload(member, buffer.getvalue()).json()
    job = submit(member, dataset={"source": f"dataset:{dataset['id']}"})
    assert job["spec"]["dataset"]["splits"] == {"train": "Train", "validation": "val", "test": None}


def test_a_job_says_how_its_whole_floats_were_read_and_its_spec_may_declare_them_as_numbers(
    member: httpx.Client, database: Database
) -> None:
    answer = upload(member, npz(label=np.arange(60) % 6.0)).json()
    source = {"source": f"dataset:{answer['id']}"}
    (told,) = [each for each in answer["warnings"] if each["code"] == "labels_from_floats"]
    job = submit(member, dataset=source)
    assert told in job["warnings"]
    assert job["spec"]["dataset"]["numbers"] == []
    declared = submit(member, dataset=source | {"numbers": ["label"]})
    assert declared["spec"]["dataset"]["numbers"] == ["label"]
    assert "labels_from_floats" not in [each["code"] for each in declared["warnings"]]
    refused = member.post("/v1/jobs", json=spec(dataset=source | {"numbers": ["size"]}))
    assert refused.json()["errors"][0]["pointer"] == "/dataset/numbers/0"
    with database.transaction() as session:  # as a release that knew no such classes described it
        stored = session.get_one(Dataset, answer["id"])
        number = {"kind": "number", "num_classes": None, "classes": None, "class_counts": None}
        columns = stored.info["columns"] | {"label": stored.info["columns"]["label"] | number}
        stored.info = stored.info | {"columns": columns, "classes": [], "class_counts": {}, "warnings": []}
    assert submit(member, dataset=source)["spec"]["dataset"]["numbers"] == ["label"]


def test_integers_that_a_spec_declares_as_numbers_are_refused_with_the_remedy(member: httpx.Client) -> None:
    answer = upload(member, npz(label=np.arange(60) % 4)).json()
    dataset = {"source": f"dataset:{answer['id']}", "numbers": ["label"]}
    (fault,) = member.post("/v1/jobs", json=spec(dataset=dataset)).json()["errors"]
    assert fault["pointer"] == "/dataset/numbers/0"
    assert "numbers are written as floats, .astype('float64')" in fault["message"]


def test_labels_in_a_column_of_another_name_are_found_as_a_refused_job_says(member: httpx.Client) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, image=np.zeros((60, 8, 8), np.uint8), kind=np.arange(60) % 3)
    dataset = upload(member, buffer.getvalue()).json()
    refused = member.post("/v1/jobs", json=spec(dataset={"source": f"dataset:{dataset['id']}"})).json()
    words = "if one of 'kind' holds them, name it in dataset.targets, after an upload with target_column=NAME"
    assert words in refused["errors"][0]["message"]
    again = upload(member, buffer.getvalue(), target_column="kind").json()
    submit(member, dataset={"source": f"dataset:{again['id']}", "targets": ["kind"]})


def _pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, image=np.zeros((4, 8, 8), np.uint8), label=np.array([{}, 1, 2, 3], dtype=object))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a dataset",
        npz()[:-100],
        _pickled(),
        npz(image=np.zeros((0, 8, 8), np.uint8), label=np.zeros(0, np.int64)),
        npz(image=np.full((60, 8, 8), np.nan, np.float32)),
        npz(label=np.arange(59)),
        npz(label=np.full(60, -2)),
        npz(image=np.zeros((60, 3), np.uint8)),
    ],
    ids=["empty", "text", "truncated", "pickled", "no rows", "NaN", "lengths", "labels", "no images"],
)
def test_a_file_that_cannot_be_used_is_refused_and_leaves_nothing(member: httpx.Client, api: Api, content: bytes) -> None:
    before = api.files()
    answer = upload(member, content)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_file"
    assert len(answer.json()["detail"]) > 20
    assert api.files() == before
    assert member.get("/v1/datasets").json()["data"] == []


def test_two_input_columns_are_a_pair_of_texts_and_tell_uploads_apart(member: httpx.Client) -> None:
    rows = [{"premise": f"text {index}", "hypothesis": "another", "label": index % 2} for index in range(6)]
    pair = upload_texts(member, *rows, task="text-classification", input_column="premise, hypothesis")
    assert pair.status_code == 201, pair.text
    assert {name: column["kind"] for name, column in pair.json()["columns"].items() if name != "label"} == {
        "premise": "text",
        "hypothesis": "text",
    }
    samples = member.get(f"/v1/datasets/{pair.json()['id']}").json()["samples"]
    assert [(sample["text"], sample["texts"]) for sample in samples[:2]] == [
        (None, ["text 0", "another"]),
        (None, ["text 1", "another"]),
    ]
    forms = {"premise,hypothesis": 200, "hypothesis,premise": 201, "premise": 201}
    for columns, status in forms.items():
        assert upload_texts(member, *rows, task="text-classification", input_column=columns).status_code == status
    for columns in ("premise,", "premise,premise", "premise,hypothesis,label", f"premise,{'x' * 201}"):
        refused = upload_texts(member, *rows, task="text-classification", input_column=columns)
        assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/input_column"]
    alone = upload_texts(member, *rows, task="sentence-embedding", input_column="premise,hypothesis")
    assert "no input column 'premise,hypothesis'" in alone.json()["detail"]


@pytest.mark.parametrize(
    ("form", "pointer"),
    [
        ({"task": "text-recognition"}, "/task"),
        ({"name": ""}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "nul\0"}, "/name"),
        ({"colour": "red"}, "/colour"),
        ({"input_column": "x" * 201}, "/input_column"),
        ({"target_column": "label,"}, "/target_column"),
        ({"target_column": "label, label"}, "/target_column"),
        ({"target_column": "x" * 201}, "/target_column"),
        ({"target_column": ",".join(f"t{index}" for index in range(65))}, "/target_column"),
    ],
)
def test_a_form_that_is_wrong_is_refused_and_leaves_nothing(
    member: httpx.Client, api: Api, form: dict[str, str], pointer: str
) -> None:
    before = api.files()
    answer = upload(member, npz(), **form)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert api.files() == before


def test_a_target_column_that_is_not_there_is_refused(member: httpx.Client) -> None:
    answer = upload(member, npz(), target_column="kind")
    assert answer.status_code == 422
    assert "kind" in answer.json()["detail"]


def test_a_body_that_is_no_form_is_refused(member: httpx.Client, api: Api) -> None:
    before = api.files()
    assert member.post("/v1/datasets", json=FORM).status_code == 415
    assert member.post("/v1/datasets", data=FORM).status_code == 415
    assert member.post("/v1/datasets", data=FORM, files={"other": b"x"}).status_code == 422
    headers = {"content-type": "multipart/form-data; boundary=b"}
    for body in (b"", b"--b\r\n", b"--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\nhalf", b"garbage"):
        assert member.post("/v1/datasets", content=body, headers=headers).status_code == 400
    assert member.post("/v1/datasets", content=b"x", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert api.files() == before


def test_an_upload_above_the_limit_is_refused_and_leaves_nothing(member: httpx.Client, api: Api) -> None:
    before = api.files()
    limit = api.settings.max_upload_bytes
    declared = member.post("/v1/datasets", data=FORM, files={"file": ("x.npz", bytes(limit))})
    assert declared.status_code == 413

    def chunks() -> Iterator[bytes]:
        yield b"--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\n"
        for _ in range(limit // 100_000 + 1):
            yield bytes(100_000)

    streamed = member.post("/v1/datasets", content=chunks(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert streamed.status_code == 413
    assert streamed.json()["code"] == "body_too_large"
    assert api.files() == before


def test_a_dataset_of_transfer_rows_in_use_cannot_be_deleted(member: httpx.Client) -> None:
    main, more = (upload(member, npz(label=np.arange(60) % classes)).json() for classes in (4, 5))
    dataset = {"source": f"dataset:{main['id']}", "transfer": f"dataset:{more['id']}"}
    job = submit(member, dataset=dataset)
    refused = member.delete(f"/v1/datasets/{more['id']}")
    assert refused.status_code == 409
    assert job["id"] in refused.json()["detail"]
    member.post(f"/v1/jobs/{job['id']}/cancel")
    assert member.delete(f"/v1/datasets/{more['id']}").status_code == 204
    again = member.post("/v1/jobs", json=spec(dataset=dataset))
    assert again.status_code == 422
    assert [fault["pointer"] for fault in again.json()["errors"]] == ["/dataset/transfer"]
    assert "there is no dataset" in again.json()["errors"][0]["message"]


def test_a_dataset_in_use_cannot_be_deleted(member: httpx.Client, api: Api, team: Team) -> None:
    before = api.files()
    dataset = upload(member, npz()).json()
    path = f"/v1/datasets/{dataset['id']}"
    job = submit(member, dataset={"source": f"dataset:{dataset['id']}"})
    assert team.join("ben").delete(path).status_code == 403
    refused = member.delete(path)
    assert refused.status_code == 409
    assert job["id"] in refused.json()["detail"]
    member.post(f"/v1/jobs/{job['id']}/cancel")
    assert member.delete(path).status_code == 204
    assert member.get(path).status_code == 404
    assert member.delete(path).status_code == 404
    assert [path for path in api.files() if path not in before and path.is_file()] == []
    again = member.post("/v1/jobs", json=spec(dataset={"source": f"dataset:{dataset['id']}"}))
    assert again.status_code == 422


def test_a_viewers_upload_is_refused_before_it_is_read(viewer: httpx.Client, database: Database) -> None:
    assert upload(viewer, npz()).status_code == 403


@pytest.mark.usefixtures(task_of_words.__name__)
def test_words_and_tags_are_described_and_shown(member: httpx.Client) -> None:
    rows: list[dict[str, Any]] = [{"tokens": ["Ann", "left"], "tags": ["B-PER", "O"]}, {"tokens": ["rain"], "tags": None}]
    content = "\n".join(map(json.dumps, rows)).encode()
    answer = member.post("/v1/datasets", data={"name": "words", "task": TASK}, files={"file": ("words.jsonl", content)})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert {name: column["kind"] for name, column in dataset["columns"].items()} == {"tokens": "tokens", "tags": "tags"}
    assert (dataset["classes"], dataset["class_counts"]) == (["B-PER", "O"], {"train": [1, 1]})
    shown = member.get(f"/v1/datasets/{dataset['id']}").json()["samples"]
    assert [(sample["tokens"], sample["targets"]) for sample in shown] == [(row["tokens"], {"tags": row["tags"]}) for row in rows]
    refused = {"tokens": ["Ann", "Lee"], "tags": ["B-PER"]}
    answer = member.post(
        "/v1/datasets", data={"name": "words", "task": TASK}, files={"file": ("w.jsonl", json.dumps(refused).encode())}
    )
    assert answer.status_code == 422
    assert "row 0 (line 1): 1 tags for 2 tokens" in answer.text


def test_a_file_whose_columns_tell_its_task_needs_none_and_what_is_named_wins(member: httpx.Client) -> None:
    def posted(*rows: dict[str, Any], **form: str) -> httpx.Response:
        content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        return member.post("/v1/datasets", data={"name": "mine"} | form, files={"file": ("rows.jsonl", content)})

    answer = posted({"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["task"] == "causal-lm"
    assert {name: column["kind"] for name, column in answer.json()["columns"].items()} == {"prompt": "text", "completion": "text"}
    assert posted({"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}, task="").status_code == 200
    texts = posted({"text": "a", "label": 0, "kind": 1}, {"text": "b", "label": 1, "kind": 0}, target_column="kind")
    assert (texts.json()["task"], texts.json()["columns"]["kind"]["kind"]) == ("text-classification", "label")
    refused = posted({"text": "a"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_file")
    assert "its columns are 'text'" in refused.json()["detail"]
