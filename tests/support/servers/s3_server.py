"""A local S3-compatible server that checks signatures, with a bucket and one user with access to it."""

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
# Calls without authentication: they create the user, its key, its policy and the bucket.
_UNAUTHENTICATED_CALLS = "4"


@dataclass(frozen=True)
class Bucket:
    """Access to the bucket. `client` uses boto3 rather than our own S3 code."""

    url: str
    key_id: str
    secret: str

    def settings(self, prefix: str = PREFIX) -> dict[str, str]:
        """Return Dreamery's settings for a folder of the bucket."""
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
        """Delete all objects."""
        with self.client() as client:
            for key in self.keys(""):
                client.delete_object(Bucket=BUCKET, Key=key)

    def keys(self, prefix: str) -> dict[str, int]:
        """Return the keys below a prefix with their sizes in bytes."""
        with self.client() as client:
            objects = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {item["Key"]: item["Size"] for item in objects}


@contextlib.contextmanager
def _client(service: str, url: str, key_id: str, secret: str) -> Iterator[Any]:
    names = {"aws_access_key_id": key_id, "aws_secret_access_key": secret}
    client = boto3.client(service, endpoint_url=url, region_name="us-east-1", config=Config(proxies={}), **names)
    try:
        yield client
    finally:
        client.close()


def s3_command(host: str, port: int) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the command of the server and its environment."""
    env = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": _UNAUTHENTICATED_CALLS}
    return (sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)), env


def create_bucket(url: str) -> Bucket:
    """Wait for a server that has just started, and create its user, the user's key and the bucket."""
    eventually(lambda: _responds(url), what="the S3 server")
    with _client("iam", url, "anonymous", "none") as iam:
        iam.create_user(UserName="dreamery")
        key = iam.create_access_key(UserName="dreamery")["AccessKey"]
        iam.put_user_policy(UserName="dreamery", PolicyName="all", PolicyDocument=json.dumps(_POLICY))
    with _client("s3", url, "anonymous", "none") as client:
        client.create_bucket(Bucket=BUCKET)
    return Bucket(url, key["AccessKeyId"], key["SecretAccessKey"])


@contextlib.contextmanager
def running_s3(folder: Path) -> Iterator[Bucket]:
    """Run the server until the block ends."""
    port = free_port()
    command, env = s3_command("127.0.0.1", port)
    with (folder / "s3.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=env) as server:
        try:
            yield create_bucket(f"http://127.0.0.1:{port}")
        finally:
            server.kill()


def _responds(url: str) -> bool:
    try:
        return httpx.get(f"{url}/moto-api/", trust_env=False).status_code < 500
    except httpx.TransportError:
        return False
