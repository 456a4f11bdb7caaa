"""A client of a sandbox process: signed calls, uploads in four stages, and a context manager that runs the process."""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import httpx

from worker.sandbox.options import CONTROL_HEADER, CONTROL_TOKEN_VARIABLE

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests/fixtures/sandbox"
GENERATE = "/mweb/v1/aigc_draft/generate"
POLL = "/mweb/v1/get_history_by_ids"
TOKEN = "/mweb/v1/get_upload_token"


@contextlib.contextmanager
def running_sandbox(*options, token="", stop=signal.SIGTERM):
    """Run a sandbox process; yields an HTTP client for it. `stop` = the signal that ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = token or secrets.token_urlsafe()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.sandbox", "--port", str(port), *options],
        cwd=ROOT,
        env={**os.environ, CONTROL_TOKEN_VARIABLE: token},
    )
    headers = {CONTROL_HEADER: token}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as http:
            for _ in range(200):
                try:
                    assert http.get("/_health").status_code == 200
                    break
                except httpx.ConnectError:
                    assert process.poll() is None
                    time.sleep(0.05)
            yield http
    finally:
        process.send_signal(stop)
        process.wait(10)


def read_ledger(platform, *, summary=False):
    """Return the ledger of a platform's sandbox; `summary` = without its lists."""
    query = {"summary": "1"} if summary else {}
    url, headers = f"{platform.sandbox_url}/_ledger", platform.sandbox_control_headers
    return httpx.get(url, params=query, headers=headers, trust_env=False, timeout=60).json()


def signed_headers(token, method, query, body=b"", *, service="imagex", region="cn-north-1", extra=None):
    """Return the headers of a call to an upload gateway, signed like public clients sign it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"x-amz-date": stamp, "x-amz-security-token": token["session_token"], **(extra or {})}
    digest = hashlib.sha256(body).hexdigest()
    if method == "POST":
        headers["x-amz-content-sha256"] = digest
    names = sorted(headers)
    lines = "".join(f"{name}:{headers[name]}\n" for name in names)
    canonical = "\n".join((method, "/", "&".join(sorted(query.split("&"))), lines, ";".join(names), digest))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + token["secret_access_key"].encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    sign = hmac.digest(key, text.encode(), "sha256").hex()
    claim = f"Credential={token['access_key_id']}/{scope}, SignedHeaders={';'.join(names)}, Signature={sign}"
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 {claim}"}


class SandboxClient:
    """One account's calls. Each stage of an upload is a separate method, so that a test can break one of them."""

    def __init__(self, http, session, aid="513641"):
        self.http, self.session, self.aid = http, session, aid
        self.name = hashlib.sha256(session.encode()).hexdigest()[:12]

    def call(self, path, body, *, query=None, **headers):
        """Send a signed call and return the response."""
        second = str(int(time.time()))
        sent = {
            "Appid": self.aid,
            "Appvr": "8.4.0",
            "Pf": "7",
            "Tdid": "",
            "Device-Time": second,
            "Sign-Ver": "1",
            "Sign": hashlib.md5(f"9e2c|{path[-7:]}|7|8.4.0|{second}||11ac".encode()).hexdigest(),
            "Cookie": f"sessionid={self.session}; cc-target-idc=useast5",
            **headers,
        }
        return self.http.post(path, params={"aid": self.aid, **(query or {})}, json=body, headers=sent)

    def post(self, path, body, *, query=None, **headers):
        """Send a signed call and return the JSON of the response."""
        return self.call(path, body, query=query, **headers).json()

    def token(self, scene=2, **headers):
        return self.post(TOKEN, {"scene": scene}, **headers)["data"]

    def apply(self, token, size, *, video=False):
        if video:
            query = f"Action=ApplyUploadInner&FileSize={size}&FileType=video&IsInner=1&SpaceName=dreamina"
            query += "&Version=2020-11-19"
        else:
            query = f"Action=ApplyImageUpload&FileSize={size}&ServiceId={token['space_name']}&Version=2018-08-01"
        service = "vod" if video else "imagex"
        return self.http.get(f"/?{query}", headers=signed_headers(token, "GET", query, service=service))

    def send(self, address, raw, **headers):
        info = address["StoreInfos"][0]
        sent = {
            "Authorization": info["Auth"],
            "Content-CRC32": f"{zlib.crc32(raw):08x}",
            "Content-Type": "application/octet-stream",
            **headers,
        }
        return self.http.post(f"/upload/v1/{info['StoreUri']}", content=raw, headers=sent)

    def commit(self, token, key, *, video=False):
        query = f"Action=CommitImageUpload&ServiceId={token['space_name']}&Version=2018-08-01"
        if video:
            query = "Action=CommitUploadInner&SpaceName=dreamina&Version=2020-11-19"
        body = json.dumps({"SessionKey": key, "Functions": []}).encode()
        headers = signed_headers(token, "POST", query, body, service="vod" if video else "imagex")
        return self.http.post(f"/?{query}", content=body, headers={**headers, "content-type": "application/json"})

    def upload(self, raw):
        """Run all four stages and return the URI of the image."""
        token = self.token()
        address = self.apply(token, len(raw)).json()["Result"]["UploadAddress"]
        assert self.send(address, raw).json()["code"] == 2000
        done = self.commit(token, address["SessionKey"]).json()["Result"]["Results"][0]
        assert done["UriStatus"] == 2000
        return done["Uri"]

    def upload_video(self, raw):
        token = self.token(scene=1)
        answer = self.apply(token, len(raw), video=True).json()["Result"]
        node = answer["InnerUploadAddress"]["UploadNodes"][0]
        assert self.send(node, raw).json()["code"] == 2000
        return self.commit(token, node["SessionKey"], video=True).json()["Result"]["Results"][0]

    def finish(self, submit_id):
        """Poll until the job has a final status and return its record."""
        for _ in range(200):
            record = self.post(POLL, {"submit_ids": [submit_id]})["data"].get(submit_id)
            if record and record["status"] not in {20, 42, 45}:
                return record
            time.sleep(0.02)
        raise AssertionError("the job did not end")


def get_violations(http):
    return http.get("/_ledger?summary=1").json()["violations"]
