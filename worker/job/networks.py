"""Every network of a job, by its role: what it reads, how it is built, how it is trained; and the teachers that are given.

Invariant: what a network is follows from the spec, the data and its seed alone, so that an attempt that resumes builds the same.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from service.spec import JobSpec
from service.spec.architectures import Architecture
from service.spec.data import INPUT_KINDS
from service.spec.methods import DeepMutual
from service.spec.source import split_source
from service.spec.training import TrainingSpec
from worker.data import Data, Preprocessing, SplitName, first
from worker.data.augment import EpochViews
from worker.data.augment.choose import epoch_views
from worker.data.choose import choose_preprocessing
from worker.data.samples import Samples
from worker.data.text import same_tokens
from worker.errors import JobFault
from worker.evaluation.evaluate import EvaluationResult
from worker.job.error_mapping import as_spec_error
from worker.job.roles import Role, base_role, seed_of, teachers_by_role
from worker.methods import privileged_term
from worker.methods.layer_mapping import LayerMapping, map_layers
from worker.models import UnfitArchitecture, build_network
from worker.models.privileged import PrivilegedNetwork
from worker.models.teacher_layers import UnfitStart, take_teacher_layers
from worker.teachers.chain import chain_of
from worker.teachers.hub import fetch_snapshot, pinned
from worker.trained import TrainedNetwork, load_teacher, rebuild
from worker.training.result import TrainingResult, Weights

logger = logging.getLogger(__name__)


class Networks:
    """The networks of one job on one device. B batch, W outputs."""

    def __init__(self, spec: JobSpec, data: Data, *, device: torch.device, inputs: Mapping[str, Path], scratch: Path) -> None:
        """``inputs`` are the local files of the spec's sources, ``scratch`` a folder for what is fetched."""
        self.spec, self.data, self.device = spec, data, device
        self.teachers, self.chain = teachers_by_role(spec), chain_of(spec)
        self.commits: dict[str, str] = {}
        """Which commit each ``hub:`` source was found to be."""
        self._inputs, self.scratch = inputs, scratch
        self._preprocessings: dict[Role, Preprocessing] = {}
        self._pretrained: dict[Role, TrainedNetwork] = {}

    def is_trained(self, role: Role) -> bool:
        """Whether this job trains it."""
        return role not in self.teachers or self.teachers[role].source == "train"

    def load_pretrained(self, role: Role) -> TrainedNetwork:
        """A teacher that this job does not train, loaded once."""
        if role not in self._pretrained:
            source, teaches = self.teachers[role].source, self.teachers[role].targets
            with TemporaryDirectory(dir=self.scratch) as links:
                path = (
                    self._from_hub(source, Path(links))
                    if split_source(source).kind == "hub"
                    else local_input(self._inputs, source)
                )
                named = pinned(source, self.commits)
                self._pretrained[role] = load_teacher(path, source=named, data=self.data, device=self.device, teaches=teaches)
        return self._pretrained[role]

    def build_or_load(self, role: Role) -> nn.Module:
        """Untrained where this job trains it, else as it was given."""
        return self.build(role) if self.is_trained(role) else self.load_pretrained(role).network

    def _from_hub(self, source: str, folder: Path) -> Path:
        snapshot = fetch_snapshot(source, folder, commit=self.commits.get(source))
        self.commits[source] = snapshot.commit
        return snapshot.folder

    def preprocessing_of(self, role: Role) -> Preprocessing:
        """What lies between the data and any network."""
        return self.preprocessing(role) if self.is_trained(role) else self.load_pretrained(role).preprocessing

    def training_spec(self, role: Role) -> TrainingSpec:
        """How a network of this job is trained; a repeat has a seed of its own."""
        if role in self.chain:
            return self.chain[role].training
        own = role in self.teachers and not isinstance(self.spec.method, DeepMutual)  # peers see the same
        training = self.teachers[role].training if own else self.spec.training
        if training is None:
            raise RuntimeError("a spec whose teacher is trained says how")
        return training.model_copy(update={"seed": seed_of(role, otherwise=training.seed)})

    def preprocessing(self, role: Role) -> Preprocessing:
        """What lies between the data and a network that this job trains; student and control read alike."""
        key: Role = "student" if base_role(role) in {"student", "control"} else role
        if key in self.chain and key not in self._preprocessings:
            self._preprocessings[key] = choose_preprocessing(
                self.data,
                self.architecture(key),
                features=self.chain[key].features,
                teachers=self.preprocessing("student"),
            )
        if key not in self._preprocessings:
            spec = self.teachers.get(key) or self.spec.student
            self._preprocessings[key] = choose_preprocessing(
                self.data,
                self.architecture(key),
                tokenizer=spec.tokenizer,
                features=spec.features,
                teachers=self._teachers_preprocessing() if key == "student" and spec.tokenizer is None else None,
            )
        return self._preprocessings[key]

    def _teachers_preprocessing(self) -> Preprocessing | None:
        """What a student of texts reads by that has no tokenizer of its own."""
        if INPUT_KINDS[self.data.task] != "text":
            return None
        return self.preprocessing_of(next(iter(self.teachers)))

    def architecture(self, role: Role) -> Architecture:
        """Of a network that this job trains."""
        if role in self.chain:
            return self.chain[role].architecture
        architecture = (self.teachers.get(role) or self.spec.student).architecture
        if architecture is None:
            raise RuntimeError("only a network with an architecture in the spec is trained")
        return architecture

    def views(self, role: Role) -> EpochViews | None:
        """What each epoch of a network's training sees; None without augmentation."""
        training = self.training_spec(role)
        if not training.augment:
            return None
        place = f"/{self.spec_path(role)}/training" if role in self.teachers else "/training"
        with as_spec_error(f"{place}/augment"):
            return epoch_views(
                training.augment,
                data=self.data,
                preprocessing=self.preprocessing(role),
                seed=training.seed,
                count=training.views,
            )

    def samples(self, role: Role, split: SplitName) -> Samples:
        """A split as a network of this job reads it; the training split in the views of its training."""
        views = self.views(role) if split == "train" else None
        return Samples.of(self.data.splits[split], self.preprocessing(role), device=self.device, views=views)

    def map_layers(self, student: nn.Module, teacher: nn.Module, teacher_reads: Preprocessing) -> LayerMapping:
        """What the method looks at in these two. Raises JobFault."""
        few = first(self.data.splits["train"].inputs, 2)
        student_reads = self.preprocessing("student")
        student_inputs, teacher_inputs = (reads(reads.prepare(few)) for reads in (student_reads, teacher_reads))
        with as_spec_error("/method"):
            return map_layers(
                self.spec.method,
                student=student,
                teacher=teacher,
                student_inputs=student_inputs,
                teacher_inputs=teacher_inputs,
                same_tokens=same_tokens(student_reads, teacher_reads),
            )

    def build(self, role: Role) -> nn.Module:
        """The network as it is trained: a student that reads its teacher's output is more than what is left of it in the end."""
        privileged = privileged_term(self.spec.method) if base_role(role) == "student" else None
        if privileged is None:
            return self.build_plain(role, num_outputs=self.data.targets.width)
        body = self.build_plain(role, num_outputs=2 * self.data.targets.width)
        return PrivilegedNetwork(body, self.data.targets, extra_input=privileged.extra_input)

    def build_plain(self, role: Role, *, num_outputs: int) -> nn.Module:
        """The network without what only training needs. Raises JobFault."""
        architecture = self.architecture(role)
        try:
            input_shape = self.preprocessing(role).input_shape(self.data.splits["train"].inputs)
            return build_network(architecture, input_shape=input_shape, num_outputs=num_outputs)
        except UnfitArchitecture as error:
            raise JobFault(
                "invalid_spec",
                f"The {role}'s architecture does not fit the data: {error}",
                details={"pointer": "/method" if role in self.chain else f"/{self.spec_path(role)}/architecture"},
            ) from error

    def spec_path(self, role: Role) -> str:
        """Of a teacher or the student in the spec."""
        return dict(zip(self.teachers, self.spec.teachers, strict=True)).get(role, "student")

    def copy_teacher_layers(self, student: nn.Module, teacher: nn.Module) -> None:
        """Has a student begin with its teacher's layers. Raises JobFault."""
        try:
            taken = take_teacher_layers(student, teacher, self.spec.student.layers)
        except UnfitStart as error:
            message = f"The student cannot begin with its teacher's layers: {error}"
            raise JobFault("invalid_spec", message, details={"pointer": "/student/source"}) from error
        logger.info("The student begins with the teacher's layers %s.", ", ".join(map(str, taken)))

    def trained_network(
        self, role: Role, weights: Weights, *, trained: TrainingResult | None, last_test: EvaluationResult | None
    ) -> TrainedNetwork:
        """A network that this job trained, with these weights; one that read its teacher's output is folded into a plain one."""
        network = self.build(role)
        if isinstance(network, PrivilegedNetwork):
            privileged = network
            privileged.load_state_dict(weights)
            network = self.build_plain(role, num_outputs=self.data.targets.width)
            weights = privileged.folded(network.state_dict())
        return rebuild(
            network,
            weights,
            trained=trained,
            last_test=last_test,
            architecture=self.architecture(role),
            source=(self.teachers.get(role) or self.spec.student).source,
            targets=self.data.targets,
            teaches=self.teachers[role].targets if role in self.teachers else None,
            preprocessing=self.preprocessing(role),
            device=self.device,
        )


def local_input(inputs: Mapping[str, Path], source: str) -> Path:
    """The local file or folder of a source. Raises JobFault."""
    path = inputs.get(source)
    if path is None or not path.exists():
        raise JobFault("input_unavailable", f"{source} is not there.", hint="It was deleted, or the worker could not fetch it.")
    return path
