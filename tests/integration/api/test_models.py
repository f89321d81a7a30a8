"""Uploading a model: unpacked safely, looked through, stored; whatever is refused leaves nothing behind."""

import io
import json
import tarfile
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest

from service.database import Database
from tests.integration.api.conftest import Api, Team, spec, submit

CONFIG = {
    "model_type": "stillhouse",
    "architecture": {"name": "small-cnn", "width": 4},
    "input_shape": [1, 8, 8],
    "num_outputs": 10,
}
LABELS = [str(digit) for digit in range(10)]


def safetensors(**tensors: tuple[int, ...]) -> bytes:
    header, position = {}, 0
    for name, shape in tensors.items():
        size = int(np.prod(shape)) * 4
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(position)


def folder(**changes: bytes | None) -> dict[str, bytes]:
    files: dict[str, bytes | None] = {
        "config.json": json.dumps(CONFIG).encode(),
        "labels.json": json.dumps(LABELS).encode(),
        "preprocessor_config.json": b'{"image_mean": [0.0], "image_std": [1.0], "rescale_factor": 1.0}',
        "model.safetensors": safetensors(weight=(3, 4)),
    }
    merged = files | {name.replace("__", "."): content for name, content in changes.items()}
    return {name: content for name, content in merged.items() if content is not None}


