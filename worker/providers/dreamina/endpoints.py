"""Paths of the endpoints, and bodies and queries that never change."""

from urllib.parse import quote

import orjson

GENERATE = "/mweb/v1/aigc_draft/generate"
HISTORY = "/mweb/v1/get_history_by_ids"
UPLOAD_ACCESS = "/mweb/v1/get_upload_token"
ITEMS = "/mweb/v1/get_local_item_list"
CHECK = "/mweb/v1/algo_proxy"
# Telemetry: where on the page the check happens (section 2.1).
CHECK_ENTRANCE = "&babi_param=" + quote(
    orjson.dumps(
        {
            "scenario": "image_video_generation",
            "feature_key": "aigc_to_image",
            "feature_entrance": "to-generate",
            "feature_entrance_detail": "to-generate-algo_proxy",
        }
    ),
    safe="",
)
# Texts of a refused check whose code is not a content code.
RISK_TEXTS = ("risk not pass", "detected risk")
IMAGE_CONFIG = "/mweb/v1/get_common_config"
VIDEO_CONFIG = "/mweb/v1/video_generate/get_common_config"
CONVERSATION = "/mweb/v1/creation_agent/v2/conversation"
USER_INFO = "/lv/v1/user/web/user_info"
CREDIT = "/commerce/v1/benefits/user_credit"
CREDIT_HISTORY = "/commerce/v1/benefits/user_credit_history"
RECEIVE = "/commerce/v1/benefits/credit_receive"
USER_INFO_BODY = orjson.dumps(
    {
        "sem_info": {
            "is_sem": False,
            "medium": "Direct",
            "register_source": "direct",
            "register_second_source": "enter_url",
        }
    }
)
