"""The job spec: the root of the document, with its teachers, student, evaluation and resources."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from service.spec.adapters import Lora
from service.spec.architectures import Architecture
from service.spec.data import DatasetSpec
from service.spec.exports import Exports
from service.spec.inputs import Features, TokenizerSpec
from service.spec.methods import BetweenLayers, DeepMutual, MethodSpec, SoftTargets, method_names, terms_of
from service.spec.names import OneLine
from service.spec.require import RequireSpec
from service.spec.source import NetworkSource, StudentSource, TeacherSource, is_given, split_network
from service.spec.strict import StrictModel
from service.spec.tasks import TASKS, TaskName
from service.spec.training import TrainingSpec

Label = Annotated[OneLine, Field(max_length=200)]
JobId = Annotated[str, Field(pattern=r"^job_[0-9a-z]{26}$")]
PoolName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Priority = Literal["low", "normal", "high"]


class TeacherSpec(StrictModel):
    """The network to learn from: trained here first, or one that exists, fine-tuned here or as it is."""

    source: TeacherSource = "train"
    """``train``, ``job:ID`` (that job's student), ``job:ID/teacher`` (the teacher that it trained), ``model:ID``, ``model:NAME``,
    ``hub:REPO[@REVISION]`` of the Hugging Face Hub, or ``file:FOLDER`` under a folder that the operator allows."""
    architecture: Architecture | None = None
    """Needed with ``train``; otherwise the source has one."""
    training: TrainingSpec | None = None
    """How to train it, or how to fine-tune a given one first; with ``train`` by default with TrainingSpec's own defaults."""
    adapter: Lora | None = None
    """With a given network that is fine-tuned: train an adapter alone, and merge it in the end."""
    dtype: Literal["auto", "fp32", "bf16", "fp16", "int8", "int4"] = "auto"
    """The number format of a given network's weights while it teaches; ``auto``: what its files hold."""
    tokenizer: TokenizerSpec | None = None
    """Tokenizer of a teacher of texts, with ``train``: needed there."""
    features: Features | None = None
    """Features that a teacher of sound reads, with ``train``; by default those that its architecture is made for."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Weight of this teacher's probabilities, or numbers, in the mean of several teachers."""
    targets: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=64)] | None = None
    """The targets that it teaches, of several; null for all. A teacher that is trained here learns all, and teaches these."""
    accept_score: Literal["above-chance", "any"] | None = None
    """Which scores on validation a teacher may teach with. By default a given one stops the job where it is no better than a
    constant guess by its whole 95% interval, or far below what its card reports; ``above-chance``: also one that is trained here,
    and each that may be a guess; ``any``: none."""

    @model_validator(mode="after")
    def _train_needs_architecture(self) -> Self:
        if self.source == "train":
            if self.architecture is None:
                raise ValueError("a teacher with source 'train' needs an architecture")
            if self.training is None:
                object.__setattr__(self, "training", TrainingSpec())
        elif own := [name for name in ("architecture", "tokenizer", "features") if getattr(self, name) is not None]:
            raise ValueError(f"a teacher from {self.source} has a network and a reading of its own: leave out {', '.join(own)}")
        return self

    @model_validator(mode="after")
    def _formats_are_of_frozen_networks(self) -> Self:
        if self.dtype != "auto" and self.training is not None:
            raise ValueError("dtype is of a given teacher that is not trained: leave it out, or leave training out")
        if self.adapter is not None and (self.source == "train" or self.training is None):
            raise ValueError("an adapter is for a given teacher that is fine-tuned: give a source and training, or leave it out")
        return self


_SEVERAL = "[…]"


def _one_or_several(document: Any) -> str:
    return _SEVERAL if isinstance(document, list) else "teacher"


Teachers = Annotated[
    Annotated[TeacherSpec, Tag("teacher")]
    | Annotated[list[TeacherSpec], Field(min_length=1, max_length=16, title="Several teachers"), Tag(_SEVERAL)],
    Discriminator(_one_or_several),
]


