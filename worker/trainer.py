"""The trainer's main: data → teacher → student → control → evaluation → export.

It knows a spec, a folder and a device, and no database, no Redis, no HTTP; it asks nobody but the Hub, for a teacher that is
there. Invariant: between any two optimizer steps the whole job is in one :class:`Attempt`'s ``finished`` and the running
:class:`Training`, and a checkpoint holds both, so that on a CPU a job that is killed anywhere and started again ends with the
same student, bit for bit, as one that never was.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from service.errors import InvalidSpec
from service.spec import JobSpec, parse_spec
from service.spec.architectures import Architecture
from service.spec.data import INPUT_KINDS
from service.spec.language_fit import shares_tokenizer
from service.spec.methods import BornAgain, DeepMutual, SequenceLevel
from service.spec.source import split_source
from service.spec.training import TrainingSpec
from worker.asking import Kept, ask, ask_views
from worker.chain import chain_of
from worker.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint
from worker.data import Data, Preprocessing, Split, SplitName, UnusableData, first, load_data
from worker.data.augment import EpochViews
from worker.data.augment.choose import UnfitAugmentation, check_same_views, epoch_views
from worker.data.choose import choose_preprocessing
from worker.data.errors import UnreadableTokenizer
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.text import same_tokens
from worker.ensemble import combined
from worker.evaluation import Measure, agreement, measure, measure_latency, predict
from worker.export import check_export, export_network, result_folder, write_documents, write_spec
from worker.faults import JobFault, StopAsked
from worker.finished import FinishedNetwork, load_teacher, rebuild
from worker.hub import fetch_snapshot, pinned, pinned_spec
from worker.lessons import LanguageTeacher, NextTokens, lesson_of, refuse_long_texts, refuse_rowless, write_texts
from worker.loop import Lesson, Trained, Training, Weights, train
from worker.methods import UnfitLayers, UnknownLayer, informed_by, looks_inside
from worker.metrics import target_agreement, target_metrics
from worker.models import UnfitArchitecture, UnreadableNetwork, build_network, num_parameters
from worker.models.informed import InformedNetwork
from worker.models.language_network import LanguageNetwork
from worker.models.teacher_layers import UnfitStart, take_teacher_layers
from worker.mutual import MutualTraining
from worker.onnx_export import UnexportableNetwork
from worker.onnx_student import export_student, write_onnx
from worker.precision import choose_precision
from worker.protocol import (
    CHECKPOINT_FILE,
    RESULT_FOLDER,
    Assignment,
    CheckpointWritten,
    Event,
    Failed,
    Finished,
    Phase,
    PhaseStarted,
    Progress,
    Reporter,
    Stopped,
    StopRequest,
)
from worker.randomness import seed_everything
from worker.repeats import kind_of, roles_of, seed_of, seeds_card
from worker.report import Assessed, Latency, Report, make_report
from worker.samples import Samples, num_epochs
from worker.teacher_outputs import TeacherCache
from worker.teacher_question import question
from worker.teachers import Teachers, teachers_by_role
from worker.teaching import Answers, Plan, TeacherFeatures, Teaching, extra_inputs, labels_only, plan
from worker.watch import TrainingWatch

Role = str
"""A teacher's, of :func:`worker.teachers.teachers_by_role`; one of :func:`worker.chain.chain_of`; ``student``; ``control``."""

logger = logging.getLogger(__name__)

_DIGESTED_SAMPLES = 100


def run(assignment: Assignment, reporter: Reporter) -> None:
    """Runs one attempt to its last event: ``Finished``, ``Stopped`` or ``Failed``. Only what the reporter raises gets out."""
    try:
        spec = parse_spec(assignment.spec)
        with _repeatable(torch.device(assignment.device)):
            last = Attempt(spec, assignment, reporter).run()
    except Exception as error:  # noqa: BLE001 - the task's boundary: whatever happened is recorded
        last = _as_failure(error)
    reporter.emit(last)


