"""What ``s3://BUCKET/PATH`` may name: what lies under the prefixes that an operator allows.

The API looks when a spec is submitted, and the worker again with its own prefixes before it reads: it reads with its own
credentials, whoever submits.
"""

from collections.abc import Sequence

from service.errors import InvalidFile
from service.spec.source import split_bucket


def require_allowed(source: str, prefixes: Sequence[str]) -> None:
    """Raises InvalidFile unless the file or folder in a bucket is under one of the prefixes."""
    named = split_bucket(source)
    if not any(named.is_under(split_bucket(prefix)) for prefix in prefixes):
        allowed = ", ".join(prefixes) or "none: upload it with POST /v1/datasets instead"
        raise InvalidFile(f"{source} is outside what this service may read of buckets, its STILLHOUSE_DATA_URLS ({allowed})")
