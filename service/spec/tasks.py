"""What a job can be trained for: one entry for each task, with everything that a spec is checked by. Pure, no torch.

A new task is an entry here and a module of its name in ``worker/tasks``. A check that no field can express is a function of
``service/spec/task_fit.py``.
"""

from dataclasses import dataclass
from typing import Literal

TaskName = Literal[
    "image-classification",
    "text-classification",
    "audio-classification",
    "token-classification",
    "sentence-embedding",
    "causal-lm",
]
InputKind = Literal["image", "text", "audio"]
InputColumnKind = Literal["image", "text", "audio", "tokens", "messages"]
"""What a column of inputs holds; ``tokens`` are the words of a text as a list, ``messages`` turns of a chat."""
TargetKind = Literal["label", "number", "labels", "probabilities", "text", "messages", "tags", "spans"]
"""What a column of targets holds: ``labels``, any of the classes, and ``probabilities`` of them, in lists; ``tags``, one for each
of the tokens; ``spans`` of a text's characters; ``text``, an answer, and ``messages``, one that is part of a chat."""
Modality = Literal["image", "waveform", "log-mel", "text"]
"""What an augmentation is applied to."""
MethodKind = Literal["outputs", "layers", "next-tokens", "embeddings"]
"""What a method reads of the networks: their outputs alone, or inner layers too; or what only one task has."""

MAX_TARGETS = 64
_AUGMENTED: dict[InputKind, tuple[Modality, ...]] = {"image": ("image",), "text": ("text",), "audio": ("waveform", "log-mel")}


@dataclass(frozen=True)
class ShownMetric:
    """A metric that stands beside the score wherever networks are listed."""

    target: str
    """The target that it is of in ``metrics``."""
    name: str
    """Its name there."""


@dataclass(frozen=True)
class UsualColumns:
    """Columns by whose usual names a file tells that it is for a task."""

    inputs: tuple[str, ...]
    targets: tuple[str, ...] = ()
    """Without them it tells nothing, unless its uploader names others."""


USUAL_PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "sentence"))
"""The columns of pairs of texts under the names that are usual elsewhere."""


