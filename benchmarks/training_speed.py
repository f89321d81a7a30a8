"""A job's student training against plain PyTorch loops: ``python -m benchmarks.training_speed``.

All of them train the same student from the same teacher on the digits, with the same loss, batches, optimizer and schedule,
and measure accuracy on the validation split after each epoch. They take turns, so that a busy moment of the machine falls
on all, and the medians are compared. Ratios are the job's seconds over the plain loop's: below 1, the job is faster. What
the job does before its loop (asking the teacher about the training split) and beside it (metric points, progress, best
weights) is in its time.

Three plain loops: with a DataLoader; with tensors in memory; and with tensors and the teacher asked once, as the job does it.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator

from benchmarks.in_turns import median_seconds
from worker.host.openmp import let_idle_threads_sleep

let_idle_threads_sleep()  # as trainers run; before torch is imported

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from service.spec.architectures import SmallCnn
from service.spec.data import DatasetSpec
from service.spec.methods import SoftTargets
from service.spec.training import TrainingSpec
from worker.data import load_data
from worker.data.samples import Samples
from worker.data.tensors import only_tensor
from worker.methods.layer_mapping import map_layers
from worker.models import build_network
from worker.protocol import Event, StopRequest
from worker.tasks import TASKS
from worker.teachers.compute import compute_teacher_outputs
from worker.training.callbacks import TrainingReporter
from worker.training.criterion import BatchCriterion
from worker.training.loop import Training, train

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor, Tensor | None]


class Silent:
    """A reporter that nobody reads."""

    def emit(self, event: Event) -> None:
        pass

    def stop_request(self) -> StopRequest | None:
        return None


class Contest:
    """One teacher, one student, one dataset; each method trains a fresh student and says how long it took."""

    def __init__(self, *, teacher_width: int, student_width: int, epochs: int, batch_size: int) -> None:
        self.data = load_data(DatasetSpec(source="builtin:digits", input="image"), None, task=TASKS["image-classification"])
        preprocessing = TASKS[self.data.task].preprocessing(self.data, SmallCnn(name="small-cnn"))
        self.train, self.validation = (
            Samples.of(self.data.splits[name], preprocessing, device=CPU) for name in ("train", "validation")
        )
        self.student_width, self.method = student_width, SoftTargets()
        self.spec = TrainingSpec(epochs=epochs, batch_size=batch_size)
        self.teacher = self.build(teacher_width).eval()

    def build(self, width: int) -> nn.Module:
        torch.manual_seed(0)
        architecture = SmallCnn(name="small-cnn", width=width)
        return build_network(architecture, input_shape=(1, 8, 8), num_outputs=self.data.targets.width)

    def job(self) -> None:
        """As the trainer does it."""
        answers = compute_teacher_outputs(self.teacher, self.train, {}, after_batch=lambda done: None)
        student = self.build(self.student_width)
        few = self.train.inputs_from(0, 2)
        method = map_layers(self.method, student=student, teacher=self.teacher, student_inputs=few, teacher_inputs=few)
        objective = method.objective(targets=self.data.targets, labels=self.train.labels)
        training = Training(
            student,
            phase="student",
            samples=self.train,
            validation=TASKS[self.data.task].validation(self.validation, self.data.targets),
            spec=self.spec,
            criterion=BatchCriterion(student, self.train, objective, layers=method.student_layers, teacher_outputs=answers),
        )
        train(training, TrainingReporter(Silent(), write_checkpoint=lambda: None))

    def plain_with_loader(self) -> None:
        """With PyTorch's DataLoader, as most scripts do it."""
        loader = DataLoader(
            TensorDataset(only_tensor(self.train.inputs), self.train.labels), batch_size=self.spec.batch_size, shuffle=True
        )

        def epoch() -> Iterator[Batch]:
            for images, labels in loader:
                yield images, labels, None

        self._plain(epoch)

    def plain_with_tensors(self) -> None:
        """With the data in memory and a permutation for each epoch."""

        def epoch() -> Iterator[Batch]:
            for indices in torch.split(torch.randperm(len(self.train)), self.spec.batch_size):
                yield only_tensor(self.train.inputs)[indices], self.train.labels[indices], None

        self._plain(epoch)

    def plain_teacher_asked_once(self) -> None:
        """The same, and the teacher's logits computed before the first epoch."""
        with torch.no_grad():
            answers = torch.cat([self.teacher(images) for images in torch.split(only_tensor(self.train.inputs), 256)])

        def epoch() -> Iterator[Batch]:
            for indices in torch.split(torch.randperm(len(self.train)), self.spec.batch_size):
                yield only_tensor(self.train.inputs)[indices], self.train.labels[indices], answers[indices]

        self._plain(epoch)

    def _plain(self, epoch: Callable[[], Iterable[Batch]]) -> None:
        network, method = self.build(self.student_width), self.method
        epochs = self.spec.epochs or 1
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.003, weight_decay=0.01)
        steps_per_epoch = -(-len(self.train) // self.spec.batch_size)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.003, total_steps=epochs * steps_per_epoch)
        tau, weight = method.temperature, method.label_weight
        for _ in range(epochs):
            network.train()
            running_loss = 0.0
            for images, labels, answers in epoch():
                if answers is None:
                    with torch.no_grad():
                        answers = self.teacher(images)
                logits = network(images)
                soft = functional.kl_div(
                    functional.log_softmax(logits / tau, dim=1), functional.softmax(answers / tau, dim=1), reduction="batchmean"
                )
                loss = (1 - weight) * tau**2 * soft + weight * functional.cross_entropy(logits, labels)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                scheduler.step()
                running_loss += loss.item()
            network.eval()
            with torch.no_grad():
                logits = network(self.validation.inputs)
                (logits.argmax(dim=1) == self.validation.labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--teacher-width", type=int, default=64)
    parser.add_argument("--student-width", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    contest = Contest(
        teacher_width=arguments.teacher_width,
        student_width=arguments.student_width,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
    )
    contestants = {
        "the job": contest.job,
        "plain loop with a DataLoader": contest.plain_with_loader,
        "plain loop with tensors": contest.plain_with_tensors,
        "plain loop, teacher asked once": contest.plain_teacher_asked_once,
    }
    medians = median_seconds(contestants, rounds=arguments.rounds)
    for name, median in medians.items():
        ratio = "" if name == "the job" else f"   the job takes {medians['the job'] / median:.2f} of it"
        print(f"{name:32} {median:7.3f} s{ratio}")


if __name__ == "__main__":
    main()
