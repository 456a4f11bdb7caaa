"""The body of a content check (`algo_proxy`), read field by field, down to the upload it asks about."""

from collections.abc import Mapping

from worker.sandbox.requests.fields import Belongings, RefusedError, as_object, child, need, only_one
from worker.sandbox.uploads.file_inspection import Contents

_ENTRANCE = {
    "scenario": "image_video_generation",
    "feature_key": "aigc_to_image",
    "feature_entrance": "to-generate",
    "feature_entrance_detail": "to-generate-algo_proxy",
}


def read_check(raw: bytes, query: Mapping[str, str], owner: Belongings) -> Contents:
    """The committed picture of this account that the call names."""
    need(as_object(query.get("babi_param", ""), "babi_param") == _ENTRANCE, "babi_param is not that of the page")
    body = as_object(raw, "body")
    need(body.get("scene") == "image_face_ip", "scene is not image_face_ip")
    need(child(body, "options").get("ip_check") is True, "options.ip_check is not true")
    need(body.get("req_key") == "benchmark_test_user_upload_image_input", "req_key is unknown")
    need(child(body, "req_params") == {}, "req_params is not empty")
    uri = only_one(body.get("file_list"), "file_list").get("file_uri")
    found = owner.vault.picture(owner.account, str(uri))
    if found is None:
        raise RefusedError("1000", f"file_uri {str(uri)[:80]!r} is no committed upload of this account")
    return found