def zipped(files: dict[str, bytes], *, prefix: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def upload(client: httpx.Client, content: bytes, *, filename: str = "teacher.zip") -> httpx.Response:
    return client.post("/v1/models", data={"name": "teacher"}, files={"file": (filename, content)})


@pytest.mark.parametrize(
    "archive", [zipped(folder()), zipped(folder(), prefix="my-model/"), zipped(folder(), prefix="out/a/"), tarred(folder())]
)
def test_an_uploaded_model_teaches(member: httpx.Client, api: Api, archive: bytes) -> None:
    answer = upload(member, archive)
    model = answer.json()
    assert answer.status_code == 201, answer.text
    assert (model["classes"], model["input_shape"], model["job_id"]) == (LABELS, [1, 8, 8], None)
    assert [file["name"] for file in model["files"]] == sorted(folder())
    assert member.get(f"/v1/models/{model['id']}").json() == model
    assert [listed["id"] for listed in member.get("/v1/models").json()["data"]] == [model["id"]]
    weights = member.get(f"/v1/models/{model['id']}/files/model.safetensors")
    assert weights.content == folder()["model.safetensors"]
    assert member.get(f"/v1/models/{model['id']}/files/none").status_code == 404
    assert list(api.staging_folder.iterdir()) == []
    job = submit(member, teacher={"source": f"model:{model['id']}"})
    refused = member.delete(f"/v1/models/{model['id']}")
    assert refused.status_code == 409
    assert job["id"] in refused.json()["detail"]


CARD = b"""---
license: other
license_name: house-licence
base_model: [microsoft/resnet-18]
---
# Signs
"""


def test_the_catalogue_says_what_a_model_is_and_who_uses_it(member: httpx.Client, database: Database) -> None:
    weights = safetensors(**{"body.weight": (3, 4), "norm.running_mean": (7,)})
    model = upload(member, zipped(folder(model__safetensors=weights, README__md=CARD))).json()
    said = {field: model[field] for field in ("parameters", "dtype", "licence", "base", "part", "job_id", "handle")}
    assert said == {
        "parameters": 12,
        "dtype": "fp32",
        "licence": "house-licence",
        "base": "microsoft/resnet-18",
        "part": None,
        "job_id": None,
        "handle": None,
    }
    assert model["bytes"] == sum(file["size"] for file in model["files"])
    source = {"source": f"model:{model['id']}"}
    first, *over = [submit(member, teacher=source)["id"] for _ in range(12)]
    for job_id in over:
        member.post(f"/v1/jobs/{job_id}/cancel")
    also = submit(member, student=source)["id"]
    (listed,) = member.get("/v1/models").json()["data"]
    assert listed["used_by"] == {"count": 13, "jobs": [also, first, *sorted(over, reverse=True)[:8]]}
    assert member.get(f"/v1/models/{model['id']}").json() == listed
    member.post(f"/v1/jobs/{first}/cancel")
    assert f"job {also} uses model" in member.delete(f"/v1/models/{model['id']}").json()["detail"]
    member.post(f"/v1/jobs/{also}/cancel")
    assert member.delete(f"/v1/models/{model['id']}").status_code == 204


@pytest.mark.parametrize(
    "card",
    [
        b"no front matter",
        b"---\nlicense: [\n---\n",
        b"---\nlicense: 3\n---\n",
        b'---\nlicense: "a\\0"\n---\n',
        b"---\n- a\n---\n",
    ],
)
def test_a_card_that_says_nothing_of_a_licence_leaves_it_unknown(member: httpx.Client, card: bytes) -> None:
    model = upload(member, zipped(folder(README__md=card))).json()
    assert (model["licence"], model["base"], model["parameters"]) == (None, None, 12)


def test_a_model_can_be_named_and_specs_that_say_the_name_are_stored_with_its_id(team: Team) -> None:
    ana, ben = team.join("ana"), team.join("ben")
    first, second = (upload(ana, zipped(folder())).json()["id"] for _ in range(2))
    named = ana.patch(f"/v1/models/{first}", json={"handle": "signs", "name": "Road signs"}).json()
    assert (named["handle"], named["name"]) == ("signs", "Road signs")
    for part in ("teacher", "student"):
        job = submit(ben, **{part: {"source": "model:signs"}})
        assert job["spec"][part]["source"] == f"model:{first}"
    both = ben.post("/v1/jobs", json=spec(teacher=[{"source": "model:signs"}, {"source": f"model:{first}"}]))
    assert "is the very network of /teacher/0" in both.json()["errors"][0]["message"]
    checked = ben.post("/v1/jobs?dry_run=true", json=spec(teacher=[{"source": "model:signs"}, {"source": f"model:{second}"}]))
    assert checked.json()["teacher"][0]["source"] == f"model:{first}"
    unknown = ben.post("/v1/jobs", json=spec(teacher={"source": "model:sings"}))
    assert unknown.json()["errors"] == [
        {"pointer": "/teacher/source", "message": "there is no model 'sings'; there is model:signs"}
    ]
    taken = ana.patch(f"/v1/models/{second}", json={"handle": "signs"})
    assert (taken.status_code, taken.json()["code"]) == (409, "handle_taken")
    assert ben.patch(f"/v1/models/{first}", json={"handle": "mine"}).status_code == 403
    assert ana.patch(f"/v1/models/{first}", json={"handle": None}).json()["handle"] is None
    assert ana.patch(f"/v1/models/{second}", json={"handle": "signs"}).json()["handle"] == "signs"
    assert submit(ben, teacher={"source": "model:signs"})["spec"]["teacher"]["source"] == f"model:{second}"


@pytest.mark.parametrize("handle", ["", "model_1", "Signs", "-signs", "a b", "a/b", "a" * 64, "ä"])
def test_a_name_that_could_not_stand_in_a_spec_is_refused(member: httpx.Client, handle: str) -> None:
    model = upload(member, zipped(folder())).json()["id"]
    answer = member.patch(f"/v1/models/{model}", json={"handle": handle})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/handle")


def test_a_transformers_folder_tells_classes_and_shape_by_its_configs(member: httpx.Client) -> None:
    config = {"model_type": "resnet", "num_channels": 3, "id2label": {"0": "cat", "1": "dog"}}
    size = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 32, "width": 48}}
    files = folder(
        config__json=json.dumps(config).encode(),
        labels__json=None,
        preprocessor_config__json=json.dumps(size).encode(),
    )
    model = upload(member, zipped(files)).json()
    assert (model["classes"], model["input_shape"]) == (["cat", "dog"], [3, 32, 48])


