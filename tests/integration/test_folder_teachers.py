"""Teachers in a folder of this host: ``file:FOLDER``, with and without the service."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.store import Store
from tests.integration.test_chain import report, train
from tests.integration.test_teachers import CNN, SHORT, spec
from worker import standalone
from worker.host.inputs import InputFetcher
from worker.protocol import RESULT_FOLDER, Finished


def test_a_teacher_in_a_folder_teaches_without_the_service(tmp_path: Path) -> None:
    train(spec({"architecture": CNN, "training": SHORT}), tmp_path / "made")
    folder = tmp_path / "made" / RESULT_FOLDER / "teacher"
    document = spec(
        {"source": f"file:{folder}", "accept_score": "any"}, training={"max_steps": 2, "optimizer": {"name": "adafactor"}}
    )

    last = standalone.train(parse_spec(document), tmp_path / "out", lambda event: None)

    assert isinstance(last, Finished)
    assert last.result["teacher"]["test_score"] == report(tmp_path / "made")["teacher"]["test_score"]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_refused_at_its_place(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    document = spec([{"source": f"file:{tmp_path / name}"}, {"architecture": CNN}])
    with pytest.raises(InvalidSpec, match="there is no folder") as refused:
        standalone.train(parse_spec(document), tmp_path / "out", lambda event: None)
    assert [fault.pointer for fault in refused.value.faults] == ["/teacher/0/source"]


def test_a_worker_reads_a_teacher_where_it_lies(tmp_path: Path) -> None:
    with Session() as unbound:
        inputs = InputFetcher(
            spec([{"source": f"file:{tmp_path}"}, {"architecture": CNN}]),
            tmp_path / "job",
            store=Store(f"file://{tmp_path}/store"),
            in_database=lambda work: work(unbound),
            in_store=lambda work: work(),
        ).fetch()
    assert inputs == {f"file:{tmp_path}": tmp_path}
    assert not (tmp_path / "job").exists()
