"""What may stand in a spec, as the service tells it."""

from typing import get_args

import httpx

from service.spec.methods import METHODS, OF_TOKENS
from service.spec.tasks import TaskName


def test_every_method_is_listed_with_its_formula_parameters_and_tasks(member: httpx.Client) -> None:
    listed = {method["name"]: method for method in member.get("/v1/methods").json()["data"]}
    assert listed.keys() == METHODS.keys()
    for name, method in listed.items():
        assert method["formula"].startswith("L"), name
        assert method["parameters"]["properties"]["name"]["const"] == name
        special = {"embedding": ["sentence-embedding"], **{name: ["causal-lm"] for name in OF_TOKENS}}
        others = [task for task in get_args(TaskName) if [task] not in special.values()]
        if METHODS[name].kind == "layers":
            others.remove("token-classification")
        assert method["tasks"] == special.get(name, others), name
