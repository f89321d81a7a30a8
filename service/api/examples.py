"""The examples of the OpenAPI document, by the name of their schema: one team, one job, and its resources.

Each is a complete response of the service; a test validates them against their schemas.
"""

from typing import Any

_JOB_ID, _NEXT_JOB_ID = "job_01k5zq3v7m8n9p0q1r2s3t4v5w", "job_01k5zq4b2c3d4e5f6g7h8j9k0m"
_WORKER_ID = "worker_01k5zq3v7m8n9p0q1r2s3t4v5x"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_NEXT_START = "2026-11-02T09:31:30Z"
_MORNING, _STARTED = "2026-11-02T09:30:00Z", "2026-11-02T09:30:01Z"

_TEN = [str(digit) for digit in range(10)]
SPEC: dict[str, Any] = {
    "name": "digits, a CNN to a fiftieth of its size",
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"source": "train", "architecture": {"name": "small-cnn", "width": 64}, "training": {"epochs": 20}},
    "student": {"architecture": {"name": "small-cnn", "width": 8}},
    "method": {"name": "soft-targets", "temperature": 4.0},
    "training": {"epochs": 30},
    "require": {"relative_to_teacher": 0.97, "bytes": 20_000},
    "labels": {"project": "demo"},
}
JOB: dict[str, Any] = {
    "id": _JOB_ID,
    "object": "job",
    "name": SPEC["name"],
    "owner": "ada",
    "labels": SPEC["labels"],
    "status": "running",
    "terminal": False,
    "status_reason": f"attempt 1 on cuda:0 of worker {_WORKER_ID}",
    "stop_requested": None,
    "priority": "normal",
    "spec": SPEC,
    "progress": {
        "phase": "student",
        "step": 120,
        "total_steps": 600,
        "epoch": 6,
        "fraction": 0.2,
        "samples_per_second": 9200.0,
        "eta_seconds": 3.3,
        "message": "training the student: 30 epochs on 1,259 images",
    },
    "queue": None,
    "attempt": 1,
    "max_attempts": 3,
    "crashes": 0,
    "worker": _WORKER_ID,
    "devices": ["cuda:0"],
    "created_at": _MORNING,
    "queued_at": _MORNING,
    "started_at": _STARTED,
    "finished_at": None,
    "gpu_seconds": 0.0,
    "estimate": {
        "parameters": {"teacher": 208_586, "student": 3682},
        "flops": {"teacher": 5_500_000, "student": 104_000},
        "memory_gib": 0.66,
        "memory_by_training_gib": {"teacher": 0.66, "student": 0.6},
        "memory_parts_gib": {
            "teacher": {"weights": 0.01, "optimizer": 0.02, "gradients": 0.01, "activations": 0.62},
            "student": {"weights": 0.01, "teachers": 0.01, "optimizer": 0.01, "activations": 0.57},
        },
        "steps": {"teacher": 400, "student": 600},
        "num_samples": 1259,
        "notes": [],
        "warnings": [],
        "seconds": 0.8,
    },
    "warnings": [
        {
            "code": "field_without_effect",
            "message": "/dataset/clip_seconds has no effect: it is of sound, and image-classification reads none",
        }
    ],
    "result": None,
    "error": None,
    "version": 17,
}


_EVIDENCE: dict[str, Any] = {
    "intervals": {"accuracy": [0.933, 0.975], "loss": [0.05, 0.098]},
    "classes": [
        {
            "name": "8",
            "rows": 35,
            "predicted": 33,
            "precision": 0.939,
            "recall": 0.886,
            "recall_interval": [0.74, 0.955],
            "f1": 0.912,
        }
    ],
    "confusion": {"classes": ["1", "8"], "counts": [[34, 2], [4, 31]]},
    "mistakes": [{"label": "8", "predicted": "1", "rows": 4}],
    "calibration": {"error": 0.011, "bins": [{"rows": 359, "confidence": 0.966, "accuracy": 0.955}]},
}


