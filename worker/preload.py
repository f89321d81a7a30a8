"""What the fork server imports before it forks trainers, so that a trainer does not spend its first seconds on imports.

Only imports: a tensor operation that starts threads, or any call to CUDA, would break every process forked afterwards.
"""

import sklearn.datasets
import sklearn.metrics
import torch._dynamo  # the first optimizer would import it otherwise
import torchmetrics.functional.classification
import transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer
import transformers.models.auto.modeling_auto
import transformers.models.bert.modeling_bert
import transformers.models.convnext.modeling_convnext
import transformers.models.gpt2.modeling_gpt2
import transformers.models.resnet.modeling_resnet
import transformers.models.vit.modeling_vit
import transformers.models.wav2vec2.modeling_wav2vec2

import worker.job.attempt
import worker.preflight

__all__ = ["sklearn", "torch", "torchmetrics", "transformers", "worker"]