def test_an_uploaded_network_whose_processor_resizes_may_teach_images_of_another_size(member: httpx.Client) -> None:
    config = {"model_type": "vit", "id2label": dict(enumerate(LABELS))}
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}
    files = folder(
        config__json=json.dumps(config).encode(), labels__json=None, preprocessor_config__json=json.dumps(processor).encode()
    )
    model = upload(member, zipped(files)).json()
    assert model["input_shape"] == [3, 224, 224]
    assert submit(member, teacher={"source": f"model:{model['id']}"})["status"] == "queued"  # of grey digits of 8x8 pixels


def test_a_model_without_names_is_refused_as_a_teacher_and_with_names_in_any_order_it_teaches(member: httpx.Client) -> None:
    def submitted(names: list[str]) -> httpx.Response:
        model = upload(member, zipped(folder(labels__json=json.dumps(names).encode()))).json()
        return member.post("/v1/jobs", json=spec(teacher={"source": f"model:{model['id']}"}))

    refused = submitted([f"LABEL_{digit}" for digit in range(10)])
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["pointer"] == "/teacher/source"
    assert '"id2label": {"0": "0", "1": "1", "2": "2", …}' in error["message"]
    assert submitted(LABELS[::-1]).status_code == 201


def _config(**changes: Any) -> bytes:
    return json.dumps(CONFIG | changes).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no zip or tar"),
        (b"PK\x03\x04 cut", "no zip or tar"),
        (zipped(folder())[:-30], "no zip or tar"),
        (tarred(folder())[:200], "no zip or tar"),
        (zipped({}), "no file"),
        (zipped(folder(pytorch_model__bin=b"\x80\x04.", model__safetensors=None)), "save_pretrained"),
        (zipped(folder(model__pt=b"\x80\x04.", model__safetensors=None)), "save_file"),
        (zipped(folder(training_args__bin=b"\x80\x04.")), "leave these files out"),
        (zipped(folder(modeling__py=b"import os")), "leave these out"),
        (zipped(folder(config__json=None)), "config.json is missing"),
        (zipped(folder(adapter_config__json=b"{}", config__json=None)), "merge the adapter"),
        (
            zipped({"a/notes.txt": b"", **{f"a/b/{name}": content for name, content in folder().items()}}),
            "pack that folder alone",
        ),
        (zipped(folder(preprocessor_config__json=None)), "preprocessor_config.json is missing"),
        (zipped(folder(model__safetensors=None)), "model.safetensors is missing"),
        (zipped(folder(labels__json=b'["one"]')), "must agree"),
        (zipped(folder(labels__json=b"[" * 100_000)), "not JSON"),
        (zipped(folder(config__json=b"[]")), "not a JSON object"),
        (zipped(folder(config__json=_config(architecture={"name": "huge"}))), "architecture"),
        (zipped(folder(config__json=_config(input_shape=[1, 8]))), "input_shape"),
        (zipped(folder(config__json=_config(input_shape=[1, 8, 2**40]))), "whole number"),
        (zipped(folder(config__json=_config(model_type="bart"))), "no network"),
        (zipped(folder(config__json=_config(model_type="vit", auto_map={"AutoModel": "x.Y"}))), "auto_map"),
        (zipped(folder(model__safetensors=b"")), "safetensors"),
        (zipped(folder(model__safetensors=b"\xff" * 64)), "safetensors"),
        (zipped(folder(model__safetensors=safetensors(weight=(3, 4))[:-1])), "cut off"),
        (zipped(folder(model__safetensors=safetensors(weight=(3, 4)) + b"x")), "behind"),
        (zipped(folder(**{"../evil__txt": b"x"})), "leads out"),
        (zipped(folder(**{"/etc/evil__txt": b"x"})), "leads out"),
        (zipped(folder(**{"a\\b__txt": b"x"})), "leads out"),
        (tarred(folder(), links={"link.json": "/etc/passwd"}), "link"),
        (zipped(folder(notes__txt=bytes(80_000_000))), "far more"),
        (zipped({f"{number}.txt": b"" for number in range(1001)}), "1000 files"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_and_leaves_nothing(
    member: httpx.Client, api: Api, content: bytes, said: str
) -> None:
    before = api.files()
    answer = upload(member, content)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_file"
    assert said in answer.json()["detail"]
    assert api.files() == before
    assert member.get("/v1/models").json()["data"] == []


@pytest.mark.parametrize(
    ("form", "pointers"),
    [
        ({"task": "text-recognition"}, ["/task"]),
        ({"name": "x" * 201}, ["/name"]),
        ({"name": "x" * 201, "task": "text-recognition"}, ["/name", "/task"]),
        ({"colour": "red"}, ["/colour"]),
    ],
)
def test_a_form_that_is_wrong_is_refused_and_leaves_nothing(
    member: httpx.Client, api: Api, form: dict[str, str], pointers: list[str]
) -> None:
    before = api.files()
    answer = member.post("/v1/models", data=form, files={"file": ("teacher.zip", zipped(folder()))})
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == pointers
    assert api.files() == before


def test_a_model_without_a_name_and_a_task_has_its_files_name_and_its_own_task(member: httpx.Client) -> None:
    answer = member.post("/v1/models", data={"name": "", "task": ""}, files={"file": ("teacher.zip", zipped(folder()))})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["name"], answer.json()["task"]) == ("teacher.zip", "image-classification")