def _network(
    *,
    width: int,
    parameters: int,
    num_bytes: int,
    accuracy: float,
    interval: tuple[float, float],
    loss: float,
    latency: tuple[float, float],
) -> dict[str, Any]:
    figures = {"accuracy": accuracy, "top_5_accuracy": 1.0, "macro_f1": accuracy, "calibration_error": 0.011, "loss": loss}
    return {
        "source": "train" if width == 64 else "random",
        "architecture": {"name": "small-cnn", "width": width},
        "parameters": parameters,
        "bytes": num_bytes,
        "test_score": accuracy,
        "test_rows": 359,
        "test_interval": list(interval),
        "test_accuracy": accuracy,
        "test_loss": loss,
        "test_accuracy_last": accuracy,
        "validation_score": 0.983,
        "validation_accuracy": 0.983,
        "validation_loss": 0.062,
        "validation_accuracy_last": 0.983,
        "metrics": {"label": figures},
        "evidence": {"label": _EVIDENCE},
        "latency_ms": {"batch_1": latency[0], "batch_64": latency[1]},
        "speed": {
            "batches": [
                {
                    "batch": size,
                    "rounds": 40 if size == 1 else 12,
                    "p50_ms": median,
                    "p95_ms": round(1.2 * median, 3),
                    "samples_per_second": round(1000 * size / median, 1),
                }
                for size, median in zip((1, 64), latency, strict=True)
            ],
            "best_batch": 64,
            "flops": 11 * parameters,
            "weight_bytes": num_bytes,
            "peak_bytes": num_bytes + 20_000,
            "peak_bytes_best_batch": num_bytes + 1_280_000,
        },
        "training": {
            "steps": 600,
            "epochs": 30,
            "stopped_early": False,
            "best_step": 540,
            "train_loss": 0.041,
            "seconds": 4.8,
            "samples_per_second": 7860.0,
            "gpu_seconds": 4.8,
            "curves": {
                "train_loss": [[20, 1.8], [300, 0.21], [600, 0.041]],
                "validation_loss": [[20, 1.6], [300, 0.19], [600, 0.062]],
                "validation_accuracy": [[20, 0.52], [300, 0.95], [600, 0.983]],
            },
        },
        "dtype": None,
        "start": None,
        "adapter": None,
    }


REPORT: dict[str, Any] = {
    "format": 2,
    "job_id": _JOB_ID,
    "name": SPEC["name"],
    "task": SPEC["task"],
    "created_at": _MORNING,
    "method": {"name": "soft-targets", "weight": 1.0, "temperature": 4.0, "divergence": "kl", "label_weight": 0.1},
    "data": {
        "source": "builtin:digits",
        "transfer": None,
        "rows": {"train": 1259, "validation": 179, "test": 359},
        "labelled_rows": {"train": {"label": 1259}, "validation": {"label": 179}, "test": {"label": 359}},
        "targets": {"label": _TEN},
        "label_kinds": {},
        "classes": _TEN,
        "read": "into memory at once: builtin datasets are in memory",
        "input_shape": [1, 8, 8],
        "chats": False,
        "pairs": False,
        "pixel_range": [0.0, 16.0],
        "image_fit": None,
    },
    "teacher": _network(
        width=64, parameters=208586, num_bytes=837264, accuracy=0.98, interval=(0.9596, 0.9902), loss=0.034, latency=(0.41, 3.2)
    ),
    "teachers": [],
    "chain": {},
    "student": _network(
        width=8, parameters=3682, num_bytes=16256, accuracy=0.955, interval=(0.9283, 0.9721), loss=0.073, latency=(0.11, 0.51)
    ),
    "control": None,
    "score_with_teacher": None,
    "ensemble_score": None,
    "agreement": 0.961,
    "chosen_by": "score",
    "validation_agreement": None,
    "bias": None,
    "agreement_by_target": {"label": {"agreement": 0.961, "kl_divergence": 0.052}},
    "gain": None,
    "gain_interval": None,
    "gain_seeds": 1,
    "over_teacher": -0.025,
    "over_teacher_interval": [-0.0436, -0.0064],
    "compression": {"parameters": 56.65, "bytes": 51.5, "latency_batch_1": 3.73, "latency_batch_64": 6.27},
    "exports": [],
    "seeds": None,
    "require": [
        {
            "figure": "relative_to_teacher",
            "asked": ">=0.97",
            "measured": 0.97449,
            "held": True,
            "message": "relative_to_teacher is 0.97449, and >=0.97 is required",
        },
        {
            "figure": "bytes",
            "asked": "<=20000",
            "measured": 16256.0,
            "held": True,
            "message": "bytes is 16256, and <=20000 is required",
        },
    ],
    "accepted": True,
    "warnings": [],
    "environment": {
        "device": "cpu",
        "threads": 2,
        "python": "3.12.4",
        "torch": "2.13.0",
        "platform": "Linux x86_64",
        "transformers": "5.3.0",
        "cuda": None,
        "gpus": 0,
        "memory_gib": 31.2,
    },
    "disagreements": [
        {
            "place": "test split, row 17",
            "target": "label",
            "label": "8",
            "teacher": "8 (91%)",
            "student": "1 (55%)",
            "distance": 1.74,
            "text": None,
            "picture": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAFUlEQVR4nGNkYGBg/M/AwMDEAAUA"
            "ABIXAQgx2vwAAAAASUVORK5CYII=",
        }
    ],
    "generations": [],
    "load": "from pathlib import Path\nfrom stillhouse import load_network\nstudent = load_network(Path('student'))\n"
    "network, preprocessing = student.network, student.preprocessing",
    "verdict": "1/57 of the teacher's parameters, 3.7 times faster at batch 1, 2.50 points below the teacher (one run, 95% "
    "interval -4.36 to -0.64, 359 samples)",
}


