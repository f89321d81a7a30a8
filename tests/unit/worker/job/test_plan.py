"""Every kind of job has the trainings that its spec says, in their order, each with its teachers, its spec and its steps."""

from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.methods import METHODS
from service.spec.tasks import TASKS
from worker.job.plan import JobPlan, plan_of
from worker.job.roles import CONTROL, STUDENT, Role

TEACHER = Role("teacher")
CNN = {"name": "small-cnn", "width": 4}
BERT = {"name": "transformers", "model_type": "bert"}
GPT2 = {"name": "transformers", "model_type": "gpt2"}
TOKENIZER = {"train": "wordpiece", "vocab_size": 600}
DOCUMENT: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": CNN, "training": {"max_steps": 7}},
    "student": {"architecture": CNN},
    "training": {"max_steps": 5, "seed": 3},
}
OF_TASKS: dict[str, dict[str, Any]] = {
    "image-classification": {},
    "text-classification": {
        "dataset": {"source": "builtin:languages"},
        "teacher": {"architecture": BERT, "tokenizer": TOKENIZER},
        "student": {"architecture": BERT},
    },
    "audio-classification": {"dataset": {"source": "file:/clips.zip"}},
    "causal-lm": {
        "dataset": {"source": "file:/texts.jsonl"},
        "teacher": {"architecture": GPT2, "tokenizer": {"train": "bpe", "vocab_size": 600}},
        "student": {"architecture": GPT2},
        "method": {"name": "forward-kl"},
    },
    "sentence-embedding": {
        "dataset": {"source": "file:/texts.jsonl"},
        "teacher": {"source": "hub:anna/encoder"},
        "student": {"architecture": BERT, "tokenizer": TOKENIZER},
        "method": {"name": "embedding"},
    },
}
PARTS_OF_METHODS: dict[str, dict[str, Any]] = {
    "ofa": {"student_layers": ["body"]},
    "teacher-assistant": {"assistants": [CNN, CNN]},
}


def plan(**changes: Any) -> JobPlan:
    return plan_of(parse_spec(DOCUMENT | changes))


def order(made: JobPlan) -> list[str]:
    """Each training as ``role``, or ``role < its teachers``, with a peer as ``role + peer``."""
    return [
        str(each.role)
        + (f" + {each.peer}" if each.peer else "")
        + (f" < {' '.join(map(str, each.taught_by))}" if each.taught_by else "")
        for each in made.trainings
    ]


def test_a_teacher_comes_first_and_the_student_learns_from_it() -> None:
    made = plan()
    assert order(made) == ["teacher", "student < teacher"]
    assert [(each.spec.max_steps, each.spec.seed) for each in made.trainings] == [(7, 0), (5, 3)]
    assert (made.teachers, made.given, made.chain, made.trained) == ((TEACHER,), (), (), (TEACHER, STUDENT))


def test_a_given_teacher_is_not_trained() -> None:
    made = plan(teacher={"source": "model:model_" + "0" * 26})
    assert order(made) == ["student < teacher"]
    assert (made.teachers, made.given, made.trained) == ((TEACHER,), (TEACHER,), (STUDENT,))


def test_a_given_teacher_with_a_training_is_fine_tuned_first() -> None:
    made = plan(teacher={"source": "model:model_" + "0" * 26, "training": {"max_steps": 9}}, evaluation={"control": True})
    assert order(made) == ["teacher", "student < teacher", "control"]
    assert (made.teachers, made.given, made.trained) == ((TEACHER,), (), (TEACHER, STUDENT))
    assert made.training_of(TEACHER).spec.max_steps == 9


def test_several_teachers_given_and_trained_teach_together() -> None:
    made = plan(teacher=[{"architecture": CNN}, {"source": "hub:anna/digits"}, {"architecture": CNN | {"width": 6}}])
    assert order(made) == ["teacher-1", "teacher-3", "student < teacher-1 teacher-2 teacher-3"]
    assert made.given == (Role("teacher", 2),)


