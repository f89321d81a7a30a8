"""What the fork server imports before it forks trainers, so that a trainer does not spend its first seconds on imports.

Only imports, data that numpy reads, and a signal to ignore: a tensor operation that starts threads, or any call to CUDA, would
break every process forked afterwards. What is there at the end stays, so no garbage collection looks at it, here or in a
trainer: that would take time, and copy the memory that trainers share.
"""

import gc
import signal
import sys
from importlib import import_module

MODULES = (
    "worker.job.attempt",
    "worker.preflight.rehearsal",
    "torch._dynamo",  # the first optimizer would import it otherwise
    "sklearn.datasets",
    "sklearn.metrics",
    "torchmetrics.functional.classification",
    *(
        f"transformers.models.{name}"
        for name in (
            "audio_spectrogram_transformer.modeling_audio_spectrogram_transformer",
            "auto.modeling_auto",
            "bert.modeling_bert",
            "convnext.modeling_convnext",
            "gpt2.modeling_gpt2",
            "resnet.modeling_resnet",
            "vit.modeling_vit",
            "wav2vec2.modeling_wav2vec2",
        )
    ),
)

# A stop of the whole service may signal every process of it: this one ends with its worker, after the trainers have.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
gc.disable()
# transformers imports torchao where it is installed, and that asks CUDA. Here it finds none; a trainer that needs it imports it.
sys.modules["torchao"] = None  # type: ignore[assignment]
import_module("transformers.quantizers.auto")
del sys.modules["torchao"]
for module in MODULES:
    import_module(module)
import_module("worker.data.builtin.digits").read_digits()
gc.freeze()
gc.enable()
