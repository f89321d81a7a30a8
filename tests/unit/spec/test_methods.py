"""The table of methods, the unions of a spec and each method's page in the catalogue agree."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from service.spec.methods import METHODS, OF_TOKENS, EmbeddingDistillation, Labels, Method, MethodSpec, SumOfTerms, Term, tasks_of
from service.spec.strict import StrictModel
from service.spec.tasks import TaskName


def members(union: Any) -> set[type[StrictModel]]:
    """The classes of a discriminated union, whose members are tagged one by one."""
    return {get_args(member)[0] for member in get_args(get_args(union)[0])}


def test_a_spec_may_name_every_method_of_the_table_and_no_other() -> None:
    assert members(MethodSpec) == {*METHODS.values(), SumOfTerms}


def test_a_sum_may_name_every_method_that_does_not_stand_alone_and_labels() -> None:
    """The schema also lists ``embedding``, which the model then refuses with what to do."""
    summed = {method for method in METHODS.values() if not method.stands_alone}
    assert members(Term) == {Labels, EmbeddingDistillation, *summed}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.stands_alone])
def test_a_method_that_stands_alone_is_refused_in_a_sum_with_what_to_do(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is more than a loss and no term of a sum"):
        SumOfTerms.model_validate({"terms": [{"name": name}]})


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_each_method_has_a_page_of_its_own_which_no_schema_holds(method: type[Method]) -> None:
    own = {"summary", "formula", "paper"}
    assert own <= vars(method).keys()
    assert not own & method.model_json_schema()["properties"].keys()


def test_each_task_has_methods_and_language_models_have_theirs_alone() -> None:
    by_task = {task: {name for name, method in METHODS.items() if task in tasks_of(method)} for task in get_args(TaskName)}
    assert by_task.pop("causal-lm") == OF_TOKENS == {"forward-kl", "reverse-kl", "jsd", "sequence", "on-policy", "uld"}
    of_words = by_task.pop("token-classification")
    assert of_words == {name for name, method in METHODS.items() if method.kind == "outputs"}
    assert by_task.pop("sentence-embedding") == {"embedding"}
    assert all(names == METHODS.keys() - OF_TOKENS - {"embedding"} for names in by_task.values())