@pytest.mark.parametrize("filename", ["pytorch_model.bin", "teacher.pt", "teacher.PKL"])
def test_a_loose_pickle_is_refused_with_the_reason_and_how_to_convert_it(member: httpx.Client, filename: str) -> None:
    answer = upload(member, b"\x80\x04.", filename=filename)
    detail = answer.json()["detail"]
    assert answer.status_code == 422
    assert detail.startswith(f"'{filename}': such files can run code when they are read")
    assert "save_pretrained" in detail
    assert "config.json" in detail


def test_loose_weights_are_refused_with_what_they_lack(member: httpx.Client) -> None:
    answer = upload(member, safetensors(weight=(3, 4)), filename="model.safetensors")
    assert answer.status_code == 422
    assert "send a zip or tar of the folder with model.safetensors, config.json" in answer.json()["detail"]


def test_a_models_file_is_sent_whole_in_part_or_not_at_all(member: httpx.Client) -> None:
    url = f"/v1/models/{upload(member, zipped(folder())).json()['id']}/files/model.safetensors"
    weights = folder()["model.safetensors"]
    etag = member.get(url).headers["etag"]
    part = member.get(url, headers={"Range": "bytes=8-"})
    assert (part.status_code, part.content) == (206, weights[8:])
    assert member.get(url, headers={"Range": "bytes=8-", "If-Range": '"old"'}).content == weights
    assert member.get(url, headers={"Range": f"bytes={len(weights)}-"}).status_code == 416
    assert member.get(url, headers={"If-None-Match": etag}).status_code == 304


def test_a_member_list_that_lies_about_a_size_is_found_out(member: httpx.Client) -> None:
    content = zipped(folder(notes__txt=bytes(80_000_000)))
    lied = content.replace((80_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lied != content
    assert upload(member, lied).status_code == 422


def test_an_unused_model_is_deleted_with_its_files(member: httpx.Client, api: Api, team: Team) -> None:
    before = api.files()
    path = f"/v1/models/{upload(member, zipped(folder())).json()['id']}"
    assert team.join("ben").delete(path).status_code == 403
    assert member.delete(path).status_code == 204
    assert member.get(path).status_code == 404
    assert [path for path in api.files() if path not in before and path.is_file()] == []
    assert member.post("/v1/jobs", json=spec(teacher={"source": f"model:{path.rpartition('/')[2]}"})).status_code == 422