class Attempt:
    """One attempt at one job, from wherever the attempts before it came to."""

    def __init__(self, spec: JobSpec, assignment: Assignment, reporter: Reporter) -> None:
        self.spec, self.assignment, self.reporter = spec, assignment, reporter
        self.device = torch.device(assignment.device)
        self.teachers, self.chain = teachers_by_role(spec), chain_of(spec)
        self.finished: dict[Role, Trained] = {}
        self.last_test: dict[Role, Measure] = {}
        """How the last weights of each finished network do on the test split: they are not kept for all of them."""
        self.repeats: dict[Role, Measure] = {}
        """How each repeat from another seed does on the test split; its weights are not kept."""
        self.preprocessings: dict[Role, Preprocessing] = {}
        self.commits: dict[str, str] = {}
        """Which commit each ``hub:`` source was found to be."""
        self.given: dict[Role, FinishedNetwork] = {}
        """Teachers that this job does not train."""
        self.training: Training | None = None
        """The one that runs."""
        self.interrupted: tuple[Role, dict[str, Any]] | None = None
        """The training that the attempt before was at, until this one is there again."""

    def run(self) -> Event:
        """Everything, in order; the attempt's last event."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # what asks for "the" device, as for bf16, means this one
        if self.assignment.num_threads is not None:
            torch.set_num_threads(self.assignment.num_threads)
        self.data = self._load_data()
        self.digest = _digest(self.spec, self.data)
        self._resume()
        self._refuse_early()
        try:
            teachers = taught_by = self._teachers()
            networks = dict(teachers.members)
            for role in self.chain:
                self._train_by(taught_by, role)
                networks[role] = self._rebuild(role)
                taught_by = Teachers({role: networks[role]}, (1.0,), self.data.targets)
            self._train_by(taught_by, "student")
            networks["student"] = self._rebuild("student")
            self._train_control()
            self._train_repeats(taught_by)
            if "control" in self.finished:
                networks["control"] = self._rebuild("control")
            report = self._evaluate_and_export(networks, teachers)
        except StopAsked as stop:
            if stop.request.reason in {"cancel", "time_limit"}:
                self._keep_student(stop.request)
            if stop.request.reason != "cancel":
                self._write_checkpoint()
            return Stopped(reason=stop.request.reason)
        return Finished(result=report.headline())

    # The phases.

    def _load_data(self) -> Data:
        source = self.spec.dataset.source
        path = None if split_source(source).kind == "builtin" else self._input(source)
        return load_data(self.spec.dataset, path, task=self.spec.task)

    def _refuse_early(self) -> None:
        """What is wrong with the student or the method is found before the teacher is trained, not an hour later."""
        choose_precision(self.spec.training.precision, self.device)
        if self.finished or self.interrupted is not None:
            return
        student = self._build("student")
        if self.spec.student.source == "teacher-layers":
            self._refuse_start(student)
        if isinstance(reads := self._preprocessing("student"), LanguagePreprocessing):
            refuse_long_texts(self.spec.method, reads.max_length)
            refuse_rowless(self.data, reads)
            return
        self._refuse_exports()
        self._refuse_augmentation()
        if looks_inside(self.spec.method):
            role = next(iter(self.teachers))
            teacher = self._build(role) if self._is_trained(role) else self._given(role).network
            method = self._plan(student, teacher, self._reads(role))
            with self._told_as_fault("/method"):
                method.objective(targets=self.data.targets, labels=self.data.splits["train"].labels)

    def _refuse_start(self, student: nn.Module) -> None:
        """A student whose layers are not its teacher's, or that reads its texts as other tokens."""
        role = next(iter(self.teachers))
        teacher = self._build(role) if self._is_trained(role) else self._given(role).network
        if not same_tokens(self._preprocessing("student"), self._reads(role)):
            raise JobFault(
                "invalid_spec",
                "A student with its teacher's layers reads as its teacher: leave its tokenizer out.",
                details={"pointer": "/student/tokenizer"},
            )
        self._take_layers(student, teacher)

    def _take_layers(self, student: nn.Module, teacher: nn.Module) -> None:
        try:
            taken = take_teacher_layers(student, teacher, self.spec.student.layers)
        except UnfitStart as error:
            message = f"The student cannot begin with its teacher's layers: {error}"
            raise JobFault("invalid_spec", message, details={"pointer": "/student/source"}) from error
        logger.info("The student begins with the teacher's layers %s.", ", ".join(map(str, taken)))

    def _refuse_exports(self) -> None:
        """What cannot be written as ONNX, told by writing the student as it begins."""
        if self.spec.exports:
            plain = self._build_plain("student", num_outputs=self.data.targets.width)
            with TemporaryDirectory(dir=self.assignment.folder) as folder, self._told_as_fault("/exports"):
                write_onnx(plain, Path(folder) / "student.onnx", samples=self._samples("student", "test"), data=self.data)

    def _refuse_augmentation(self) -> None:
        """What cannot be done to a network's inputs, or to those of a network and its teachers alike."""
        for role in filter(self._is_trained, self.teachers):
            self._views(role)
        if not self.spec.training.augment:
            return
        teachers = [self._reads(role) for role in self.teachers]
        for role in (*self.chain, "student"):
            views, reads = self._views(role), self._preprocessing(role)
            for teacher in teachers:
                if views is not None:
                    with self._told_as_fault("/training/augment"):
                        check_same_views(views, self.data.splits["train"].inputs, student=reads, teacher=teacher)
            teachers = [reads]

    def _teachers(self) -> Teachers:
        weights = tuple(spec.weight for spec in self.teachers.values())
        return Teachers({role: self._teacher(role) for role in self.teachers}, weights, self.data.targets)

    def _teacher(self, role: Role) -> FinishedNetwork:
        if not self._is_trained(role):
            return self._given(role)
        if isinstance(self.spec.method, DeepMutual):
            self._train_peers()
        else:
            self._train(role, spec=self._training_spec(role))
        return self._rebuild(role)

    def _is_trained(self, role: Role) -> bool:
        return role not in self.teachers or self.teachers[role].source == "train"

    def _given(self, role: Role) -> FinishedNetwork:
        if role not in self.given:
            source, teaches = self.teachers[role].source, self.teachers[role].targets
            with TemporaryDirectory(dir=self.assignment.folder) as links:
                path = self._from_hub(source, Path(links)) if split_source(source).kind == "hub" else self._input(source)
                named = pinned(source, self.commits)
                self.given[role] = load_teacher(path, source=named, data=self.data, device=self.device, teaches=teaches)
        return self.given[role]

    def _from_hub(self, source: str, folder: Path) -> Path:
        snapshot = fetch_snapshot(source, folder, commit=self.commits.get(source))
        self.commits[source] = snapshot.commit
        return snapshot.folder

    def _reads(self, role: Role) -> Preprocessing:
        """What lies between the data and any network."""
        return self._preprocessing(role) if self._is_trained(role) else self._given(role).preprocessing

    def _train_peers(self) -> None:
        """Student and teacher at the same time, each taught by the other."""

        def teaching() -> Teaching:
            method = self._plan(self._build("student"), self._build("teacher"), self._preprocessing("teacher"))
            return Teaching(method.objective(targets=self.data.targets, labels=self.data.splits["train"].labels))

        self._train("student", spec=self.spec.training, teaching=teaching, peer="teacher")

    def _train_by(self, teachers: Teachers, role: Role) -> None:
        """The student, or one of the chain to it."""
        if role in self.finished:
            return
        samples = self._samples(role, "train")
        if self.data.targets.are_tokens:
            self._train_to_write(teachers.first, samples, role)
            return
        method = self._plan(self._build(role).to(self.device), teachers.first.network, teachers.first.preprocessing)
        taught: dict[str, Any] = {}
        if samples.views is None:
            samples, taught["teacher_features"] = self._ask_once(teachers, samples, method, role=role)
        else:
            views = samples.views
            answers = [self._ask_views(name, each, samples, views, method, role=role) for name, each in teachers.members.items()]
            taught["answers"] = teachers.answers(answers)

        def teaching() -> Teaching:
            objective = method.objective(targets=self.data.targets, labels=samples.labels)
            return Teaching(objective, method.student_layers, extra_inputs=extra_inputs(self.spec.method), **taught)

        self._train(role, samples=samples, spec=self._training_spec(role), teaching=teaching, teacher=teachers.first.network)

    def _train_to_write(self, teacher: FinishedNetwork, samples: Samples, role: Role) -> None:
        """Of language models the teacher is asked in each step; only what it is to write itself comes before the first."""
        method, master = self.spec.method, LanguageTeacher.of(teacher)
        if not shares_tokenizer(self.spec):
            master = replace(master, samples=teacher.samples(self.data.splits["train"]))
        written = None
        if isinstance(method, SequenceLevel):
            self._announce("cache", f"The {role}'s teacher writes a text for each of {len(samples):,} rows, once for all epochs")
            seed = self._training_spec(role).seed
            tell = partial(self._tell, "cache", total=len(samples))
            written = write_texts(method, master, samples, seed=seed, after_batch=tell)

        def lesson(network: LanguageNetwork) -> Lesson:
            return lesson_of(method, network, samples, master, written=written)

        self._train(role, samples=samples, spec=self._training_spec(role), lesson=lesson, teacher=teacher.network)

    def _ask_once(self, teachers: Teachers, samples: Samples, method: Plan, *, role: Role) -> tuple[Samples, TeacherFeatures]:
        """The training split with what the teachers say to it, and the features of the one that is looked into."""
        answered = [self._ask(name, each, method, role=role) for name, each in teachers.members.items()]
        return samples.with_teacher(teachers.together([answers for answers, _ in answered])), answered[0][1]

    def _ask(self, name: Role, teacher: FinishedNetwork, method: Plan, *, role: Role) -> tuple[Tensor, TeacherFeatures]:
        samples = teacher.samples(self.data.splits["train"])
        what = f"{len(samples):,} training samples for the {role}"

        def begin(is_kept: bool) -> None:
            asking = f"Asking the {name} about {what}, once for all epochs"
            self._announce("cache", f"What the {name} says of {what} is read from the cache" if is_kept else asking)

        answers, features = ask(
            teacher.network,
            samples,
            method.teacher_shapes,
            kept=self._kept(teacher, method),
            begin=begin,
            after_batch=lambda done: self._tell("cache", done, total=len(samples)),
        )
        if not bool(answers.isfinite().all()):
            raise JobFault(
                "non_finite_loss",
                "The teacher's outputs on the training split hold NaN or infinity, before the student's first step.",
                hint="Choose another teacher, or train it again at a lower learning rate.",
                details={"phase": "cache", "step": 0},
            )
        return teacher.in_order(answers), features

    def _ask_views(
        self, name: Role, teacher: FinishedNetwork, samples: Samples, views: EpochViews, method: Plan, *, role: Role
    ) -> Answers:
        """What a teacher says to each view of the training split: asked in each step, or beforehand where they are few."""
        num_views = views.count and min(views.count, num_epochs(self._training_spec(role), len(samples)))
        kept = self._kept(teacher, method) if num_views else None

        def begin(view: int, is_kept: bool) -> None:
            what = f"view {view + 1} of {num_views} of {len(samples):,} training samples for the {role}"
            asking = f"Asking the {name} about {what}"
            self._announce("cache", f"What the {name} says of {what} is read from the cache" if is_kept else asking)

        return ask_views(
            teacher.network,
            samples,
            method.teacher_shapes,
            preprocessing=teacher.preprocessing,
            in_order=teacher.in_order,
            num_views=num_views,
            kept=lambda view: kept and replace(kept, question={**kept.question, "view": views.told(view)}),
            begin=begin,
            after_batch=lambda done: self._tell("cache", done, total=len(samples)),
        )

    def _kept(self, teacher: FinishedNetwork, method: Plan) -> Kept | None:
        """Where the cache has, or will have, what a teacher says to the training split; None without a cache."""
        if self.assignment.cache is None:
            return None
        inputs = self.data.splits["train"].inputs
        layers, reads = method.teacher_shapes, teacher.preprocessing
        asked = question(teacher.network, inputs, reads, layers=layers, device=self.device)
        return Kept(TeacherCache(self.assignment.cache), asked)

    def _train_control(self) -> None:
        if self.spec.evaluation.control:
            num_steps = self.finished["student"].figures.steps
            self._train("control", spec=self.spec.training, num_steps=num_steps)

    def _train_repeats(self, teachers: Teachers) -> None:
        """The student, and its control, again from the other seeds that the spec names."""
        for roles in roles_of(self.spec):
            if roles[-1] in self.repeats:
                continue
            self._train_by(teachers, roles[0])
            for control in roles[1:]:
                self._train(control, spec=self._training_spec(control), num_steps=self.finished[roles[0]].figures.steps)
            test = self.data.splits["test"]
            for role in roles:
                self.repeats[role] = measure(self._rebuild(role).outputs(test), test.labels, self.data.targets)
            for role in roles:
                del self.finished[role], self.last_test[role]
            self._write_checkpoint()

    def _train(
        self,
        role: Role,
        *,
        spec: TrainingSpec,
        samples: Samples | None = None,
        teaching: Callable[[], Teaching] | None = None,
        lesson: Callable[[LanguageNetwork], Lesson] | None = None,
        num_steps: int | None = None,
        peer: Role | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        """One network's training.

        ``peer`` names another that is trained in the same steps, as the same spec says; of ``teacher`` a student may take layers.
        """
        if role in self.finished:
            return
        # Student and control start from the same seed, hence from the same weights, and see the same batches.
        seed_everything(spec.seed)
        network = self._build(role)
        if teacher is not None and self.spec.student.source == "teacher-layers":
            self._take_layers(network, teacher)
        options: dict[str, Any] = {"spec": spec, "num_steps": num_steps}
        # After the network: the method's own weights must not change the student's, nor may its peer's.
        options["teaching"] = teaching() if teaching else labels_only(self.data.targets)
        if isinstance(network, LanguageNetwork):
            samples = samples or self._samples(role, "train")
            options["lesson"] = (lesson or partial(NextTokens, samples=samples))(network)
        if peer is None:
            training = self._training(Training, role, network, samples=samples, **options)
        else:
            beside = self._training(Training, peer, self._build(peer), **options)
            training = self._training(MutualTraining, role, network, samples=samples, peer=beside, **options)
        if self.interrupted is not None and self.interrupted[0] == role:
            training.restore(self.interrupted[1])
        self.interrupted, self.training = None, training
        beginning = f"Resuming at step {training.step:,} the training of" if training.step else "Training"
        beginning += f" the {peer} and" if peer else ""
        self._announce(
            _phase(role),
            f"{beginning} the {role}, {self._architecture(role).name} of {num_parameters(network):,} parameters, "
            f"on {len(training.samples):,} samples in at most {training.last_step:,} steps",
        )
        trained = train(training, TrainingWatch(self.reporter, write_checkpoint=self._write_checkpoint))
        if isinstance(training, MutualTraining):
            self._keep(training.peer, training.peer.finish())
        self._keep(training, trained)
        self.training = None
        self._write_checkpoint(after=(_phase(role), trained.figures.steps))

    def _training(
        self, kind: type[Training], role: Role, network: nn.Module, *, samples: Samples | None = None, **options: Any
    ) -> Training:
        return kind(
            network.to(self.device),
            phase=_phase(role),
            name=role,
            samples=samples or self._samples(role, "train"),
            validation=self._samples(role, "validation"),
            targets=self.data.targets,
            **options,
        )

    def _keep(self, training: Training, trained: Trained) -> None:
        """What came of a training whose network still has its last weights."""
        test = self._samples(training.name, "test")
        outputs = predict(training.network, test, between_batches=lambda done: self._check_stop())
        self.last_test[training.name] = measure(outputs, test.labels, self.data.targets)
        self.finished[training.name] = trained if training.name == "student" else replace(trained, last=None)

    def _evaluate_and_export(self, networks: dict[Role, FinishedNetwork], teachers: Teachers) -> Report:
        test, validation = self.data.splits["test"], self.data.splits["validation"]
        self._announce("evaluation", f"Measuring accuracy and latency on {len(test):,} test samples")
        outputs: dict[Role, Tensor] = {}
        for done, (role, network) in enumerate(networks.items()):
            self._tell("evaluation", done, total=len(networks) + 1)
            outputs[role] = network.outputs(test)
        self._tell("evaluation", len(networks), total=len(networks) + 1)
        together = teachers.together([outputs[role] for role in teachers.members])
        turns = {role: (network.network, network.samples(test).inputs_from(0, 64)) for role, network in networks.items()}
        batch_1, batch_64 = measure_latency(turns, batch_size=1), measure_latency(turns, batch_size=64)
        self._tell("evaluation", len(networks) + 1, total=len(networks) + 1)

        self._announce("export", "Writing the student, its report and its model card, and loading the student once more")
        with result_folder(self.assignment.folder / RESULT_FOLDER) as folder:
            num_bytes = {
                role: network.num_bytes or export_network(network, folder / role, targets=self.data.targets)
                for role, network in networks.items()
                if role != "control"
            }
            check_export(folder / "student", split=test, device=self.device, expected=outputs["student"])
            with self._told_as_fault("/exports"):
                exports = export_student(networks["student"], folder, self.spec.exports, data=self.data)
            # The control is the student's twin; it is measured, not kept.
            num_bytes["control"] = num_bytes["student"]
            assessed = {
                role: Assessed(
                    test=measure(outputs[role], test.labels, self.data.targets, of=network.teaches),
                    metrics=target_metrics(outputs[role], test.labels, self.data.targets, of=network.teaches),
                    validation=network.figures.best_validation
                    if network.figures and network.teaches is None
                    else measure(network.outputs(validation), validation.labels, self.data.targets, of=network.teaches),
                    latency_ms=Latency(batch_1=batch_1[role], batch_64=batch_64[role]),
                    num_bytes=num_bytes[role],
                )
                for role, network in networks.items()
            }
            if "teacher" not in assessed:
                of = teachers.teaches
                assessed["teacher"] = Assessed.together(
                    [assessed[role] for role in teachers.members],
                    test=measure(together, test.labels, self.data.targets, of=of),
                    metrics=target_metrics(together, test.labels, self.data.targets, of=of),
                    validation=measure(teachers.outputs(validation), validation.labels, self.data.targets, of=of),
                )
            report = make_report(
                spec=self.spec,
                job_id=self.assignment.job_id,
                data=self.data,
                networks=networks,
                teachers=self.teachers,
                assessed=assessed,
                score_with_teacher=self._score_with_teacher(teachers, test),
                ensemble_score=self._ensemble_score(outputs, test),
                agreement=agreement(together, outputs["student"], self.data.targets, of=teachers.teaches),
                agreement_by_target=target_agreement(together, outputs["student"], self.data.targets, of=teachers.teaches),
                exports=exports,
                seeds=seeds_card(self.spec, self.repeats | {role: each.test for role, each in assessed.items()}),
            )
            write_documents(folder, report=report, spec=pinned_spec(self.spec, self.commits))
        return report

    def _score_with_teacher(self, teachers: Teachers, split: Split) -> float | None:
        """What the student's best weights score while they read the teacher's own output; None for one that never does."""
        network = self._build("student")
        if not isinstance(network, InformedNetwork) or not network.reads_teacher:
            return None
        network.load_state_dict(self.finished["student"].best)
        samples = Samples.of(split, self._preprocessing("student"), device=self.device).with_teacher(teachers.outputs(split))
        outputs = predict(network.to(self.device), samples, reads_teacher=True)
        return measure(outputs, samples.labels, self.data.targets).score

    def _ensemble_score(self, outputs: Mapping[Role, Tensor], split: Split) -> float | None:
        """What the student and those before it score together; None where the spec does not ask."""
        if not (isinstance(self.spec.method, BornAgain) and self.spec.method.ensemble):
            return None
        together = combined([outputs[role] for role in (*self.chain, "student")], self.data.targets)
        return measure(together, split.labels, self.data.targets).score

    def _keep_student(self, request: StopRequest) -> None:
        """Writes the student as far as it came, when the request wants it and there is one."""
        weights = None if request.keep == "none" else self._student_weights(best=request.keep == "best")
        if weights is None:
            return
        with result_folder(self.assignment.folder / RESULT_FOLDER) as folder:
            export_network(self._rebuild("student", weights), folder / "student", targets=self.data.targets)
            write_spec(folder, pinned_spec(self.spec, self.commits))

    def _student_weights(self, *, best: bool) -> Weights | None:
        trained = self.finished.get("student")
        if trained is not None:
            return trained.best if best else trained.last
        role, state = self._unfinished() or (None, {})
        if role != "student":
            return None
        # Before the first evaluation there is no best.
        weights: Weights = (best and state["best"]) or state["network"]
        return weights

    # The checkpoint.

    def _unfinished(self) -> tuple[Role, dict[str, Any]] | None:
        return (self.training.name, self.training.state()) if self.training is not None else self.interrupted

    def _write_checkpoint(self, *, after: tuple[Phase, int] | None = None) -> None:
        """``after`` names the phase that just ended and its last step."""
        unfinished = self._unfinished()
        state = {
            "digest": self.digest,
            "threads": torch.get_num_threads(),
            "unfinished": unfinished,
            "commits": self.commits,
            "finished": {role: trained.state() for role, trained in self.finished.items()},
            "repeats": {role: asdict(result) for role, result in self.repeats.items()},
            "last_test": {role: asdict(result) for role, result in self.last_test.items()},
        }
        write_checkpoint(self.assignment.folder / CHECKPOINT_FILE, state)
        phase, step = after or ((_phase(unfinished[0]), unfinished[1]["step"]) if unfinished else ("evaluation", 0))
        self.reporter.emit(CheckpointWritten(phase=phase, step=step))

    def _resume(self) -> None:
        """Takes up the folder's checkpoint. One that is damaged, or another job's, is never trained from: the job starts over."""
        try:
            state = read_checkpoint(self.assignment.folder / CHECKPOINT_FILE)
        except FileNotFoundError:
            return
        except DamagedCheckpoint as error:
            logger.warning("The checkpoint is damaged, so the job starts from its beginning: %s", error)
            return
        if state["digest"] != self.digest:
            logger.warning("The checkpoint belongs to another spec or other data, so the job starts from its beginning.")
            return
        if self.device.type == "cpu" and state["threads"] != torch.get_num_threads():
            # Sums are split among threads: only as many of them give the same student, bit for bit.
            logger.info("Using %d threads, as the attempts before did.", state["threads"])
            torch.set_num_threads(state["threads"])
        self.finished = {role: Trained.from_state(trained) for role, trained in state["finished"].items()}
        self.last_test = {role: Measure(**result) for role, result in state["last_test"].items()}
        self.repeats = {role: Measure(**result) for role, result in state["repeats"].items()}
        self.interrupted, self.commits = state["unfinished"], state["commits"]
        logger.info("Resuming after %s.", ", ".join(self.finished) or "no finished phase")

    # Small things that the phases share.

    def _samples(self, role: Role, split: SplitName) -> Samples:
        views = self._views(role) if split == "train" else None
        return Samples.of(self.data.splits[split], self._preprocessing(role), device=self.device, views=views)

    def _views(self, role: Role) -> EpochViews | None:
        """What each epoch of a network's training sees; None without augmentation."""
        training = self._training_spec(role)
        if not training.augment:
            return None
        place = f"/{self._place(role)}/training" if role in self.teachers else "/training"
        with self._told_as_fault(f"{place}/augment"):
            return epoch_views(
                training.augment,
                data=self.data,
                preprocessing=self._preprocessing(role),
                seed=training.seed,
                count=training.views,
            )

    def _training_spec(self, role: Role) -> TrainingSpec:
        if role in self.chain:
            return self.chain[role].training
        own = role in self.teachers and not isinstance(self.spec.method, DeepMutual)  # peers see the same
        training = self.teachers[role].training if own else self.spec.training
        if training is None:
            raise RuntimeError("a spec whose teacher is trained says how")
        return training.model_copy(update={"seed": seed_of(role, otherwise=training.seed)})

    def _preprocessing(self, role: Role) -> Preprocessing:
        """What lies between the data and a network that this job trains; student and control read alike."""
        key: Role = "student" if kind_of(role) in {"student", "control"} else role
        if key in self.chain and key not in self.preprocessings:
            self.preprocessings[key] = choose_preprocessing(
                self.data,
                self._architecture(key),
                features=self.chain[key].features,
                teachers=self._preprocessing("student"),
            )
        if key not in self.preprocessings:
            spec = self.teachers.get(key) or self.spec.student
            self.preprocessings[key] = choose_preprocessing(
                self.data,
                self._architecture(key),
                tokenizer=spec.tokenizer,
                features=spec.features,
                teachers=self._teachers_preprocessing() if key == "student" and spec.tokenizer is None else None,
            )
        return self.preprocessings[key]

    def _teachers_preprocessing(self) -> Preprocessing | None:
        """What a student of texts reads by that has no tokenizer of its own."""
        if INPUT_KINDS[self.data.task] != "text":
            return None
        return self._reads(next(iter(self.teachers)))

    def _architecture(self, role: Role) -> Architecture:
        if role in self.chain:
            return self.chain[role].architecture
        architecture = (self.teachers.get(role) or self.spec.student).architecture
        if architecture is None:
            raise RuntimeError("only a network with an architecture in the spec is trained")
        return architecture

    def _plan(self, student: nn.Module, teacher: nn.Module, teacher_reads: Preprocessing) -> Plan:
        few = first(self.data.splits["train"].inputs, 2)
        student_reads = self._preprocessing("student")
        student_inputs, teacher_inputs = (reads(reads.prepare(few)) for reads in (student_reads, teacher_reads))
        with self._told_as_fault("/method"):
            return plan(
                self.spec.method,
                student=student,
                teacher=teacher,
                student_inputs=student_inputs,
                teacher_inputs=teacher_inputs,
                same_tokens=same_tokens(student_reads, teacher_reads),
            )

    @contextmanager
    def _told_as_fault(self, pointer: str) -> Iterator[None]:
        try:
            yield
        except UnexportableNetwork as error:
            message = f"The student cannot be exported as the spec asks: {error}"
            raise JobFault("invalid_spec", message, details={"pointer": pointer}) from error
        except (UnknownLayer, UnfitLayers, UnfitAugmentation) as error:
            what = "augmentation" if isinstance(error, UnfitAugmentation) else "method"
            raise JobFault(
                "invalid_spec", f"The {what} does not fit the networks: {error}", details={"pointer": pointer}
            ) from error

    def _build(self, role: Role) -> nn.Module:
        """The network as it is trained: a student that reads its teacher's output is more than what is left of it in the end."""
        informed = informed_by(self.spec.method) if kind_of(role) == "student" else None
        if informed is None:
            return self._build_plain(role, num_outputs=self.data.targets.width)
        body = self._build_plain(role, num_outputs=2 * self.data.targets.width)
        return InformedNetwork(body, self.data.targets, extra_input=informed.extra_input)

    def _build_plain(self, role: Role, *, num_outputs: int) -> nn.Module:
        architecture = self._architecture(role)
        try:
            input_shape = self._preprocessing(role).input_shape(self.data.splits["train"].inputs)
            return build_network(architecture, input_shape=input_shape, num_outputs=num_outputs)
        except UnfitArchitecture as error:
            raise JobFault(
                "invalid_spec",
                f"The {role}'s architecture does not fit the data: {error}",
                details={"pointer": "/method" if role in self.chain else f"/{self._place(role)}/architecture"},
            ) from error

    def _place(self, role: Role) -> str:
        """Of a teacher or the student in the spec."""
        return dict(zip(self.teachers, self.spec.teachers, strict=True)).get(role, "student")

    def _rebuild(self, role: Role, weights: Weights | None = None) -> FinishedNetwork:
        trained = self.finished.get(role)
        if weights is None:
            weights = self.finished[role].best
        network = self._build(role)
        if isinstance(network, InformedNetwork):
            informed = network
            informed.load_state_dict(weights)
            network = self._build_plain(role, num_outputs=self.data.targets.width)
            weights = informed.folded(network.state_dict())
        return rebuild(
            network,
            weights,
            trained=trained,
            last_test=self.last_test.get(role),
            architecture=self._architecture(role),
            source=(self.teachers.get(role) or self.spec.student).source,
            targets=self.data.targets,
            teaches=self.teachers[role].targets if role in self.teachers else None,
            preprocessing=self._preprocessing(role),
            device=self.device,
        )

    def _input(self, source: str) -> Path:
        path = self.assignment.inputs.get(source)
        if path is None or not path.exists():
            raise JobFault(
                "input_unavailable", f"{source} is not there.", hint="It was deleted, or the worker could not fetch it."
            )
        return path

    def _announce(self, phase: Phase, message: str) -> None:
        logger.info(message)
        self.reporter.emit(PhaseStarted(phase=phase, message=message))

    def _tell(self, phase: Phase, step: int, *, total: int) -> None:
        self._check_stop()
        self.reporter.emit(
            Progress(phase=phase, step=step, total_steps=total, epoch=1, samples_per_second=None, eta_seconds=None)
        )

    def _check_stop(self) -> None:
        request = self.reporter.stop_request()
        if request is not None:
            raise StopAsked(request)


def _phase(role: Role) -> Phase:
    """Under which phase a network's training is told: those between teacher and student teach."""
    match kind_of(role):
        case "student":
            return "student"
        case "control":
            return "control"
    return "teacher"


def training_parts(spec: JobSpec) -> dict[str, Any]:
    """The parts of a spec that decide what is trained. A job's name, labels and priority may change while it waits."""
    return spec.model_dump(mode="json", include={"task", "dataset", "teacher", "student", "method", "training", "evaluation"})


def _digest(spec: JobSpec, data: Data) -> str:
    digest = hashlib.sha256(json.dumps(training_parts(spec), sort_keys=True).encode())
    digest.update(repr(data.targets).encode())
    for name in sorted(data.splits):
        split = data.splits[name]
        digest.update(split.labels.numpy().tobytes())
        digest.update(_some_bytes(split))
    return digest.hexdigest()


def _some_bytes(split: Split) -> bytes:
    """The first samples' own bytes: enough to tell one file from another."""
    some = first(split.inputs, _DIGESTED_SAMPLES)
    return some.numpy().tobytes() if isinstance(some, Tensor) else repr(some).encode()


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On a CPU, has torch choose deterministic kernels only, and puts its choice back afterwards."""
    if device.type != "cpu":
        yield
        return
    enabled, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill_memory = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Would write NaN into all new memory, to catch kernels that read it; no kernel in use does.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill_memory


def _as_failure(error: Exception) -> Failed:
    match error:
        case JobFault():
            return Failed(error.code, error.message, error.hint, error.details, error.retryable)
        case InvalidSpec():
            return Failed("invalid_spec", error.detail, details={"errors": [fault.model_dump() for fault in error.faults]})
        case UnfitArchitecture():
            return Failed("invalid_spec", str(error))
        case UnusableData():
            return Failed("invalid_data", str(error))
        case UnreadableTokenizer():
            return Failed("input_unavailable", f"The teacher cannot be loaded: {error}")
        case UnreadableNetwork():
            hint = "Load it with from_pretrained where it was made, save it again with save_pretrained, and upload that folder."
            return Failed("input_unavailable", f"The teacher cannot be loaded: {error}", hint)
    logger.error("The trainer ended with an exception.", exc_info=error)
    if _is_out_of_memory(error):
        return Failed(
            "out_of_memory",
            f"Memory ran out: {_first_line(error)}",
            hint="Lower training.batch_size and raise gradient_accumulation by the same factor, or ask for a larger GPU.",
            retryable=True,
        )
    return Failed(
        "trainer_error", f"{type(error).__name__}: {_first_line(error)}", hint="The log has the traceback.", retryable=True
    )


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU allocator has no exception of its own.
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "can't allocate memory" in str(error))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:500]
