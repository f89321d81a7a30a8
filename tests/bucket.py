"""A bucket for tests: moto's server, which answers as S3 does."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

NAME = "lab"


@dataclass
class Bucket:
    """A bucket, and another beside it whose name begins as its name does."""

    url: str
    client: Any

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to read it."""
        keys = {"AWS_ACCESS_KEY_ID": "ana", "AWS_SECRET_ACCESS_KEY": "hers", "AWS_DEFAULT_REGION": "us-east-1"}
        return keys | {"AWS_ENDPOINT_URL": self.url}

    def put(self, key: str, content: Path | bytes, *, bucket: str = NAME) -> str:
        """Writes a file; returns its name in a spec."""
        body = content if isinstance(content, bytes) else content.read_bytes()
        self.client.put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"


@contextmanager
def bucket_server() -> Iterator[Bucket]:
    """Serves until the block ends."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        url = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "ana", "aws_secret_access_key": "hers", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=url, **keys)
        for name in (NAME, f"{NAME}-private"):
            client.create_bucket(Bucket=name)
        yield Bucket(url, client)
    finally:
        server.stop()
