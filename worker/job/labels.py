"""What a job can measure with the labels that its data have: the control, the choice of weights, the scores."""

from service.spec import JobSpec
from service.spec.method_fit import unweighted_methods, why_unweighted
from service.spec.methods import terms_of
from service.spec.warning_message import WarningMessage
from worker.data import Data
from worker.errors import JobFault
from worker.tasks import TASKS


def without_control(spec: JobSpec, data: Data) -> JobSpec:
    """The spec without a control, if the data lack the labels that it is trained, chosen or scored by."""
    if not spec.evaluation.control or not _unlabelled(data):
        return spec
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"control": False})})


def refuse_unfit_method(spec: JobSpec, data: Data) -> None:
    """Raises JobFault if the method does not fit the labels, as only a teacher tells them, or the rows' weights."""
    if data.splits["train"].weights is not None and (found := unweighted_methods(spec)):
        raise JobFault("invalid_spec", f"{why_unweighted(found)}.", details={"pointer": "/dataset/weight"})
    unfit = [term.name for term in terms_of(spec.method) if term.needs_classes]
    if unfit and any(target.is_multi_label for target in data.targets):
        raise JobFault(
            "invalid_spec",
            f"{', '.join(unfit)} compares classes of which a row has one; by its teacher a row has any number of them.",
            hint="Take soft-targets, multi-task or distillation-network, or a method of inner layers, such as fitnet.",
            details={"pointer": "/method"},
        )


def label_warnings(spec: JobSpec, data: Data) -> list[WarningMessage]:
    """What the data's lack of labels leaves out of the report of ``spec``, as it was submitted."""
    unlabelled = _unlabelled(data)
    found = []
    if spec.evaluation.control and unlabelled:
        message = (
            "There is no control, and no gain: it learns from labels, its best weights are chosen by them and it is scored by "
            f"them, and {_splits(unlabelled)}."
        )
        found.append(WarningMessage(code="no_control", message=message))
    if "validation" in unlabelled:
        message = (
            "The validation split has no labels: the student's best weights are those that agree best with its teacher, and so "
            "is early stopping's measure."
        )
        found.append(WarningMessage(code="chosen_by_agreement", message=message))
    if "test" in unlabelled:
        scores = "no score, nor an interval over the seeds" if spec.evaluation.seeds else "no score"
        message = f"The test split has no labels: there is {scores}, and of the student only its agreement with its teacher."
        found.append(WarningMessage(code="no_score", message=message))
    return found


def _unlabelled(data: Data) -> list[str]:
    task = TASKS[data.task]
    return [name for name, split in data.splits.items() if not task.can_score(split.own.labels, data.targets)]


def _splits(names: list[str]) -> str:
    if len(names) == 1:
        return f"the {names[0]} split has none"
    return f"the splits {', '.join(names[:-1])} and {names[-1]} have none"
