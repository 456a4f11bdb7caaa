"""An SDK with a short timeout of its own gets its picture, and pays once."""

import openai

from tests.support.api_client import ApiClient


def test_openai_python_with_a_timeout_of_ten_seconds_gets_a_picture_of_twelve(api_platform):
    with ApiClient(api_platform) as client:
        requests = []
        http = openai.DefaultHttpxClient(trust_env=False, event_hooks={"request": [requests.append]})
        url = f"{api_platform.url}/v1"
        with openai.OpenAI(base_url=url, api_key=client.key, timeout=10, http_client=http) as sdk:
            answer = sdk.images.generate(model="jimeng-4.0", prompt="a slow boat [[seconds:12]]", n=1)
        assert answer.data[0].url
        jobs = client.http.get("/v1/jobs").json()["data"]
        assert [job["status"] for job in jobs] == ["completed"]
        assert len(client.submits()) == 1
        assert len(requests) == 3