def _column(kind: str, dtype: str, **told: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "shape": None,
        "num_classes": None,
        "classes": None,
        "class_counts": None,
        "num_missing": 0,
        "missing_counts": {},
    }
    return {"kind": kind, "dtype": dtype, **nothing, **told}


def _label(classes: list[str], counts: dict[str, list[int]]) -> dict[str, Any]:
    return _column("label", "int64", num_classes=len(classes), classes=classes, class_counts=counts)


DATASET: dict[str, Any] = {
    "id": "ds_01k5zq3v7m8n9p0q1r2s3t4v5w",
    "object": "dataset",
    "name": "street signs",
    "owner": "ada",
    "task": "image-classification",
    "splits": {"train": 1200, "test": 300},
    "columns": {
        "image": _column("image", "uint8", shape=[32, 32, 3]),
        "label": _label(["stop", "yield"], {"train": [600, 600], "test": [150, 150]}),
        "distance": _column("number", "float64", num_missing=40, missing_counts={"train": 40}),
    },
    "classes": ["stop", "yield"],
    "class_counts": {"train": [600, 600], "test": [150, 150]},
    "warnings": [
        {
            "code": "labels_missing",
            "message": "40 of 1,500 rows have no value in column 'distance' (the first: column 'distance' of split 'train', row "
            "7); they are read as without a label",
        }
    ],
    "filename": "signs.npz",
    "sha256": _SHA256,
    "bytes": 4608000,
    "stored_bytes": 3912044,
    "original_kept": False,
    "created_at": _MORNING,
}
_SAMPLE = {
    "split": "train",
    "row": 0,
    "targets": {"label": "stop", "distance": 12.5},
    "label": "stop",
    "text": None,
    "shape": [32, 32, 3],
    "seconds": None,
    "rate": None,
    "minimum": 0.0,
    "mean": 117.4,
    "maximum": 255.0,
}
_FACTS = {
    "lengths": {
        "image": {
            "unit": "pixels",
            "edges": [0, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096],
            "counts": {"train": [0, 0, 1200, *[0] * 11], "test": [0, 0, 300, *[0] * 11]},
            "least": 32.0,
            "mean": 32.0,
            "most": 32.0,
        }
    },
    "decoded_bytes": {"train": 3686400, "test": 921600},
    "repeated_rows": {"train": 3, "test": 0},
    "shared_rows": [
        {
            "split": "test",
            "also_in": "train",
            "rows": 1,
            "first": [{"here": {"row": 17, "line": None}, "there": {"row": 203, "line": None}}],
        }
    ],
}
_WEIGHTS = {"size": 44700000, "sha256": _SHA256, "media_type": "application/octet-stream"}
MODEL: dict[str, Any] = {
    "id": "model_01k5zq3v7m8n9p0q1r2s3t4v5w",
    "object": "model",
    "handle": "signs",
    "name": "sign teacher",
    "owner": "ada",
    "task": "image-classification",
    "job_id": None,
    "part": None,
    "parameters": 11_170_000,
    "bytes": 44_700_000,
    "dtype": "fp32",
    "base": "microsoft/resnet-18",
    "licence": "apache-2.0",
    "used_by": {"count": 1, "jobs": [JOB["id"]]},
    "classes": ["stop", "yield"],
    "input_shape": [3, 32, 32],
    "files": [{"name": "model.safetensors", **_WEIGHTS}],
    "created_at": _MORNING,
}
_FAULT = {"pointer": "/method/temperature", "message": "Input should be greater than 0 (got 0.0)"}
_FAULT_TEXT = f"{_FAULT['pointer']}: {_FAULT['message']}"
_PROBLEM = {
    "type": "about:blank",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": _FAULT_TEXT,
    "code": "invalid_spec",
    "errors": [_FAULT],
    "error": {
        "message": _FAULT_TEXT,
        "type": "invalid_request_error",
        "param": _FAULT["pointer"],
        "code": "invalid_spec",
    },
}
_EVENT = {
    "seq": 7,
    "type": "checkpoint",
    "message": "checkpoint at step 120 of the student phase",
    "data": {"phase": "student", "step": 120},
    "created_at": "2026-11-02T09:30:04Z",
}
_WAITING = {
    "id": _NEXT_JOB_ID,
    "name": "signs, ResNet-56 to ResNet-20",
    "owner": "ben",
    "pool": "default",
    "priority": "normal",
    "position": 1,
    "waiting_for": "a GPU: host gpu-1 has 0 free until about 02 Nov 09:31 UTC",
    "blocker": {
        "cause": "devices",
        "message": "a GPU: host gpu-1 has 0 free until about 02 Nov 09:31 UTC",
        "job_ids": [_JOB_ID],
        "worker": _WORKER_ID,
        "until": _NEXT_START,
    },
    "needs": "a GPU",
    "expected_start": {"p50": _NEXT_START, "p90": "2026-11-02T09:32:10Z"},
    "queued_at": "2026-11-02T09:30:02Z",
}
_RUNNING = {
    "id": _JOB_ID,
    "name": SPEC["name"],
    "owner": "ada",
    "pool": "default",
    "worker": _WORKER_ID,
    "devices": ["cuda:0"],
    "started_at": _STARTED,
    "expected_end_at": _NEXT_START,
    "phase": "student",
    "fraction": 0.2,
    "eta_seconds": 3.3,
}
_WORKER = {
    "id": _WORKER_ID,
    "object": "worker",
    "host": "gpu-1",
    "pid": 4711,
    "pool": "default",
    "slots": 1,
    "devices": [{"name": "cuda:0", "kind": "cuda", "memory_gib": 79.2, "job_ids": [_JOB_ID]}],
    "job_ids": [_JOB_ID],
    "alive": True,
    "draining": False,
    "started_at": "2026-11-02T08:00:00Z",
    "heartbeat_at": "2026-11-02T09:30:05Z",
}
_USER = {
    "id": "user_01k5zq3v7m8n9p0q1r2s3t4v5w",
    "object": "user",
    "name": "ada",
    "share_weight": 2.0,
    "max_running_jobs": 8,
    "max_queued_jobs": None,
    "created_at": _MORNING,
}
_USAGE = {
    "user": "ada",
    "gpu_seconds": 86_400.0,
    "cpu_slot_seconds": 1200.0,
    "jobs": 31,
    "share": 0.62,
    "weight": 2.0,
    "fair_share": 0.667,
    "decayed": 51_200.0,
}
_CONFIG_FILE: dict[str, Any] = {"name": "config.json", "size": 714, "sha256": "4f" * 32}
_WEIGHTS_FILE: dict[str, Any] = {"name": "model.safetensors", "size": 90_868_376, "sha256": "a1" * 32}
_KEY = {
    "id": "key_01k5zq3v7m8n9p0q1r2s3t4v5w",
    "object": "key",
    "user": "ada",
    "role": "member",
    "name": "laptop",
    "created_at": _MORNING,
    "revoked_at": None,
}
_DIGIT_COUNTS = {"test": [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]}
_DIGITS = {
    "task": "image-classification",
    "splits": {"train": 1259, "validation": 179, "test": 359},
    "columns": {
        "image": _column("image", "uint8", shape=[8, 8, 1]),
        "label": _label([str(digit) for digit in range(10)], _DIGIT_COUNTS),
        "parity": _label(["even", "odd"], {"test": [178, 181]}),
    },
    "classes": [str(digit) for digit in range(10)],
    "class_counts": _DIGIT_COUNTS,
}


