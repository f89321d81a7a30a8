"""The documents of a result folder."""

from pathlib import Path

from service.spec import JobSpec
from service.spec.report import Report
from worker.models.labels_file import write_json
from worker.report.model_card import lineage_card, model_card
from worker.report.page import report_html
from worker.sources.folder_files import CARD_FILE
from worker.spec_file import write_spec


def write_documents(folder: Path, *, report: Report, spec: JobSpec) -> None:
    """Writes ``report.json``, ``report.html``, ``README.md``, the same beside the student's weights, and ``spec.json``.

    A teacher that has the weights of a network which exists gets a card of its base and licence.
    """
    write_json(folder / "report.json", report.model_dump(mode="json"))
    (folder / "report.html").write_text(report_html(report), encoding="utf-8")
    for place in (folder, folder / "student"):
        # What the student's own folder reports, it is measured by when it teaches.
        (place / CARD_FILE).write_text(model_card(report, spec), encoding="utf-8")
    several = [(f"teacher-{number}", card.start) for number, card in enumerate(report.teachers, start=1)]
    for name, origin in several or [("teacher", report.teacher.start)]:
        if origin is not None and (folder / name).is_dir():
            (folder / name / CARD_FILE).write_text(lineage_card(origin), encoding="utf-8")
    write_spec(folder, spec)
