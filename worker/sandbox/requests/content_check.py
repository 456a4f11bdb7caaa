"""Validates the body of a content check (`algo_proxy`) and finds the upload that it names."""

from collections.abc import Mapping

from worker.sandbox.requests.fields import (
    AccountUploads,
    RefusedError,
    get_object,
    parse_object,
    require,
    single_object,
)
from worker.sandbox.uploads.file_inspection import FileInfo

_ENTRANCE = {
    "scenario": "image_video_generation",
    "feature_key": "aigc_to_image",
    "feature_entrance": "to-generate",
    "feature_entrance_detail": "to-generate-algo_proxy",
}


def read_check(raw: bytes, query: Mapping[str, str], uploads: AccountUploads) -> FileInfo:
    """Return the committed image that the call names. Raises RefusedError for an invalid call."""
    require(parse_object(query.get("babi_param", ""), "babi_param") == _ENTRANCE, "babi_param is not that of the page")
    body = parse_object(raw, "body")
    require(body.get("scene") == "image_face_ip", "scene is not image_face_ip")
    require(get_object(body, "options").get("ip_check") is True, "options.ip_check is not true")
    require(body.get("req_key") == "benchmark_test_user_upload_image_input", "req_key is unknown")
    require(get_object(body, "req_params") == {}, "req_params is not empty")
    uri = single_object(body.get("file_list"), "file_list").get("file_uri")
    file_info = uploads.store.image(uploads.account, str(uri))
    if file_info is None:
        raise RefusedError("1000", f"file_uri {str(uri)[:80]!r} is not a committed upload of this account")
    return file_info
