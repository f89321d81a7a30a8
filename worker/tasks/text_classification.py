"""Classes and numbers of texts."""

from textwrap import dedent

from torch import nn

from service.spec.architectures import Architecture
from service.spec.inputs import Features, TokenizerSpec
from service.spec.report import Report
from worker.data import Data, Preprocessing
from worker.models import LoadedNetwork
from worker.models.classifiers import TextClassifiers
from worker.tasks.card_text import library_program, outputs_read
from worker.tasks.labelled import LabelledTask
from worker.tasks.texts import check_pair_types, choose_text_preprocessing, fit_texts, texts_onnx_form

_READER = """\
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("student")
    student = AutoModelForSequenceClassification.from_pretrained("student").eval()
    inputs = tokenizer(["some text"], padding=True, truncation=True, return_tensors="pt")
    """
_PAIR_READER = _READER.replace('["some text"]', '["some text"], ["another"]')


class TextClassification(LabelledTask):
    """Networks that map texts to outputs of their targets."""

    name = "text-classification"
    network = TextClassifiers("text-classification")

    def fit_inputs(self, loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
        check_pair_types(loaded, data)
        return fit_texts(loaded.preprocessing, data)

    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        return choose_text_preprocessing(data, tokenizer=tokenizer, teachers=teachers)

    def onnx_form(self, network: nn.Module, preprocessing: Preprocessing | None, data: Data) -> tuple[nn.Module, tuple[str, ...]]:
        return texts_onnx_form(network, preprocessing, data)

    def usage(self, report: Report, *, is_own: bool) -> str:
        return library_program(dedent(_PAIR_READER if report.data.pairs else _READER), read=outputs_read(report))
