"""Single results: lists, favourites, pins, deletion, bulk actions and zips of chosen files."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator

import httpx
import pytest

from api.jobs.results.schemas import MAX_FILES, Result, ResultMarks
from tests.integration.api.jobs.test_feed_and_favourites import EVENTS, feed_events
from tests.support.api_client import ApiClient, assert_error


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def finish_job(client: ApiClient, prompt: str = "a boat", **fields) -> dict:
    return client.wait_for_end(client.start_job(prompt, **fields)["id"])


def files_of(client: ApiClient, job: dict) -> list[str]:
    return [item["id"] for item in client.job(job["id"])["output"]]


def listed(client: ApiClient, **query: object) -> list[str]:
    answer = client.http.get("/v1/results", params=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["data"]]


def act(client: ApiClient, action: str, *files: str) -> httpx.Response:
    return client.http.post("/v1/files/actions", json={"action": action, "files": files})


class TestList:
    def test_results_are_listed_one_by_one_newest_job_first(self, client):
        first, second = finish_job(client, "a red boat", n=3), finish_job(client, "a blue boat", n=2)
        expected = files_of(client, second) + files_of(client, first)
        assert listed(client) == expected
        assert listed(client, order="asc") == files_of(client, first) + files_of(client, second)
        body = client.http.get("/v1/results").json()
        assert (body["has_more"], body["next"], body["last_id"]) == (False, None, expected[-1])
        item, file = Result.model_validate(body["data"][0]), second["output"][0]
        assert (item.job, item.n, item.prompt, item.kind) == (second["id"], 0, "a blue boat", "image")
        assert (item.url, item.width, item.bytes, item.sandbox) == (file["url"], file["width"], file["bytes"], True)
        assert (item.favourite, item.pinned, item.expires_at) == (False, False, None)
        assert item.thumbnail_url is not None
        assert client.http.get(item.thumbnail_url).headers["content-type"] == "image/webp"

    @pytest.mark.parametrize("order", ["desc", "asc"])
    def test_pages_join_to_the_whole_list(self, client, order):
        for n in (3, 1, 2):
            finish_job(client, n=n)
        whole, seen, after = listed(client, order=order), [], None
        for _ in whole:
            page = client.http.get(
                "/v1/results", params={"order": order, "limit": 2, **({"after": after} if after else {})}
            )
            seen += [item["id"] for item in page.json()["data"]]
            after = page.json()["next"]
            if after is None:
                break
        assert seen == whole
        # The id of the last result is a cursor too, also after that result was deleted.
        assert client.http.delete(f"/v1/files/{whole[1]}").status_code == 200
        assert listed(client, order=order, after=whole[1]) == whole[2:]

    def test_filters(self, client):
        wide, tall = finish_job(client, "wide sea", size="1344x768"), finish_job(client, "tall tower", size="768x1344")
        wide_file, tall_file = files_of(client, wide)[0], files_of(client, tall)[0]
        assert listed(client, ratio="landscape") == [wide_file]
        assert listed(client, ratio="portrait") == [tall_file]
        assert listed(client, ratio="square") == []
        assert listed(client, ratio="7:4") == [wide_file]
        assert listed(client, q="TOWER") == [tall_file]
        assert listed(client, kind="video") == []
        assert listed(client, model=wide["model"]) == [tall_file, wide_file]
        assert listed(client, model="another") == []
        assert listed(client, created_after=wide["created_at"] - 1, created_before=tall["created_at"] + 2) == [
            tall_file,
            wide_file,
        ]
        assert listed(client, created_before=wide["created_at"] - 5) == []
        client.http.post(f"/v1/files/{wide_file}/favourite")
        client.http.post(f"/v1/files/{tall_file}/pin")
        assert (listed(client, favourite=True), listed(client, favourite=False)) == ([wide_file], [tall_file])
        assert (listed(client, pinned=True), listed(client, pinned=False)) == ([tall_file], [wide_file])

    @pytest.mark.parametrize(
        "query",
        [{"after": "x"}, {"after": "job_0"}, {"after": f"file_{'0' * 32}"}, {"ratio": "16x9"}, {"ratio": "0:1"},
         {"created_after": "yesterday"}, {"order": "name"}, {"kind": "chat"}, {"limit": 201}],
        ids=lambda query: "-".join(f"{name}-{value}" for name, value in query.items()),
    )  # fmt: skip
    def test_invalid_queries_are_refused(self, client, query):
        answer = client.http.get("/v1/results", params=query)
        assert_error(answer, 400, "invalid_value", next(iter(query)))


class TestMarks:
    def test_one_result_is_a_favourite(self, client):
        job = finish_job(client, n=3)
        one, two, three = files_of(client, job)
        marked = client.http.post(f"/v1/files/{two}/favourite")
        assert marked.status_code == 200
        assert ResultMarks.model_validate(marked.json()).model_dump(exclude={"expires_at"}) == {
            "id": two, "object": "file", "job": job["id"], "favourite": True, "pinned": False, "deleted": False,
        }  # fmt: skip
        assert client.http.post(f"/v1/files/{two}/favourite").json() == marked.json()
        assert listed(client, favourite=True) == [two]
        now = client.job(job["id"])
        assert now["favourite"], "a job with a favourite is one"
        assert [item["favourite"] for item in now["output"]] == [False, True, False]
        assert [found["id"] for found in client.http.get("/v1/jobs?favourite=true").json()["data"]] == [job["id"]]
        assert client.http.delete(f"/v1/files/{two}/favourite").json()["favourite"] is False
        assert not client.job(job["id"])["favourite"]
        assert listed(client, favourite=False) == [one, two, three]

    def test_starring_a_job_stars_all_its_results(self, client):
        job = finish_job(client, n=2)
        files = files_of(client, job)
        client.http.post(f"/v1/files/{files[0]}/favourite")
        assert client.http.put(f"/v1/jobs/{job['id']}/favourite").json()["favourite"] is True
        assert listed(client, favourite=True) == files
        client.http.delete(f"/v1/files/{files[0]}/favourite")
        assert listed(client, favourite=True) == files[1:]
        client.http.delete(f"/v1/jobs/{job['id']}/favourite")
        assert listed(client, favourite=True) == []

    def test_a_job_starred_while_it_runs_has_favourite_results(self, client):
        job = client.start_job("[[seconds:1]] a boat", n=2)
        assert client.http.put(f"/v1/jobs/{job['id']}/favourite").json()["favourite"] is True
        client.wait_for_end(job["id"])
        assert listed(client, favourite=True) == files_of(client, job)

    def test_one_result_is_pinned(self, client):
        job = finish_job(client, n=2)
        first, second = files_of(client, job)
        assert client.http.post(f"/v1/files/{first}/pin").json()["pinned"] is True
        now = client.job(job["id"])
        assert ([item["pinned"] for item in now["output"]], now["pinned"]) == ([True, False], False)
        assert client.http.post(f"/v1/files/{second}/pin").json()["pinned"] is True
        assert client.job(job["id"])["pinned"], "all of its results are kept"
        assert client.http.post(f"/v1/files/{second}/unpin").json()["pinned"] is False
        assert client.http.post(f"/v1/jobs/{job['id']}/pin").json()["pinned"] is True
        assert listed(client, pinned=True) == [first, second]
        assert client.http.post(f"/v1/jobs/{job['id']}/unpin").json()["pinned"] is False
        assert listed(client, pinned=True) == []


class TestDelete:
    def test_a_deleted_result_is_gone_everywhere(self, client):
        job = finish_job(client, n=3)
        files = files_of(client, job)
        gone = client.job(job["id"])["output"][1]
        usage = client.job(job["id"])["usage"]
        answer = client.http.delete(f"/v1/files/{files[1]}")
        assert (answer.status_code, answer.json()["deleted"]) == (200, True)
        assert client.http.delete(f"/v1/files/{files[1]}").json() == answer.json(), "again"
        now = client.job(job["id"])
        assert [item["id"] for item in now["output"]] == [files[0], files[2]]
        assert [item["n"] for item in now["output"]] == [0, 2]
        assert (now["usage"], now["expired_at"]) == (usage, None), "what it cost stays"
        assert listed(client) == [files[0], files[2]]
        assert_error(client.http.get(gone["url"]), 404, "file_not_found")
        assert_error(client.http.post(f"/v1/files/{files[1]}/favourite"), 404, "file_not_found")
        archive = client.http.get("/v1/files/archive", params={"ids": job["id"]})
        with zipfile.ZipFile(io.BytesIO(archive.content)) as content:
            assert len(content.namelist()) == 3, "two pictures and the manifest"

    def test_the_last_result_of_a_job(self, client):
        job = finish_job(client)
        client.http.put(f"/v1/jobs/{job['id']}/favourite")
        [only] = files_of(client, job)
        assert client.http.delete(f"/v1/files/{only}").status_code == 200
        now = client.job(job["id"])
        assert (now["status"], now["output"], now["favourite"]) == ("completed", [], False)
        assert now["usage"]["images"] == 1
        assert_error(client.http.get("/v1/files/archive", params={"ids": job["id"]}), 404, "file_not_found")
        assert client.http.delete(f"/v1/jobs/{job['id']}").status_code == 200

    def test_a_repeated_request_says_that_its_results_were_deleted(self, client):
        send = {
            "json": {"prompt": "once", "model": "jimeng-4.0", "n": 1},
            "headers": {"Idempotency-Key": "one-picture"},
        }
        answer = client.http.post("/v1/images/generations", **send)
        [file] = files_of(client, {"id": answer.headers["x-job-id"]})
        client.http.delete(f"/v1/files/{file}")
        assert_error(client.http.post("/v1/images/generations", **send), 410, "job_deleted")

    def test_a_deleted_video_is_expired_for_clients_of_videos(self, client):
        video = client.http.post("/v1/videos", json={"prompt": "waves"}).json()["id"]
        job = client.wait_for_end(video.replace("video_", "job_"))
        thumbnail = job["output"][0]["thumbnail_url"]
        assert client.http.get(thumbnail).status_code == 200
        client.http.delete(f"/v1/files/{job['output'][0]['id']}")
        assert_error(client.http.get(thumbnail), 404, "file_not_found")
        assert client.http.get(f"/v1/videos/{video}").json()["error"]["code"] == "video_expired"
        assert_error(client.http.get(f"/v1/videos/{video}/content"), 410, "video_expired")

    def test_a_result_of_a_running_job_or_a_thumbnail_is_unknown(self, client):
        assert_error(client.http.delete(f"/v1/files/file_{'1' * 32}"), 404, "file_not_found")
        assert_error(client.http.delete("/v1/files/nonsense"), 404, "file_not_found")


class TestManyAtOnce:
    def test_actions_on_results_of_several_jobs(self, client):
        first, second = finish_job(client, n=2), finish_job(client, n=2)
        chosen = [files_of(client, first)[1], files_of(client, second)[0]]
        answer = act(client, "favourite", *chosen, chosen[0])
        assert [item["id"] for item in answer.json()["data"]] == chosen, "once each, in the order of the request"
        assert set(listed(client, favourite=True)) == set(chosen)
        act(client, "pin", *chosen)
        act(client, "unfavourite", chosen[0])
        assert listed(client, favourite=True) == [chosen[1]]
        assert set(listed(client, pinned=True)) == set(chosen)
        act(client, "unpin", *chosen)
        assert listed(client, pinned=True) == []
        assert {item["deleted"] for item in act(client, "delete", *chosen).json()["data"]} == {True}
        assert not set(chosen) & set(listed(client))

    def test_all_or_none(self, client, api_platform):
        job = finish_job(client, n=2)
        files = files_of(client, job)
        with ApiClient(api_platform) as other:
            [foreign] = files_of(other, finish_job(other))
            for action in ("favourite", "unfavourite", "pin", "unpin", "delete"):
                answer = act(client, action, files[0], foreign)
                assert foreign in assert_error(answer, 404, "file_not_found", "files")
            assert listed(other) == [foreign]
        assert listed(client, favourite=False, pinned=False) == files
        client.http.delete(f"/v1/files/{files[0]}")
        assert_error(act(client, "pin", *files), 404, "file_not_found", "files")
        assert listed(client, pinned=True) == []

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"action": "burn", "files": ["file_1"]}, "action"),
            ({"files": ["file_1"]}, "action"),
            ({"action": "pin", "files": []}, "files"),
            ({"action": "pin"}, "files"),
            ({"action": "pin", "files": ["file_1"] * (MAX_FILES + 1)}, "files"),
            ({"action": "pin", "files": [7]}, "files.0"),
        ],
        ids=["unknown", "no-action", "empty", "no-files", "too-many", "number"],
    )
    def test_bad_bodies(self, client, body, param):
        answer = client.http.post("/v1/files/actions", json=body)
        assert answer.status_code in {400, 422}, answer.text
        assert answer.json()["error"]["param"] == param

    def test_deleting_in_two_tabs_at_once(self, client):
        job = finish_job(client, n=4)
        files, answers = files_of(client, job), []
        start = threading.Barrier(3)

        def tab(chosen: list[str]) -> None:
            start.wait()
            answers.append(act(client, "delete", *chosen).status_code)

        tabs = [threading.Thread(target=tab, args=[chosen]) for chosen in (files[:3], files[2:], [files[1], files[0]])]
        for one in tabs:
            one.start()
        for one in tabs:
            one.join()
        assert answers == [200, 200, 200]
        assert client.job(job["id"])["output"] == []

    def test_zip_of_chosen_files(self, client):
        first, second = finish_job(client, "one", n=3), finish_job(client, "two", n=1)
        chosen = [files_of(client, first)[2], files_of(client, second)[0]]
        answer = client.http.get("/v1/files/archive", params={"files": ",".join(chosen)})
        assert int(answer.headers["content-length"]) == len(answer.content)
        with zipfile.ZipFile(io.BytesIO(answer.content)) as content:
            assert content.testzip() is None
            manifest = json.loads(content.read("manifest.json"))
        assert {entry["file"] for entry in manifest["files"]} == set(chosen)
        client.http.delete(f"/v1/files/{chosen[0]}")
        assert_error(
            client.http.get("/v1/files/archive", params={"files": ",".join(chosen)}), 404, "file_not_found", "files"
        )
        for query, param in (
            ({"files": chosen[1], "ids": second["id"]}, "ids"),
            ({"files": ","}, "files"),
        ):
            assert_error(client.http.get("/v1/files/archive", params=query), 400, "invalid_value", param)


class TestFeed:
    def test_marks_and_deletions_are_reported(self, client):
        job = finish_job(client, n=2)
        first, second = files_of(client, job)
        with client.http.stream("GET", EVENTS) as stream:
            events = feed_events(stream)
            next(events)
            client.http.post(f"/v1/files/{first}/favourite")
            name, _, changed = next(events)
            assert (name, [item["favourite"] for item in changed["output"]]) == ("job", [True, False])
            client.http.delete(f"/v1/files/{second}")
            assert [item["id"] for item in next(events)[2]["output"]] == [first]
            client.http.delete(f"/v1/jobs/{job['id']}")
            assert next(events)[::2] == ("deleted", {"id": job["id"], "object": "job.deleted", "deleted": True})

    def test_missed_marks_and_deletions_are_replayed(self, client):
        marked, deleted = finish_job(client), finish_job(client)
        with client.http.stream("GET", EVENTS) as stream:
            last_event_id = next(line for line in stream.iter_lines() if line.startswith("id: "))[4:]
        client.http.post(f"/v1/files/{files_of(client, marked)[0]}/favourite")
        client.http.delete(f"/v1/jobs/{deleted['id']}")
        seen: list[tuple[str, str]] = []
        with client.http.stream("GET", EVENTS, headers={"Last-Event-ID": last_event_id}) as stream:
            for name, _, body in feed_events(stream):
                seen.append((name, body["id"]))
                if name == "deleted":
                    break
        assert ("job", marked["id"]) in seen
        assert seen[-1] == ("deleted", deleted["id"])


class TestPermissions:
    def test_results_of_others_are_unknown(self, client, api_platform):
        [file] = files_of(client, finish_job(client))
        with ApiClient(api_platform) as other:
            assert listed(other) == []
            for method, path in (("POST", "favourite"), ("DELETE", "favourite"), ("POST", "pin"), ("POST", "unpin")):
                assert_error(other.http.request(method, f"/v1/files/{file}/{path}"), 404, "file_not_found")
            assert_error(other.http.delete(f"/v1/files/{file}"), 404, "file_not_found")
            assert_error(other.http.get("/v1/files/archive", params={"files": file}), 404, "file_not_found", "files")
        assert listed(client) == [file]

    def test_a_read_only_key_looks_but_does_not_mark(self, api_platform):
        with ApiClient(api_platform, api_platform.admin_key) as admin:
            reader = admin.http.post("/v1/keys", json={"name": "reader", "scopes": ["read"]}).json()["key"]
        with ApiClient(api_platform, reader) as client:
            assert client.http.get("/v1/results").status_code == 200
            unknown = f"file_{'2' * 32}"
            for action in ("favourite", "delete"):
                assert_error(act(client, action, unknown), 403, "forbidden")
            assert_error(client.http.delete(f"/v1/files/{unknown}"), 403, "forbidden")
            assert_error(client.http.post(f"/v1/files/{unknown}/pin"), 403, "forbidden")
