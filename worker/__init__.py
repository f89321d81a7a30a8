"""Runs jobs: the supervisor, which knows the database, and the trainer, which knows a spec, a folder and devices alone."""

import logging

# transformers imports torchao where it is installed, which then logs each kernel that this machine cannot load.
for _library in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_library).setLevel(logging.ERROR)
