"""A sandbox with a state file: a stop and `kill -9` lose no order, and the file holds no secret and stays small."""

import signal
import sqlite3
import stat
import time
import uuid
from contextlib import closing

import httpx
import pytest

from tests.integration.worker.sandbox.test_ark import TASKS, VIDEO
from tests.integration.worker.sandbox.test_sandbox import Client, large, order
from tests.integration.worker.sandbox.test_uploads import check, make_image
from tests.support.sandbox_client import running_sandbox
from worker.sandbox.accounts import create_account
from worker.sandbox.jobs import Job
from worker.sandbox.kept.state_file import KEPT, StateFile
from worker.sandbox.models.image_models import IMAGE_MODELS
from worker.sandbox.requests.order import Order
from worker.sandbox.scripts import Script

KEY = "ark-secret-key-of-a-customer.rest"
TOKEN = "the control token of both"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "sandbox" / "state.sqlite"


def sandbox_on(file, stop=signal.SIGTERM):
    return running_sandbox("--seconds", "1.5", "--credits", "1000", "--state", str(file), token=TOKEN, stop=stop)


def charge_of(http, submit_id):
    return [line for line in http.get("/_ledger").json()["charges"] if line["submit_id"] == submit_id]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_orders_accounts_and_uploads_survive_a_restart(file, stop):
    session, running, finished = "secret" + uuid.uuid4().hex, order("a slow boat"), order("a boat [[seconds:0]]")
    with sandbox_on(file, stop) as http:
        client = Client(http, session)
        client.submit(finished)
        picture = large(client.finish_job(finished)["item_list"][0])["image_url"]
        before = http.get(picture).content
        uri = client.upload(make_image())
        answer = client.submit(running)["data"]["aigc_data"]
        left, spent = client.credits(), http.get("/_ledger").json()["accounts"][client.name]["charged"]
        assert left + spent == 1000
    with sandbox_on(file) as http:
        client = Client(http, session)
        # The new process has another port.
        assert http.get(httpx.URL(picture).raw_path.decode()).content == before, "an earlier link still works"
        again = client.poll(running["submit_id"])[running["submit_id"]]
        assert (again["history_record_id"], again["generate_id"]) == (
            answer["history_record_id"], answer["generate_id"]
        )  # fmt: skip
        assert len(client.finish_job(running)["item_list"]) == 4
        assert client.credits() == left
        assert len(charge_of(http, running["submit_id"])) == len(charge_of(http, finished["submit_id"])) == 1
        assert check(client, uri) == "0"
        later = client.submit(order("later"))["data"]["aigc_data"]
        assert int(later["history_record_id"]) == int(answer["history_record_id"]) + 1, "numbers continue"


def test_tasks_of_the_official_api_survive_a_restart(file):
    headers = {"Authorization": f"Bearer {KEY}"}
    with sandbox_on(file, signal.SIGKILL) as http:
        body = VIDEO | {"content": [{"type": "text", "text": "waves"}], "callback_url": "http://127.0.0.1:1/s3cret"}
        task = http.post(TASKS, json=body, headers=headers).raise_for_status().json()["id"]
    with sandbox_on(file) as http:
        http.headers.update(headers)
        while (shown := http.get(f"{TASKS}/{task}").json())["status"] in {"queued", "running"}:
            time.sleep(0.1)
        assert shown["status"] == "succeeded"
        assert http.get(shown["content"]["video_url"]).content[4:8] == b"ftyp"
        assert http.get("/_ark/ledger").json()["totals"]["tasks"] == 1
        assert http.delete(f"{TASKS}/{task}").status_code == 200
    with sandbox_on(file) as http:
        assert http.get(f"{TASKS}/{task}", headers=headers).status_code == 404


def test_file_is_private_and_holds_no_secret(file):
    session = "5eCr3t" + uuid.uuid4().hex
    with sandbox_on(file, signal.SIGKILL) as http:
        client = Client(http, session)
        client.submit(order("a boat"))
        token = client.token()
        client.upload(make_image())
        body = VIDEO | {"content": [{"type": "text", "text": "waves"}], "callback_url": "http://127.0.0.1:1/s3cret"}
        http.post(TASKS, json=body, headers={"Authorization": f"Bearer {KEY}"}).raise_for_status()
    files = list(file.parent.iterdir())
    content = b"".join(one.read_bytes() for one in files)
    assert b"a boat" in content
    for secret in (session, KEY, KEY.partition(".")[0], token["secret_access_key"], "s3cret", TOKEN):
        assert secret.encode() not in content
    assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}


def test_reset_clears_the_file(file):
    session, body = uuid.uuid4().hex, order("a boat")
    with sandbox_on(file) as http:
        Client(http, session).submit(body)
        http.post("/_reset")
    with sandbox_on(file) as http:
        client = Client(http, session)
        assert client.poll(body["submit_id"]) == {}
        assert client.credits() == 1000


@pytest.mark.parametrize("content", [b"not a database" * 100, b""])
def test_unreadable_file_is_replaced(file, content):
    file.parent.mkdir()
    file.write_bytes(content)
    session, body = uuid.uuid4().hex, order("a boat")
    with sandbox_on(file) as http:
        Client(http, session).submit(body)
    with sandbox_on(file) as http:
        assert Client(http, session).poll(body["submit_id"])


def test_file_of_another_version_is_replaced(file):
    StateFile(file)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("PRAGMA user_version = 99")
    with sandbox_on(file) as http:
        assert Client(http, uuid.uuid4().hex).submit(order("a boat"))["ret"] == "0"


def test_damaged_file_is_replaced(file):
    with sandbox_on(file) as http:
        Client(http, uuid.uuid4().hex).submit(order("a boat"))
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    head, rest = file.read_bytes()[:4096], file.stat().st_size - 4096
    file.write_bytes(head + b"\xff" * rest)
    session, body = uuid.uuid4().hex, order("another boat")
    with sandbox_on(file) as http:
        Client(http, session).submit(body)
        assert Client(http, session).poll(body["submit_id"])


def test_full_disk_is_said_once(file, capsys):
    kept = StateFile(file)
    [pages] = kept._database.execute("PRAGMA page_count").fetchone()
    kept._database.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(501):
        kept.save_account(create_account(f"session {number}", 1000))
    assert capsys.readouterr().err.count("cannot be written (database or disk is full)") == 1


def test_old_finished_orders_are_dropped(file):
    kept, account = StateFile(file), create_account("a session", 1000)
    [model] = [one for one in IMAGE_MODELS.values() if one.name == "Image 4.0"]
    for number in range(1, KEPT["orders"] + 1002):
        ordered = Order(str(number), "a boat", model, 1, 64, 64, 1, 1)
        end = time.time() + (3600 if number == 1 else -1)
        kept.save_order(Job(account, ordered, Script(), number, 1.0, 1.0, end, "generate"))
    with closing(sqlite3.connect(file)) as database:
        [(count, first, last)] = database.execute("SELECT count(*), min(id), max(id) FROM orders").fetchall()
    assert count <= KEPT["orders"] + 501, "the running one, the newest ones, and those since the last removal"
    assert (first, last) == (1, KEPT["orders"] + 1001)
    assert file.stat().st_size < 8_000_000
