"""Converts a network of llama.cpp, one ``.gguf`` file, to the plain folder that everything else reads.

Its weights are widened to float32, as they are computed with; the tokenizer and the chat template come out of the same file. As
a program it is the process that :mod:`worker.sources.conversion` starts.
"""

import json
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from service.errors import InvalidFile
from service.gguf_header import GgufHeader, read_gguf_header
from service.spec.tasks import TASKS
from worker.models.build_transformers import LIBRARY_ERRORS
from worker.models.errors import UnreadableNetwork
from worker.models.folder import refuse_mismatched, refuse_missing
from worker.models.without_progress import no_load_report, no_progress_bars
from worker.sources.folder_files import CARD_FILE
from worker.sources.own_process import answer

_ARCHITECTURES = [name for info in TASKS.values() for name in info.gguf_architectures]

_SPLITS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}
"""How texts are split before a byte-level tokenizer merges, beside what the library knows of it, by llama.cpp's name of it."""


def convert(gguf: Path, folder: Path) -> None:
    """Writes the network of a ``.gguf`` file and its tokenizer into ``folder`` as ``from_pretrained`` reads them.

    Raises:
        UnreadableNetwork: the library cannot read the file, or not as llama.cpp does.
    """
    try:
        header = read_gguf_header(gguf, architectures=_ARCHITECTURES)
        with no_progress_bars(), no_load_report(), redirect_stderr(StringIO()):  # where it shows one more bar
            tokenizer = _read_tokenizer(gguf, header)
            model, info = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            refuse_mismatched(info["mismatched_keys"])
            refuse_missing(info["missing_keys"], unexpected=info["unexpected_keys"])
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        if isinstance(licence := header.fields.get("general.license"), str):
            (folder / CARD_FILE).write_text(f"---\nlicense: {json.dumps(licence)}\n---\n", encoding="utf-8")
    except InvalidFile as error:
        raise UnreadableNetwork(error.detail) from error
    except LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()[:500]}"
        raise UnreadableNetwork(f"{gguf.name} is no network that can be read here: {reason}") from error


def _read_tokenizer(gguf: Path, header: GgufHeader) -> Any:
    """The tokenizer of the file. Raises UnreadableNetwork if it is not known how it splits texts before it merges."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS  # a dozen of its tokenizers

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    kind, split = header.fields.get("tokenizer.ggml.model"), header.fields.get("tokenizer.ggml.pre")
    if kind == "gpt2" and split in _SPLITS:
        tokenizer.backend_tokenizer.pre_tokenizer = _SPLITS[split]
    elif kind == "gpt2" and split not in GGUF_PRE_TOKENIZER_SPLITS:
        raise UnreadableNetwork(
            f"{gguf.name}: how its tokenizer splits texts (tokenizer.ggml.pre: {split!r:.80}) is not known here: take the folder "
            "that it was made of, with its tokenizer.json"
        )
    return tokenizer


def _convert(request: dict[str, str]) -> list[Any]:
    try:
        convert(Path(request["gguf"]), Path(request["folder"]))
    except UnreadableNetwork as error:
        return ["refused", str(error)]
    except OSError as error:
        return ["machine", error.errno or 0, str(error.strerror or error)]
    return ["done"]


if __name__ == "__main__":
    answer(_convert)
