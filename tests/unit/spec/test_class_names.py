"""Outputs of a given network are found by name: never by position, never by a likeness that two names share."""

import pytest

from service.spec.class_names import UnknownOutputs, are_placeholders, map_outputs

EMOTIONS = ["anger", "joy", "sadness"]


@pytest.mark.parametrize(
    ("ours", "theirs", "order"),
    [
        (EMOTIONS, ["SADNESS", "JOY", "ANGER"], [2, 1, 0]),
        (EMOTIONS, ["sadness", "anger", "joy"], [1, 2, 0]),
        (["hot dog", "ice cream"], ["ice_cream", "hot-dog"], [1, 0]),
        (["Crème brûlée", "straße"], ["STRASSE", "crème_brûlée"], [1, 0]),
        ([" yes", "no"], ["No", "Yes "], [1, 0]),
        (["0", "1", "2"], ["2", "0", "1"], [1, 2, 0]),
        (["-1", "1"], ["1", "-1"], [1, 0]),
        (["us", "US"], ["US", "us"], [1, 0]),
        (["LABEL_1", "LABEL_0"], ["LABEL_0", "LABEL_1"], [1, 0]),
    ],
)
def test_names_are_found_whatever_their_order_case_and_blanks(ours: list[str], theirs: list[str], order: list[int]) -> None:
    assert map_outputs({"label": ours}, theirs).order == order


def test_of_more_classes_those_of_the_data_are_chosen_and_the_others_named() -> None:
    found = map_outputs({"label": EMOTIONS}, ["fear", "Joy", "Anger", "love", "Sadness"])
    assert (found.order, found.unused) == ([2, 1, 4], ["fear", "love"])


@pytest.mark.parametrize(
    ("ours", "theirs", "said", "remedy"),
    [
        (EMOTIONS, ["LABEL_0", "LABEL_1", "LABEL_2"], "none of its outputs is a class", '"id2label": {"0": "anger", "1": "joy"'),
        (["cat", "dog"], ["0", "1"], "its outputs are '0', '1'", '"id2label": {"0": "cat", "1": "dog"}'),
        (["0", "1"], ["class 1", "class 2"], "the dataset has '0', '1'", '"id2label": {"0": "0"'),
        (EMOTIONS, ["anger", "joy"], "it has 2, the dataset 3: it lacks 'sadness'", "rows of 'sadness' out of the dataset"),
        (EMOTIONS, ["anger", "joy", "sorrow"], "it lacks 'sadness'", "id2label"),
        (["1", "2"], ["-1", "2"], "it lacks '1'", "id2label"),
        (["us", "US"], ["Us", "them"], "none of its outputs", "id2label"),
        (["us", "them"], ["US", "Us", "them"], "it lacks 'us'", "id2label"),
        (["crane", "cat"], ["crane", "crane", "cat"], "it lacks 'crane'", "id2label"),
    ],
)
def test_what_cannot_be_told_by_name_is_refused_with_both_lists_and_a_remedy(
    ours: list[str], theirs: list[str], said: str, remedy: str
) -> None:
    with pytest.raises(UnknownOutputs) as caught:
        map_outputs({"label": ours}, theirs)
    assert said in caught.value.message
    assert all(repr(name) in caught.value.message for name in (*ours, *theirs))
    assert remedy in caught.value.hint


def test_outputs_of_several_targets_are_named_by_their_target_and_those_of_one_need_not_be() -> None:
    ours = {"side": ["left", "right"], "size": None}
    assert map_outputs(ours, ["size", "side: Right", "side: left"]).order == [2, 1, 0]
    assert map_outputs(ours, ["RIGHT", "left"], teaches=["side"]).order == [1, 0, -1]
    assert map_outputs(ours, ["size"], teaches=["size"]).order == [-1, -1, 0]
    assert map_outputs({"side": ["left", "right"]}, ["size", "side: right", "side: left"]).order == [2, 1]
    with pytest.raises(UnknownOutputs, match="'side: left', 'side: right', 'size'"):
        map_outputs(ours, ["left", "right"])


def test_a_networks_only_number_need_not_be_named_but_another_name_is_another_number() -> None:
    assert map_outputs({"size": None}, ["LABEL_0"]).order == [0]
    with pytest.raises(UnknownOutputs):
        map_outputs({"size": None}, ["age"])


def test_data_that_tell_no_classes_ask_for_none() -> None:
    assert map_outputs({"label": []}, EMOTIONS).order == []


def test_numbers_alone_are_no_names() -> None:
    assert are_placeholders(["LABEL_0", "LABEL_1"])
    assert are_placeholders(["class-0", "Class 1"])
    assert not are_placeholders(["LABEL_0", "joy"])
    assert not are_placeholders([])
