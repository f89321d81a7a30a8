"""Whether what a training says of its label loss fits the job's targets: every fault at its place. Pure, no torch."""

from collections.abc import Iterator

from service.errors import FieldError
from service.spec.data import DatasetInfo
from service.spec.data_fit import listed, output_names, target_classes
from service.spec.job import JobSpec
from service.spec.tasks import TASKS


def label_loss_faults(spec: JobSpec, dataset: DatasetInfo) -> Iterator[FieldError]:
    """Finds smoothed labels and weights of classes where no target has classes, and weights of classes that are none.

    Classes that are a teacher's which only the worker knows are checked there.
    """
    classes = [target_classes(dataset, name) for name in spec.dataset.targets] if TASKS[spec.task].targets else []
    names = output_names(spec.dataset, dataset) if any(classes) else []
    places = {"": spec.training} | {f"/{place}": teacher.training for place, teacher in spec.teachers.items()}
    for place, training in places.items():
        if training is None:
            continue
        for field in ("label_smoothing", "class_weights"):
            if getattr(training, field) and all(each is None for each in classes):
                message = (
                    f"it is of the cross-entropy with labels of classes, and this job has no target of classes: leave {field} out"
                )
                yield FieldError(pointer=f"{place}/training/{field}", message=message)
        if isinstance(training.class_weights, dict) and all(each != [] for each in classes):
            for name in sorted(training.class_weights.keys() - set(names)) if names else []:
                escaped = name.replace("~", "~0").replace("/", "~1")
                message = f"the job has no class {name!r}; it has {listed(names)}"
                yield FieldError(pointer=f"{place}/training/class_weights/{escaped}", message=message)
