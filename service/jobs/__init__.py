"""Jobs as rows of the database: stored, changed by people, written by the workers that run them.

``submission`` stores a job, ``requests`` holds what people ask of one, ``attempts`` what its worker writes, ``dependencies`` the
jobs that it needs; each goes through ``transitions``, where alone a status changes. Callers use the names listed here; one that
has locked a job's row itself (the claim, the sweep, the check) calls ``transitions`` on it.
"""

from service.jobs.attempts import (
    MAX_LOG_BYTES,
    MAX_LOSSES,
    Renewal,
    append_log,
    crash,
    expire_leases,
    extend_leases,
    fail,
    forget_checkpoints,
    log_text,
    lose,
    named_files,
    note_revisions,
    note_tidied,
    noted_revisions,
    num_writes,
    record_checkpoint,
    record_metrics,
    record_progress,
    record_warning,
    renew_lease,
    settle_stopped,
    spent_checkpoints,
    succeed,
    untidied,
    write_once,
)
from service.jobs.dependencies import enter_queue, similar_handles
from service.jobs.requests import edit, remove, request_cancel, request_pause, resume
from service.jobs.submission import Named, find_datasets, find_named, find_repeat, refuse_over_limit, resource_class_of, submit
from service.jobs.transitions import Fence, get

__all__ = [
    "MAX_LOG_BYTES",
    "MAX_LOSSES",
    "Fence",
    "Named",
    "Renewal",
    "append_log",
    "crash",
    "edit",
    "enter_queue",
    "expire_leases",
    "extend_leases",
    "fail",
    "find_datasets",
    "find_named",
    "find_repeat",
    "forget_checkpoints",
    "get",
    "log_text",
    "lose",
    "named_files",
    "note_revisions",
    "note_tidied",
    "noted_revisions",
    "num_writes",
    "record_checkpoint",
    "record_metrics",
    "record_progress",
    "record_warning",
    "refuse_over_limit",
    "remove",
    "renew_lease",
    "request_cancel",
    "request_pause",
    "resource_class_of",
    "resume",
    "settle_stopped",
    "similar_handles",
    "spent_checkpoints",
    "submit",
    "succeed",
    "untidied",
    "write_once",
]