def _list(*data: Any) -> dict[str, Any]:
    return {"object": "list", "data": list(data)}


def _page(*data: Any) -> dict[str, Any]:
    return _list(*data) | {"has_more": False}


EXAMPLES: dict[str, Any] = {
    "Alive": {"status": "ok"},
    "ArchitectureList": _list(
        {
            "name": "small-cnn",
            "summary": "Two convolutions with batch norm and pooling, then two linear layers, for small images.",
            "paper": None,
            "parameters": {"type": "object", "properties": {"width": {"type": "integer", "default": 32, "minimum": 1}}},
        }
    ),
    "ArtifactList": _list({"name": "student/model.safetensors", **_WEIGHTS}),
    "AugmentationList": _list(
        {
            "name": "flip",
            "summary": "Left and right change places.",
            "modalities": ["image"],
            "paper": None,
            "parameters": {"type": "object", "properties": {"probability": {"type": "number", "default": 0.5, "maximum": 1}}},
        }
    ),
    "BuiltinList": _list(
        {
            "name": "digits",
            "source": "builtin:digits",
            "summary": "1,797 handwritten digits of 8x8 pixels",
            "origin": "Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI Repository, 1998",
            "licence": "CC BY 4.0",
            "info": _DIGITS,
        }
    ),
    "CancelRequest": {"keep": "best"},
    "DatasetDetail": DATASET | {"samples": [_SAMPLE], "facts": _FACTS},
    "DatasetPage": _page(DATASET),
    "DatasetView": DATASET,
    "DrainRequest": {"jobs": "finish"},
    "EventPage": _page(_EVENT),
    "Explanation": {
        "object": "explanation",
        "job_id": _NEXT_JOB_ID,
        "status": "queued",
        "reason": "queued",
        "pool": "default",
        "position": 1,
        "ahead": 0,
        "waiting_for": _WAITING["waiting_for"],
        "blocker": _WAITING["blocker"],
        "needs": "a GPU",
        "fair_share": {"used": 1800.0, "weight": 1.0, "level": 1800.0, "running": None, "max_running_jobs": None},
        "expected_start": _WAITING["expected_start"],
        "blocked_by": [],
        "live_workers": 1,
        "suitable_workers": 1,
    },
    "JobEdit": {"priority": "low", "labels": {"project": "demo"}},
    "JobPage": _page(JOB),
    "JobSpec": SPEC,
    "JobView": JOB,
    "KeyList": _list(_KEY),
    "HubToken": {"token": "hf_example"},
    "KeyRequest": {"user": "ada", "role": "member", "name": "laptop"},
    "Me": {
        "id": _USER["id"],
        "object": "me",
        "name": "ada",
        "role": "member",
        "key_id": _KEY["id"],
        "hub_token_set_at": "2026-11-24T10:00:00Z",
    },
    "MethodList": _list(
        {
            "name": "soft-targets",
            "summary": "The student learns the teacher's softened outputs, with a share of the labels.",
            "formula": "L = (1 − label_weight) · τ² · KL(softmax(z_t/τ) ‖ softmax(z_s/τ)) + label_weight · CE(y, z_s)",
            "paper": "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531",
            "tasks": ["image-classification", "text-classification", "audio-classification"],
            "parameters": {"type": "object", "properties": {"temperature": {"type": "number", "default": 4.0}}},
        }
    ),
    "MetricList": _list({"name": "student/train_loss", "points": [[20, 1.91], [40, 0.83]]}),
    "ModelEdit": {"name": "sign teacher", "handle": "signs"},
    "ModelPage": _page(MODEL),
    "ModelUploadRequest": {"name": "sign teacher", "task": "image-classification", "files": [_CONFIG_FILE, _WEIGHTS_FILE]},
    "ModelUploadView": {
        "id": "upload_01k5zq3v7m8n9p0q1r2s3t4v5w",
        "object": "model_upload",
        "name": "sign teacher",
        "task": "image-classification",
        "files": [_CONFIG_FILE | {"offset": 714}, _WEIGHTS_FILE | {"offset": 33_554_432}],
        "missing": [_WEIGHTS_FILE["sha256"]],
        "created_at": "2026-11-24T10:00:00Z",
    },
    "ModelView": MODEL,
    "NewKey": _KEY | {"key": "sh_…"},
    "NewUser": {"name": "ada"},
    "Problem": _PROBLEM,
    "PreviewView": {
        "id": "preview_01k5zq3v7m8n9p0q1r2s3t4v5w",
        "object": "preview",
        "status": "succeeded",
        "samples": {
            "student": [
                {
                    "place": "split 'train', row 0",
                    "labels": {"label": "3"},
                    "weight": None,
                    "mixed_with": None,
                    "share": None,
                    "read": {"kind": "image", "shape": [1, 8, 8], "lowest": -1.0, "highest": 2.2, "thumbnail": None},
                }
            ]
        },
        "warnings": [],
        "error": None,
        "created_at": _MORNING,
        "finished_at": _STARTED,
    },
    "QueueView": {"object": "queue", "waiting": [_WAITING], "num_waiting": 1, "running": [_RUNNING]},
    "Readiness": {"status": "ready", "checks": {"database": {"ok": True, "detail": "is at migration 0007"}}},
    "Report": REPORT,
    "UsageList": _list(_USAGE) | {"since": "2026-11-01T00:00:00Z"},
    "UserEdit": {"share_weight": 2.0, "max_running_jobs": 8},
    "UserList": _list(_USER),
    "UserView": _USER,
    "WorkerList": _list(_WORKER),
    "WorkerView": _WORKER,
}
