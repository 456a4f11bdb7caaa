"""An S3-compatible server on this machine that checks signatures, with a bucket and one user who may use it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from tests.support.platform import eventually, free_port

BUCKET = "pictures"
PREFIX = "some/where"
_POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
# Until then nobody is asked who they are: to make the user, its key, its rights and the bucket.
_FREE_CALLS = "4"


@dataclass(frozen=True)
class Bucket:
    """How to reach it. `client` is a library that is not ours."""

    url: str
    key_id: str
    secret: str

    def settings(self, prefix: str = PREFIX) -> dict[str, str]:
        """Our settings for a folder of the bucket."""
        return {
            "STORAGE_URL": f"s3://{BUCKET}/{prefix}",
            "S3_ENDPOINT": self.url,
            "S3_REGION": "us-east-1",
            "S3_ACCESS_KEY_ID": self.key_id,
            "S3_SECRET_ACCESS_KEY": self.secret,
        }

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        with _client("s3", self.url, self.key_id, self.secret) as client:
            yield client

    def empty(self) -> None:
        """Nothing is stored."""
        with self.client() as client:
            for key in self.keys(""):
                client.delete_object(Bucket=BUCKET, Key=key)

    def keys(self, prefix: str) -> dict[str, int]:
        """What is stored below a prefix, with sizes."""
        with self.client() as client:
            found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {item["Key"]: item["Size"] for item in found}


@contextlib.contextmanager
def _client(service: str, url: str, key_id: str, secret: str) -> Iterator[Any]:
    names = {"aws_access_key_id": key_id, "aws_secret_access_key": secret}
    client = boto3.client(service, endpoint_url=url, region_name="us-east-1", config=Config(proxies={}), **names)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def running_s3(folder: Path) -> Iterator[Bucket]:
    """The server until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    env = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": _FREE_CALLS}
    with (folder / "s3.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=env) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: _answers(url), what="the S3 server")
            with _client("iam", url, "nobody", "nothing") as iam:
                iam.create_user(UserName="dreamery")
                made = iam.create_access_key(UserName="dreamery")["AccessKey"]
                iam.put_user_policy(UserName="dreamery", PolicyName="all", PolicyDocument=json.dumps(_POLICY))
            with _client("s3", url, "nobody", "nothing") as client:
                client.create_bucket(Bucket=BUCKET)
            yield Bucket(url, made["AccessKeyId"], made["SecretAccessKey"])
        finally:
            server.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/moto-api/", trust_env=False).status_code < 500
    except httpx.TransportError:
        return False