def test_each_generation_learns_from_the_one_before_from_a_seed_of_its_own() -> None:
    made = plan(method={"name": "born-again", "generations": 3})
    assert order(made) == ["teacher", "generation-1 < teacher", "generation-2 < generation-1", "student < generation-2"]
    assert [each.spec.seed for each in made.trainings] == [0, 4, 5, 3]
    assert made.chain == (Role("generation", 1), Role("generation", 2))


def test_teacher_assistants_stand_between_teachers_and_student() -> None:
    made = plan(
        teacher=[{"architecture": CNN}, {"architecture": CNN | {"width": 6}}],
        method={"name": "teacher-assistant", "assistants": [CNN | {"width": 3}]},
    )
    assert order(made) == ["teacher-1", "teacher-2", "assistant-1 < teacher-1 teacher-2", "student < assistant-1"]


def test_peers_are_one_training_by_the_students_spec() -> None:
    made = plan(method={"name": "deep-mutual"}, teacher={"architecture": CNN})
    (training,) = made.trainings
    assert order(made) == ["student + teacher"]
    assert training.roles == made.trained == (TEACHER, STUDENT)
    assert made.training_of(TEACHER) is training
    assert (training.spec.max_steps, training.reads_transfer) == (5, True)
    assert (training.learns_from, training.taught_by, made.reported) == ((TEACHER,), (), (TEACHER, STUDENT))
    assert (made.given, list(made.roles_in("teacher")), list(made.roles_in("student"))) == ((), [TEACHER], [STUDENT])


def test_a_control_learns_from_labels_alone_in_as_many_steps_as_the_student() -> None:
    made = plan(evaluation={"control": True})
    assert order(made) == ["teacher", "student < teacher", "control"]
    control, student = made.training_of(CONTROL), made.training_of(STUDENT)
    assert (control.steps_of, control.spec) == (STUDENT, student.spec)
    assert (control.reads_transfer, student.reads_transfer, made.training_of(TEACHER).reads_transfer) == (False, True, False)
    assert (made.trained, made.reported) == ((TEACHER, STUDENT), (TEACHER, STUDENT, CONTROL))


@pytest.mark.parametrize("control", [False, True])
def test_each_further_seed_repeats_the_student_and_its_control(control: bool) -> None:
    made = plan(evaluation={"control": control, "seeds": [3, 8, 1]}, method={"name": "born-again", "generations": 2})
    ours = ["control"] * control
    assert order(made) == [
        "teacher",
        "generation-1 < teacher",
        "student < generation-1",
        *ours,
        "student@8 < generation-1",
        *[f"{each}@8" for each in ours],
        "student@1 < generation-1",
        *[f"{each}@1" for each in ours],
    ]
    assert [{each.spec.seed for each in trainings} for trainings in made.replicates] == [{8}, {1}]
    for trainings in made.replicates:
        assert [each.steps_of for each in trainings[1:]] == [trainings[0].role] * control
    assert len(list(made.roles_in("repeats"))) == 2 * (1 + control)


def test_what_another_job_trains_is_left_out() -> None:
    made = plan(teacher=[{"architecture": CNN}, {"architecture": CNN | {"width": 6}}]).without({Role("teacher", 2)})
    assert order(made) == ["teacher-1", "student < teacher-1 teacher-2"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_a_student(task: str) -> None:
    made = plan_of(parse_spec(DOCUMENT | {"task": task} | OF_TASKS.get(task, OF_TASKS["text-classification"])))
    assert order(made)[-1] == "student < teacher"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_its_student_once(name: str) -> None:
    task = next(task for task, info in TASKS.items() if METHODS[name].kind in info.methods)
    method = {"name": name} | PARTS_OF_METHODS.get(name, {})
    made = plan_of(parse_spec(DOCUMENT | {"teacher": {"architecture": CNN}, "task": task} | OF_TASKS[task] | {"method": method}))
    assert [training.role for training in made.trainings].count(STUDENT) == 1
    assert [role for training in made.trainings for role in training.roles].count(TEACHER) == (not made.given)
