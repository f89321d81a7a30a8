"""What a job spec may name: methods, architectures, augmentations, built-in datasets."""

from typing import Any

from fastapi import APIRouter

from service.api.bodies import StrictRoute
from service.api.dependencies import Viewer
from service.api.responses.shape import Listing, View
from service.spec.architectures import ARCHITECTURES
from service.spec.augment import AUGMENTATIONS
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import DatasetInfo
from service.spec.methods import METHODS, tasks_of
from service.spec.tasks import Modality, TaskName

router = APIRouter(prefix="/v1", tags=["catalogue"], route_class=StrictRoute)


class MethodView(View):
    """A distillation method."""

    name: str
    """The value of ``method.name`` in a spec."""
    summary: str
    """What it does."""
    formula: str
    """Its loss; z_t and z_s are the logits of teacher and student, y is the label."""
    paper: str
    """The paper that introduced it."""
    tasks: list[TaskName]
    """The tasks that it can be used for."""
    parameters: dict[str, Any]
    """JSON Schema, with defaults and bounds."""


class ArchitectureView(View):
    """A network that can be built."""

    name: str
    """The value of ``architecture.name`` in a spec."""
    summary: str
    """What it is."""
    paper: str | None
    """The paper that introduced it."""
    parameters: dict[str, Any]
    """JSON Schema, with defaults and bounds."""


class AugmentationView(View):
    """An augmentation of training samples."""

    name: str
    """Its name in ``training.augment`` of a spec: an element of the list, or the ``name`` of one."""
    summary: str
    """What it does."""
    modalities: list[Modality]
    """The kinds of input that it can be applied to."""
    paper: str | None
    """The paper that introduced it."""
    parameters: dict[str, Any]
    """JSON Schema, with defaults and bounds."""


class BuiltinView(View):
    """A dataset that needs no upload: ``source: builtin:NAME``."""

    name: str
    """The NAME in ``builtin:NAME``."""
    source: str
    """The value of ``dataset.source`` in a spec."""
    summary: str
    """What it holds."""
    origin: str
    """Who published it, and where."""
    licence: str
    """The licence that it is distributed under."""
    info: DatasetInfo
    """Its splits, columns and classes."""


class MethodList(Listing[MethodView]):
    """All methods."""


class ArchitectureList(Listing[ArchitectureView]):
    """All architectures."""


class AugmentationList(Listing[AugmentationView]):
    """All augmentations."""


class BuiltinList(Listing[BuiltinView]):
    """All built-in datasets."""


@router.get("/methods")
async def list_methods(_caller: Viewer) -> MethodList:
    """The distillation methods."""
    return MethodList(
        data=[
            MethodView(
                name=name,
                summary=method.summary,
                formula=method.formula,
                paper=method.paper,
                tasks=tasks_of(method),
                parameters=method.model_json_schema(),
            )
            for name, method in METHODS.items()
        ]
    )


@router.get("/architectures")
async def list_architectures(_caller: Viewer) -> ArchitectureList:
    """The networks that a teacher or a student may be."""
    return ArchitectureList(
        data=[
            ArchitectureView(name=name, summary=page.summary, paper=page.paper, parameters=page.spec.model_json_schema())
            for name, page in ARCHITECTURES.items()
        ]
    )


@router.get("/augmentations")
async def list_augmentations(_caller: Viewer) -> AugmentationList:
    """The augmentations of training samples; each epoch draws them anew."""
    return AugmentationList(
        data=[
            AugmentationView(
                name=name,
                summary=page.summary,
                modalities=list(page.modalities),
                paper=page.paper,
                parameters=page.spec.model_json_schema(),
            )
            for name, page in AUGMENTATIONS.items()
        ]
    )


@router.get("/builtin-datasets")
async def list_builtin_datasets(_caller: Viewer) -> BuiltinList:
    """The datasets that need no upload."""
    return BuiltinList(
        data=[
            BuiltinView(
                name=name,
                source=f"builtin:{name}",
                summary=dataset.summary,
                origin=dataset.origin,
                licence=dataset.licence,
                info=dataset.info,
            )
            for name, dataset in BUILTIN_DATASETS.items()
        ]
    )
