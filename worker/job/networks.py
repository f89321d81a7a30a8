"""Every network of a job, by its role: how it begins, its preprocessing, its samples; and the pretrained teachers.

Invariant: a network is determined by the spec, the data and its seed alone, so that an attempt that resumes builds the same.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from service.spec import JobSpec
from service.spec.architectures import Architecture
from service.spec.source import is_given
from service.spec.warning_message import WarningMessage
from worker.data import Data, Preprocessing, Split, SplitName, first
from worker.data.adopted import adopt_classes, may_adopt, unknown_classes
from worker.data.augment import EpochViews
from worker.data.augment.choose import epoch_views
from worker.data.preprocessing import same_tokens
from worker.data.samples import Samples
from worker.errors import JobFault
from worker.evaluation.evaluate import EvaluationResult
from worker.job.error_mapping import as_spec_error
from worker.job.given_formats import load_frozen
from worker.job.job_data import local_input
from worker.job.labels import refuse_unfit_method
from worker.job.role_specs import RoleSpecs, student_of
from worker.job.roles import STUDENT, Role, by_name
from worker.job.starts import GivenStart, RandomStart, begin_with_teacher_layers
from worker.job.student_format import in_student_format
from worker.methods.layer_mapping import LayerMapping, map_layers
from worker.models.adapters import adapter_of, share_weights
from worker.models.folder import stored_targets
from worker.models.loading import FLOAT32, Loading
from worker.models.privileged import PrivilegedNetwork, fold_weights
from worker.sources.revisions import pinned
from worker.tasks import TASKS
from worker.teachers.ensemble import Teachers
from worker.trained import TrainedNetwork, wrap_trained
from worker.training.kept_weights import Weights, restore
from worker.training.result import TrainingResult


class Networks:
    """The networks of one job on one device. B batch, W outputs."""

    def __init__(
        self,
        spec: JobSpec,
        data: Data,
        *,
        device: torch.device,
        inputs: Mapping[str, Path],
        revisions: Mapping[str, str] | None = None,
        scratch: Path,
        fitted_on: Data | None = None,
        most_samples: int | None = None,
    ) -> None:
        """``inputs`` are the local files of the spec's sources, ``revisions`` what those of networks were resolved to.

        ``fitted_on`` are the data that preprocessings are measured and trained on, by default ``data``. ``most_samples`` limits
        the samples of a split.
        """
        self.specs, self.data, self.device = RoleSpecs(spec), data, device
        self._fitted_on, self._most_samples = fitted_on, most_samples
        self.submitted = spec
        """The spec as it was submitted; that of ``specs`` may lack what the data have no labels for."""
        self.revisions = revisions or {}
        self.measures_formats = False
        """Whether a teacher whose format rounds it is compared with the whole one, which takes as long as loading it twice."""
        self._inputs, self.scratch = inputs, scratch
        self._starts: dict[Role, RandomStart | GivenStart] = {}
        self._preprocessings: dict[Role, Preprocessing] = {}
        self._pretrained: dict[Role, TrainedNetwork] = {}

    @property
    def spec(self) -> JobSpec:
        """The job's spec."""
        return self.specs.job

    def start(self, role: Role) -> RandomStart | GivenStart:
        """How a network that this job trains begins; student, control and seed replicates begin alike."""
        key = student_of(role)
        if key not in self._starts:
            source, task = self.specs.source(key), TASKS[self.data.task]
            if is_given(source):
                self._starts[key] = GivenStart(
                    pinned(source, self.revisions),
                    task,
                    lambda: self.data.targets,
                    lambda: self._folder(source),
                    str(key),
                    f"/{self.specs.path(key)}/source",
                    Loading(self.spec.student.weights) if key == STUDENT else FLOAT32,
                    self.specs.of(key).adapter,
                )
            else:
                self._starts[key] = RandomStart(
                    self.specs.architecture(key),
                    task.network,
                    lambda: self.preprocessing(key).input_shape(self.data.splits["train"].inputs),
                    str(role),
                    "/method" if key in self.specs.chain else f"/{self.specs.path(key)}/architecture",
                )
        return self._starts[key]

    def start_warnings(self, *roles: Role) -> list[WarningMessage]:
        """What became of the heads of the networks that exist and are trained. Raises JobFault if one cannot be loaded."""
        starts = [self.start(role) for role in roles or self.specs.plan.trained]
        return [warning for start in starts if isinstance(start, GivenStart) for warning in start.warnings()]

    def load_pretrained(self, role: Role, *, fitted_to: Data | None = None) -> TrainedNetwork:
        """Loads a teacher that this job does not train, once; it is fitted to the job's data unless others are given."""
        if role not in self._pretrained:
            teacher = self.specs.teachers[role]
            self._pretrained[role] = load_frozen(
                self._folder(teacher.source),
                teacher,
                fitted_to or self.data,
                source=pinned(teacher.source, self.revisions),
                revision=self.revisions.get(teacher.source),
                pointer=self.specs.path(role),
                device=self.device,
                on_gpu=self.spec.resources.gpus > 0,
                measures=self.measures_formats,
            )
        return self._pretrained[role]

    def share_pretrained(self, others: "Networks") -> None:
        """Takes the teachers that were loaded for the same job."""
        self._pretrained = others._pretrained

    def standardise(self, data: Data) -> None:
        """Replaces the data by the same with numbers of another mean and scale."""
        self.data = data
        self._pretrained = {role: replace(each, converted_to=data.targets) for role, each in self._pretrained.items()}

    def adopt_classes(self) -> Data:
        """Takes the classes that the data do not tell from the given teachers; returns the data, which are the job's from here.

        Raises:
            JobFault: a teacher is gone, or the classes are known of none.
        """
        for role, teacher in self.specs.teachers.items():
            if not self.specs.is_trained(role) and may_adopt(self.data.targets):
                theirs = stored_targets(self._folder(teacher.source))
                self.data = adopt_classes(self.data, theirs, relabel=TASKS[self.data.task].relabel, teaches=teacher.targets)
        if unknown := unknown_classes(self.data.targets):
            raise JobFault(
                "invalid_data",
                f"No row has a value of {', '.join(map(repr, unknown))}, and no teacher tells what classes there are.",
                hint="Give a teacher of this target, or label some rows.",
            )
        refuse_unfit_method(self.spec, self.data)
        return self.data

    def settle_rows(self) -> Data:
        """Has a student and a teacher that exist read the data alike where they must; returns the data. Raises JobFault."""
        task, roles = TASKS[self.data.task], (STUDENT, next(iter(self.specs.teachers)))
        if task.info.packs_rows and all(is_given(self.specs.source(role)) for role in roles):
            starts = [self.start(role) for role in roles]
            reads = [start.described.preprocessing for start in starts if isinstance(start, GivenStart)]
            self.data = task.settle_rows(self.data, reads)
        return self.data

    def together(self, networks: Mapping[Role, TrainedNetwork]) -> Teachers:
        """Networks that teach together, each by the weight that the spec gives it as a teacher."""
        weights = tuple(self.specs.teachers[role].weight if role in self.specs.teachers else 1.0 for role in networks)
        return Teachers(by_name(networks), weights, self.data.targets)

    def build_or_load(self, role: Role) -> nn.Module:
        """The network, untrained if this job trains it, else pretrained."""
        return self.build(role) if self.specs.is_trained(role) else self.load_pretrained(role).network

    def _folder(self, source: str) -> Path:
        """The local folder of a given network. Raises JobFault if it is not there."""
        return local_input(self._inputs, source)

    def preprocessing_of(self, role: Role) -> Preprocessing:
        """The preprocessing of any network, whether this job trains it or loads it."""
        return self.preprocessing(role) if self.specs.is_trained(role) else self.load_pretrained(role).preprocessing

    def preprocessing(self, role: Role, *, fitted_to: Data | None = None) -> Preprocessing:
        """The preprocessing of a network that this job trains; student and control share theirs.

        That of a network that exists is fitted to the data that preprocessings are fitted on unless others are given.
        """
        key = student_of(role)
        if key in self.specs.chain and key not in self._preprocessings:
            self._preprocessings[key] = TASKS[self.data.task].preprocessing(
                self._fitted_on or self.data,
                self.architecture(key),
                features=self.specs.chain[key].features,
                teachers=self.preprocessing(STUDENT),
            )
        if key not in self._preprocessings and (twin := self.specs.same_tokenizer(key)) is not None:
            self._preprocessings[key] = self.preprocessing(twin)
        if key not in self._preprocessings:
            spec, start = self.specs.of(key), self.start(key)
            if isinstance(start, GivenStart):
                self._preprocessings[key] = start.preprocessing(fitted_to or self._fitted_on or self.data)
                return self._preprocessings[key]
            self._preprocessings[key] = TASKS[self.data.task].preprocessing(
                self._fitted_on or self.data,
                start.architecture,
                tokenizer=spec.tokenizer,
                features=spec.features,
                teachers=self._teachers_preprocessing() if key == STUDENT and spec.tokenizer is None else None,
            )
        return self._preprocessings[key]

    def replace_preprocessing(self, role: Role, preprocessing: Preprocessing) -> None:
        """Has a network that this job trains read by another preprocessing than the one that was chosen."""
        self._preprocessings[role] = preprocessing

    def _teachers_preprocessing(self) -> Preprocessing | None:
        """The first teacher's preprocessing, used by a student of texts that has no tokenizer; None for other inputs."""
        if TASKS[self.data.task].info.input_kind != "text":
            return None
        return self.preprocessing_of(next(iter(self.specs.teachers)))

    def architecture(self, role: Role) -> Architecture:
        """The architecture of a network that this job trains. Raises JobFault if it exists and cannot be loaded."""
        return self.start(role).architecture

    def views(self, role: Role) -> EpochViews | None:
        """The views of a network's training split, by epoch; None without augmentation."""
        training = self.specs.training(role)
        if not training.augment:
            return None
        splits = self.data.splits | {"train": self.training_split(role)}
        with as_spec_error(f"{self.specs.training_path(role)}/augment"):
            return epoch_views(
                training.augment,
                data=replace(self.data, splits=splits),
                preprocessing=self.preprocessing(role),
                seed=training.seed,
                count=training.views,
            )

    def training_split(self, role: Role) -> Split:
        """The samples that a network is trained on: without transfer rows if it learns from labels alone."""
        whole = self.data.splits["train"]
        return whole if self.specs.reads_transfer(role) else whole.own

    def samples(self, role: Role, split: SplitName) -> Samples:
        """A split behind a network's preprocessing; the training split with the views of its augmentation."""
        data, views = (self.training_split(role), self.views(role)) if split == "train" else (self.data.splits[split], None)
        samples = Samples.of(data, self.preprocessing(role), device=self.device, views=views)
        return samples if self._most_samples is None else samples.first(self._most_samples)

    def map_layers(self, student: nn.Module, teacher: nn.Module, teacher_preprocessing: Preprocessing) -> LayerMapping:
        """Maps the layers that the method compares in these two networks. Raises JobFault."""
        few = first(self.data.splits["train"].inputs, 2)
        student_preprocessing = self.preprocessing(STUDENT)
        student_inputs, teacher_inputs = (
            preprocess(preprocess.prepare(few)) for preprocess in (student_preprocessing, teacher_preprocessing)
        )
        with as_spec_error("/method"):
            return map_layers(
                self.spec.method,
                student=student,
                teacher=teacher,
                student_inputs=student_inputs,
                teacher_inputs=teacher_inputs,
                same_tokens=same_tokens(student_preprocessing, teacher_preprocessing),
            )

    def build(self, role: Role) -> nn.Module:
        """Builds the network as it is trained: a student with privileged inputs has weights that are folded away in the end."""
        privileged = self.specs.privileged(role)
        if privileged is None:
            return self.build_plain(role, num_outputs=self.data.targets.width)
        body = self.build_plain(role, num_outputs=2 * self.data.targets.width)
        return PrivilegedNetwork(body, self.data.targets, extra_input=privileged.extra_input)

    def build_plain(self, role: Role, *, num_outputs: int) -> nn.Module:
        """Builds the network without the parts that only training needs. Raises JobFault.

        What an adapter leaves as it is, and a teacher in memory has as well, is that teacher's.
        """
        network = self._in_format(role, self.start(role).build(num_outputs=num_outputs))
        if adapter_of(network) is not None:
            for teacher in self._pretrained.values():
                share_weights(network.to(self.device), teacher.network)
        return network

    def base(self, role: Role) -> nn.Module:
        """The network that exists for which a network's adapter is. Raises JobFault."""
        start = self.start(role)
        if not isinstance(start, GivenStart):
            raise TypeError(f"the {role} has no adapter")
        return start.base()

    def _in_format(self, role: Role, network: nn.Module) -> nn.Module:
        """Puts a student, or a control, into the format of its weights. Raises JobFault."""
        is_student = role.kind in {"student", "control"}
        return in_student_format(network, self.spec.student, self.data.targets) if is_student else network

    def build_on_meta(self, role: Role) -> nn.Module:
        """The network without the parts that only training needs, as shapes alone. Raises UnfitArchitecture."""
        return self._in_format(role, self.start(role).on_meta(num_outputs=self.data.targets.width))

    def copy_teacher_layers(self, student: nn.Module, teacher: nn.Module) -> None:
        """Initialises a student with layers of its teacher. Raises JobFault."""
        begin_with_teacher_layers(
            student,
            teacher,
            layers=self.spec.student.layers,
            data=self.data,
            reads=self.preprocessing(STUDENT),
            loaded=next((each for each in self._pretrained.values() if each.network is teacher), None),
            keeps_outputs=self.specs.is_plain(STUDENT),
        )

    def trained_network(
        self, role: Role, weights: Weights, *, trained: TrainingResult | None = None, last_test: EvaluationResult | None = None
    ) -> TrainedNetwork:
        """A network that this job trained, with these weights; one with privileged inputs is folded into a plain one."""
        targets = self.data.targets
        network = self.build_plain(role, num_outputs=targets.width)
        if (privileged := self.specs.privileged(role)) is not None:
            weights = fold_weights(weights, network.state_dict(), targets, extra_input=privileged.extra_input)
        restore(network, weights)
        return self.as_trained(role, network, trained=trained, last_test=last_test)

    def as_trained(
        self,
        role: Role,
        network: nn.Module,
        *,
        trained: TrainingResult | None = None,
        last_test: EvaluationResult | None = None,
    ) -> TrainedNetwork:
        """A plain network of this job as it is, ready for use."""
        targets, start = self.data.targets, self.start(role)
        return wrap_trained(
            network,
            trained=trained,
            last_test=last_test,
            architecture=self.architecture(role),
            task=self.data.task,
            source=pinned(self.specs.source(student_of(role)), self.revisions),
            targets=targets,
            teaches=self.specs.teachers[role].targets if role in self.specs.teachers else None,
            preprocessing=self.preprocessing(role),
            device=self.device,
            start=start.card(self.revisions.get(self.specs.source(student_of(role)))) if isinstance(start, GivenStart) else None,
        )