class StudentSpec(StrictModel):
    """The network to train."""

    source: StudentSource = "random"
    """``random``: freshly initialised from ``training.seed``. ``teacher-layers``: with some of the teacher's own layers, and with
    whatever else of it has the same name and shape, such as its embeddings; the control has none of that. ``job:ID[/teacher]``,
    ``model:ID``, ``model:NAME``, ``hub:REPO[@REVISION]`` or ``file:FOLDER``: a network that exists, and so does the control."""
    layers: Annotated[list[Annotated[int, Field(ge=0, le=999)]], Field(min_length=1, max_length=1000)] | None = None
    """With ``teacher-layers``: which of the teacher's layers, from 0, become the student's, one for each of its own. By default
    evenly spaced from the first on: every second where the student has half as many."""
    architecture: Architecture | None = Field(default=None, validate_default=True)
    """Which network it is; input and output sizes come from the data. Needed unless its source has one."""
    tokenizer: TokenizerSpec | None = None
    """Tokenizer of a student of texts; by default its teacher's, of several the first's. A given student has its own."""
    features: Features | None = None
    """Features that a student of sound reads; by default those that its architecture is made for. A given student has its own."""
    adapter: Lora | None = None
    """Of a given student: train an adapter alone; the artifacts hold it, and the student with it merged."""
    weights: Literal["fp32", "bf16"] = "fp32"
    """The number format of its weights while it is trained, and of the student that comes out."""

    @field_validator("architecture", "tokenizer", "features")
    @classmethod
    def _built_or_given(cls, value: Any, info: ValidationInfo) -> Any:
        source = info.data.get("source", "random")
        if value is not None and is_given(source):
            raise ValueError(f"a student from {source} has its own {info.field_name}: leave it out")
        if value is None and info.field_name == "architecture" and "source" in info.data and not is_given(source):
            raise PydanticCustomError("missing", "this field is needed")
        return value

    @property
    def built(self) -> Architecture:
        """The architecture of a student that its job builds. Raises ValueError for a given one."""
        if self.architecture is None:
            raise ValueError(f"a student from {self.source} is not built")
        return self.architecture

    @field_validator("adapter")
    @classmethod
    def _adapters_are_of_given_networks(cls, adapter: Lora | None, info: ValidationInfo) -> Lora | None:
        source = info.data.get("source", "random")
        if adapter is not None and not is_given(source):
            raise ValueError(
                f"an adapter changes a network that knows something, and source is {source}: name a network that exists there, "
                "or leave the adapter out"
            )
        return adapter

    @model_validator(mode="after")
    def _layers_are_the_teachers(self) -> Self:
        if self.layers is not None and self.source != "teacher-layers":
            raise ValueError(
                f"layers says which of the teacher's layers are taken: set source to 'teacher-layers', not {self.source}"
            )
        return self


class EvaluationSpec(StrictModel):
    """What is measured beside the student itself."""

    control: bool = False
    """Also train the same student without the teacher for the same number of updates, and report the gain."""
    seeds: Annotated[list[Seed], Field(max_length=20)] = []
    """Train the student, and its control, from each of these seeds too, and report mean and 95% interval; the student that comes
    out is the one of ``training.seed``."""
    correct_bias: bool = False
    """After the training, set the biases of the student's outputs so that its mean probability of each class on the transfer
    rows, or else on the training split, equals its teacher's: for classes that it met without labels, or not at all."""

    generations: Annotated[int, Field(ge=0, le=32)] = 4
    """Of language models: how many prompts of the test split teacher, student and control continue for the report."""
    speed_seconds: Annotated[float, Field(gt=0, le=600)] = 8.0
    """About the most seconds that the speed of all networks is measured for; each is timed at least three times with each size
    of batches."""

    @field_validator("seeds")
    @classmethod
    def _each_seed_once(cls, seeds: list[int]) -> list[int]:
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            raise ValueError(f"each seed is named once; {', '.join(map(str, twice))} is named several times")
        return seeds


class ResourceSpec(StrictModel):
    """What the job needs of a worker."""

    pool: PoolName = "default"
    """The group of workers that may take the job."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of one host to hold: 0 trains on the CPU; several train side by side on the same batches, each on its share of one."""
    cpu_slots: Annotated[int, Field(ge=1, le=64)] = 1
    """CPU slots to hold where gpus is 0: so many processes train side by side."""
    min_gpu_memory_gib: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """Least memory of each of those GPUs, in GiB; it and what GPUs have are rounded up to whole ones."""
    max_runtime_seconds: Annotated[int, Field(ge=1, le=30 * 86_400)] = 86_400
    """Running time, over all attempts, after which the job fails with ``time_limit``; the last checkpoint is kept."""

    @property
    def num_devices(self) -> int:
        """Number of devices that train side by side."""
        return self.gpus or self.cpu_slots

    @model_validator(mode="after")
    def _memory_needs_a_gpu(self) -> Self:
        if self.min_gpu_memory_gib is not None and self.gpus == 0:
            raise ValueError("min_gpu_memory_gib asks for a GPU: set gpus to 1, or leave it out")
        return self

    @model_validator(mode="after")
    def _cpu_slots_are_for_the_cpu(self) -> Self:
        if self.cpu_slots > 1 and self.gpus > 0:
            raise ValueError("cpu_slots says how many processes train on the CPU: set gpus to 0, or leave cpu_slots out")
        return self