@dataclass(frozen=True)
class TaskInfo:
    """What a spec of one task may say, and what files may hold for it."""

    input_kind: InputKind
    """What its networks read."""
    network: str
    """What one of its networks is called."""
    auto_class: str
    """The class of ``transformers`` that builds and loads its networks."""
    columns: tuple[InputColumnKind, ...] = ()
    """The kinds of columns that may hold its inputs; empty for one of the kind that its networks read. The first is also the name
    of the input column by default. With ``tokens`` among them every text is read as words, and its targets are for each word."""
    targets: tuple[str, ...] = ("label",)
    """The columns to predict by default; empty where the student learns without any: then what it predicts is the input's own."""
    told_by: tuple[UsualColumns, ...] = ()
    """The columns of files that are for it and no other task; the first that a file has are those to read."""
    target_kinds: tuple[TargetKind, ...] = ("label", "number", "labels", "probabilities")
    """The kinds of columns that can be predicted; of words, the kind that stands beside each of ``columns``, in that order."""
    only_target: str = ""
    """Of a task with one target at most: what that is, for the message that refuses several."""
    methods: tuple[MethodKind, ...] = ("outputs", "layers")
    """The kinds of methods that fit it."""
    model_types: TaskName | None = None
    """The task whose model types in ``transformers_configs.json`` it has; None for a list of its own."""
    without_model_types: tuple[str, ...] = ()
    """Those of that task which this one's class does not build."""
    gguf_architectures: tuple[str, ...] = ()
    """Those of llama.cpp whose files it reads, as they are called there."""
    why_no_others: str = ""
    """Why a model type that it does not list is not trained, where the library could build it."""
    architectures: tuple[str, ...] = ()
    """How the names in a config's ``architectures`` end which mean this task; empty for the task that lists the model type."""
    augmented: tuple[Modality, ...] | None = None
    """What can be augmented of its inputs; None for what there is of their kind."""
    takes_pairs: bool = False
    """Whether a row may be two texts that its networks read together."""
    packs_rows: bool = False
    """Whether its texts are cut into rows of tokens, as ``dataset.packing`` and ``row_tokens`` say."""
    takes_transfer_rows: bool = True
    """Whether ``dataset.transfer`` fits it; without targets every row is one already."""
    one_form: str = ""
    """What a student is called that is given out as its library's folder alone; empty where it can be exported."""
    counted: str = "samples"
    """What a score is counted over, in the plural."""
    pipeline_tag: str = ""
    """What the Hugging Face Hub calls it, if otherwise than here."""
    shown_metric: ShownMetric | None = None
    """What stands beside the score in lists of networks; None for nothing."""

    @property
    def input_columns(self) -> tuple[InputColumnKind, ...]:
        """The kinds of columns that may hold its inputs; the first is also the input column's name by default."""
        return self.columns or (self.input_kind,)

    @property
    def is_scored_by_teacher(self) -> bool:
        """Whether what its networks learn is their teacher's outputs alone, which also are what their score is of."""
        return self.methods == ("embeddings",)

    @property
    def takes_weights(self) -> bool:
        """Whether rows may have weights: of those with targets of their own, each of which is one prediction."""
        return bool(self.targets) and not self.reads_words

    @property
    def reads_words(self) -> bool:
        """Whether a row is a list of words, and a target one tag for each."""
        return "tokens" in self.input_columns

    @property
    def reads_chats(self) -> bool:
        """Whether a row may be a chat, a list of messages."""
        return "messages" in self.input_columns

    def word_targets(self, column: InputColumnKind) -> TargetKind:
        """What says of the words of an input what they are, by the kind of the input's column."""
        return dict(zip(self.columns, self.target_kinds, strict=True))[column]

    @property
    def max_targets(self) -> int:
        """The most targets that a dataset or a job of it has."""
        return 1 if self.only_target else MAX_TARGETS

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What an augmentation of it may be applied to."""
        return _AUGMENTED[self.input_kind] if self.augmented is None else self.augmented


TASKS: dict[TaskName, TaskInfo] = {
    "image-classification": TaskInfo(
        input_kind="image",
        network="image classifier",
        auto_class="AutoModelForImageClassification",
        told_by=(UsualColumns(("image",)),),
    ),
    "text-classification": TaskInfo(
        input_kind="text",
        network="text classifier",
        auto_class="AutoModelForSequenceClassification",
        told_by=tuple(UsualColumns(inputs, ("label",)) for inputs in (*USUAL_PAIRS, ("text",))),
        takes_pairs=True,
    ),
    "audio-classification": TaskInfo(
        input_kind="audio",
        network="audio classifier",
        auto_class="AutoModelForAudioClassification",
        told_by=(UsualColumns(("audio",)),),
    ),
    "token-classification": TaskInfo(
        input_kind="text",
        network="token classifier",
        auto_class="AutoModelForTokenClassification",
        columns=("tokens", "text"),
        targets=("tags",),
        told_by=(UsualColumns(("tokens",), ("tags",)), UsualColumns(("text",), ("spans",))),
        target_kinds=("tags", "spans"),
        only_target="the tags of its words",
        methods=("outputs",),
        model_types="text-classification",
        without_model_types=("opt",),  # the library has no such class of it
        architectures=("ForTokenClassification",),
        augmented=(),  # a word that is taken out takes its tag along
        counted="words",
        one_form="a token classifier",
    ),
    "sentence-embedding": TaskInfo(
        input_kind="text",
        network="text encoder",
        auto_class="AutoModel",
        targets=(),
        methods=("embeddings",),
        model_types="text-classification",
        architectures=("Model", "ForMaskedLM"),
        one_form="an embedding",
    ),
    "causal-lm": TaskInfo(
        input_kind="text",
        network="causal language model",
        auto_class="AutoModelForCausalLM",
        columns=("text", "messages"),
        targets=(),
        told_by=(UsualColumns(("messages",)), UsualColumns(("prompt",), ("completion",))),
        target_kinds=("text", "messages"),
        only_target="the answer to its input",
        methods=("next-tokens",),
        architectures=("ForCausalLM", "LMHeadModel"),
        gguf_architectures=("gpt2", "llama", "mistral", "qwen2", "qwen3"),
        why_no_others="whether the logits of others are scaled or capped, which losses in chunks must know, is not known here",
        augmented=(),  # its tokens are its targets too
        packs_rows=True,
        counted="tokens",
        takes_transfer_rows=False,
        one_form="a language model",
        pipeline_tag="text-generation",
        shown_metric=ShownMetric("next token", "perplexity"),
    ),
}


def default_inputs() -> str:
    """The names that an input column has by default, for a document: "`image`, `text` or `audio`"."""
    *names, last = (f"`{name}`" for name in dict.fromkeys(info.input_columns[0] for info in TASKS.values()))
    return f"{', '.join(names)} or {last}"


def default_targets() -> str:
    """The columns that are predicted by default, for a document: "`label`; for `causal-lm` none"."""
    by_targets: dict[tuple[str, ...], list[str]] = {}
    for task, info in TASKS.items():
        by_targets.setdefault(info.targets, []).append(f"`{task}`")
    usual, *others = by_targets
    words = [", ".join(f"`{name}`" for name in usual)]
    words += [f"for {' and '.join(by_targets[each])} {', '.join(f'`{name}`' for name in each) or 'none'}" for each in others]
    return "; ".join(words)


def first_task(input_kind: InputKind) -> TaskName:
    """The first task whose networks read that kind of input: its classification, under which most model types are listed."""
    return next(task for task, info in TASKS.items() if info.input_kind == input_kind)
