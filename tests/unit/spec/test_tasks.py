"""The table of tasks: what its entries say agrees with the library, with the methods and with the tables of other modules."""

from dataclasses import replace
from typing import get_args

import pytest
import transformers
from transformers.models.auto import modeling_auto

from service.spec.data import Column, DatasetInfo, DatasetSpec
from service.spec.data_fit import data_faults
from service.spec.methods import METHODS, tasks_of
from service.spec.task_fit import TASK_CHECKS
from service.spec.tasks import TASKS, InputKind, MethodKind, TaskInfo, TaskName, default_inputs, default_targets, first_task
from service.spec.transformers_fit import classifier_tasks, classifiers, task_of_config

TEXTS = {"text": Column(kind="text", dtype="string"), "answer": Column(kind="text", dtype="string")}


def test_every_name_has_an_entry_and_only_tasks_have_checks_of_their_own() -> None:
    assert list(TASKS) == list(get_args(TaskName))
    assert TASK_CHECKS.keys() <= TASKS.keys()


@pytest.mark.parametrize("task", TASKS)
def test_the_library_has_the_class_and_the_table_the_model_types(task: TaskName) -> None:
    assert hasattr(transformers, TASKS[task].auto_class)
    assert classifiers(task)
    assert (task in classifier_tasks()) == (TASKS[task].model_types is None)


def test_a_task_may_have_the_model_types_of_another_but_some(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = TaskInfo("text", "token classifier", "AutoModelForTokenClassification", model_types="text-classification")
    monkeypatch.setitem(TASKS, "sentence-embedding", replace(entry, without_model_types=("opt",)))
    assert set(classifiers("text-classification")) - set(classifiers("sentence-embedding")) == {"opt"}
    assert set(classifiers("sentence-embedding")) <= modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.keys()


def test_a_config_with_that_ending_is_of_the_task_with_another_list(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = TaskInfo("text", "token classifier", "AutoModelForTokenClassification", model_types="text-classification")
    monkeypatch.setitem(TASKS, "sentence-embedding", replace(entry, architectures=("ForWordTags",)))
    config = {"model_type": "bert", "architectures": ["BertForWordTags"]}
    assert task_of_config(config) == "sentence-embedding"
    assert task_of_config(config | {"architectures": ["BertForSequenceClassification"]}) == "text-classification"


def test_documents_name_the_columns_of_every_task() -> None:
    assert default_inputs() == "`image`, `text`, `audio` or `tokens`"
    assert default_targets() == "`label`; for `token-classification` `tags`; for `sentence-embedding` and `causal-lm` none"


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_a_method(task: TaskName) -> None:
    assert any(task in tasks_of(method) for method in METHODS.values())


def test_each_kind_of_methods_and_of_inputs_is_some_tasks() -> None:
    assert {kind for info in TASKS.values() for kind in info.methods} == set(get_args(MethodKind))
    assert {first_task(kind) for kind in get_args(InputKind)} <= TASKS.keys()


@pytest.mark.parametrize("task", TASKS)
def test_the_number_of_targets_is_the_entrys(task: TaskName) -> None:
    info = TASKS[task]
    dataset = DatasetInfo(task=task, splits={"train": 10}, columns=TEXTS, classes=[])
    spec = DatasetSpec(source="builtin:languages", input="text", targets=["answer", "text"])
    found = {fault.pointer: fault.message for fault in data_faults(spec, dataset, task=task)}
    assert info.max_targets == (1 if info.only_target else 64)
    assert ("/dataset/targets/1" in found) or not info.only_target


def test_beside_each_kind_of_words_stands_a_kind_of_targets() -> None:
    assert [TASKS["token-classification"].word_targets(column) for column in ("tokens", "text")] == ["tags", "spans"]


def test_no_ending_of_a_config_means_two_tasks() -> None:
    endings = [ending for info in TASKS.values() for ending in info.architectures]
    assert len(set(endings)) == len(endings)