class JobSpec(StrictModel):
    """A distillation job: a dataset, a teacher, a student, a method."""

    name: Annotated[OneLine, Field(max_length=200)] = ""
    """For people; need not be unique."""
    task: TaskName
    """What the networks do."""
    dataset: DatasetSpec
    """What they learn from and are measured on."""
    teacher: Teachers
    """The network to learn from, or several: then the student learns from the weighted mean of their outputs."""
    student: StudentSpec
    """The network that learns."""
    method: MethodSpec = SoftTargets()
    """How the student learns from the teacher."""
    training: TrainingSpec = TrainingSpec()
    """The student's training."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """What else is measured and compared."""
    require: RequireSpec = RequireSpec()
    """What the student must have to be accepted."""
    exports: Exports = []
    """Other forms of the student beside its folder: ``onnx``, and ``onnx-int8`` with 8-bit weights."""
    resources: ResourceSpec = ResourceSpec()
    """Which workers may take the job, and for how long."""
    priority: Priority = "normal"
    """Jobs of a higher class start first. ``high`` is the admin's to give."""
    depends_on: Annotated[list[JobId], Field(max_length=100)] = []
    """Jobs that must succeed before this one starts. A teacher given as ``job:ID`` is one by itself."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """How often the job may be started before a crash is final. A drained or paused attempt does not count."""
    labels: Annotated[dict[Annotated[OneLine, Field(min_length=1, max_length=63)], Label], Field(max_length=64)] = {}
    """Words to find the job by."""

    @model_validator(mode="after")
    def _weights_in_bf16_are_trained_in_bf16(self) -> Self:
        if self.student.weights == "bf16" and self.training.precision == "auto":
            object.__setattr__(self, "training", self.training.model_copy(update={"precision": "bf16"}))
        return self

    @model_validator(mode="after")
    def _peers_are_trained_together(self) -> Self:
        if not isinstance(self.method, DeepMutual):
            return self
        if isinstance(self.teacher, list):
            raise ValueError("deep-mutual has one peer: name one teacher")
        if self.teacher.source != "train":
            raise ValueError("deep-mutual trains its teacher itself: /teacher needs source 'train' and an architecture")
        if self.teacher.training not in (TrainingSpec(), self.training):
            raise ValueError("deep-mutual trains both in the same steps, as /training says: leave out /teacher/training")
        object.__setattr__(self, "teacher", self.teacher.model_copy(update={"training": self.training}))
        return self

    @model_validator(mode="after")
    def _several_teachers_are_asked_for_outputs_alone(self) -> Self:
        terms = zip(method_names(self.method), terms_of(self.method), strict=True)
        inside = [name for name, term in terms if isinstance(term, BetweenLayers)]
        if inside and len(self.teachers) > 1:
            names = ", ".join(inside)
            raise ValueError(f"{names} looks inside the teacher, and /teacher has several: name one, or take a method of outputs")
        return self

    @model_validator(mode="after")
    def _data_and_networks_have_names_of_their_own(self) -> Self:
        """A repository of data may be called as one of a network is: their revisions are noted by what the spec calls them."""
        networks = {self.student.source: "student"} | {teacher.source: place for place, teacher in self.teachers.items()}
        for field, source in (("source", self.dataset.source), ("transfer", self.dataset.transfer)):
            if source is not None and (place := networks.get(source)) is not None and is_given(source):
                raise ValueError(
                    f"/dataset/{field} is written as /{place}/source is, and one is data: if both are meant, name the revision "
                    f"of one of them, such as {source}@main"
                )
        return self

    @model_validator(mode="after")
    def _teachers_differ(self) -> Self:
        seen: list[TeacherSpec] = []
        for place, teacher in self.teachers.items():
            network = teacher.model_copy(update={"weight": 1.0, "targets": None, "accept_score": None})
            if network in seen:
                raise ValueError(
                    f"/{place} is the very network of /teacher/{seen.index(network)}: give it another seed, or drop it"
                )
            seen.append(network)
        return self

    @property
    def first_teacher(self) -> TeacherSpec:
        """The one teacher, or the first of several, whose tokenizer a student of texts uses unless it has its own."""
        return next(iter(self.teachers.values()))

    @property
    def teachers(self) -> dict[str, TeacherSpec]:
        """Every teacher by its place in the spec: ``teacher``, or ``teacher/0``, ``teacher/1`` and so on."""
        if isinstance(self.teacher, TeacherSpec):
            return {"teacher": self.teacher}
        return {f"teacher/{index}": teacher for index, teacher in enumerate(self.teacher)}

    @property
    def trained_teachers(self) -> list[TeacherSpec]:
        """The teachers that the job trains: of one alone ``job:ID/teacher`` is the name."""
        return [teacher for teacher in self.teachers.values() if teacher.training is not None]

    @property
    def given_networks(self) -> dict[str, NetworkSource]:
        """The source of each network that comes from elsewhere, by the JSON pointer to it."""
        parts: dict[str, TeacherSpec | StudentSpec] = {**self.teachers, "student": self.student}
        return {f"/{place}/source": split_network(part.source) for place, part in parts.items() if is_given(part.source)}

    @model_validator(mode="after")
    def _columns_by_task(self) -> Self:
        """Fills in the columns that the task has by default, so that a stored spec is complete."""
        defaults: dict[str, Any] = {"input": TASKS[self.task].input_columns[0], "targets": list(TASKS[self.task].targets)}
        if TASKS[self.task].packs_rows and self.dataset.packing is None:
            # Whether the input holds chats, which are not packed either, its column says.
            by_text = ("targets" in self.dataset.model_fields_set and self.dataset.targets) or getattr(
                self.method, "name", ""
            ) == "uld"
            if by_text:
                object.__setattr__(self, "dataset", self.dataset.model_copy(update={"packing": "padded"}))
        if unsaid := {name: value for name, value in defaults.items() if name not in self.dataset.model_fields_set}:
            object.__setattr__(self, "dataset", self.dataset.model_copy(update=unsaid))
        return self
