"""Upstream's video models: the sites that offer them, their options, and the sizes of their videos."""

from dataclasses import dataclass

from worker.sandbox.models.image_models import EVERYWHERE

RATIOS = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16")
CREDITS_PER_SECOND = 5
_V3 = "basic_video_operation_vgfm_v_three"


@dataclass(frozen=True)
class VideoModel:
    key: str
    name: str
    # The first one is in the model's configuration. Clients use different ones for some models; upstream accepted all.
    benefits: tuple[str, ...]
    sites: frozenset[str] = EVERYWHERE
    seconds: tuple[int, ...] = (5, 10)
    resolutions: tuple[str, ...] = ("720p",)
    end_frame: bool = False
    # Accepts images, video and audio as materials of one `unified_edit_input`.
    omni: bool = False


def _vgfm(name: str) -> str:
    return f"dreamina_ic_generate_video_model_{name}"


_CHINA = frozenset({"cn"})
_NOT_US = frozenset({"cn", "asia"})
_SEEDANCE = tuple(range(4, 16))
_MINI = ("seedance_20_mini_720p_output", "seedance_20_mini_720p_output_5s", "seedance_20_mini_720p_output_8s")
_PRO = (
    "dreamina_video_seedance_20_pro",
    "dreamina_video_seedance_20_video_add",
    "dreamina_video_seedance_20_pro_with_video",
)
_FAST = ("dreamina_seedance_20_fast", "dreamina_seedance_20_fast_with_video")
_VISION = ("seedance_20_pro_720p_output", "seedance_20_pro_1080p_output", "seedance_20_pro_4k_output")
_BOTH = ("720p", "1080p")


def _seedance(key: str, name: str, benefits: tuple[str, ...], sites: frozenset[str], *resolutions: str) -> VideoModel:
    return VideoModel(key, name, benefits, sites, _SEEDANCE, resolutions or ("720p",), end_frame=True, omni=True)


def _external_model(key: str, name: str, benefit: str, seconds: tuple[int, ...]) -> VideoModel:
    return VideoModel(key, name, (benefit, _V3), EVERYWHERE, seconds, _BOTH)


_VEO31 = "generate_video_veo3.1"
_DRAFT = ("seedance_25_draft_480p_no_input_video_output",)
_ALL = (
    VideoModel(_vgfm("vgfm_3.0"), "Video 3.0", (_V3,), resolutions=_BOTH, end_frame=True),
    # Sources disagree about the US and the last frame; the first gateway's README documents both.
    VideoModel(_vgfm("vgfm_3.0_pro"), "Video 3.0 Pro", (_V3, f"{_V3}_pro"), resolutions=_BOTH, end_frame=True),
    VideoModel(_vgfm("vgfm_3.0_fast"), "Video 3.0 Fast", (_V3, f"{_V3}_1080"), _NOT_US, resolutions=_BOTH),
    VideoModel(_vgfm("vgfm1.0"), "Video S2.0 Pro", (_V3,), _NOT_US),
    VideoModel(_vgfm("vgfm_lite"), "Video S2.0", (_V3,), _NOT_US),
    VideoModel(
        _vgfm("vgfm_3.5_pro"), "Video 3.5 Pro", ("dreamina_video_seedance_15_pro",), seconds=(5, 10, 12), end_frame=True
    ),
    _external_model("dreamina_sora2_generate_video", "Sora 2", "generate_video_sora2", (4, 8, 12)),
    _external_model("dreamina_veo31_generate_video", "Veo 3.1", _VEO31, (8,)),
    _external_model("dreamina_veo3.1_generate_video", "Veo 3.1", _VEO31, (8,)),
    _external_model("dreamina_veo3_generate_video", "Veo 3", "generate_video_veo3", (8,)),
    _seedance("dreamina_seedance_40_pro", "Seedance 2.0", _PRO, EVERYWHERE),
    _seedance("dreamina_seedance_40", "Seedance 2.0 Fast", _FAST, EVERYWHERE),
    _seedance("dreamina_seedance_40_mini", "Seedance 2.0 mini", _MINI, EVERYWHERE),
    _seedance("dreamina_seedance_40_vision", "Seedance 2.0 Fast VIP", ("seedance_20_fast_720p_output",), _CHINA),
    _seedance("dreamina_seedance_40_pro_vision", "Seedance 2.0 VIP", _VISION, _CHINA, "720p", "1080p", "4k"),
    _seedance("seedance_2_0_lite", "Seedance 2.0 Lite", (*_FAST, *_MINI), _CHINA),
    _seedance("dreamina_seedance_45_pro", "Seedance 2.5", _PRO, EVERYWHERE, "480p", "720p", "1080p"),
    _seedance("dreamina_seedance_45_pro_draft", "Seedance 2.5 draft", _DRAFT, EVERYWHERE, "480p"),
)
VIDEO_MODELS = {model.key: model for model in _ALL}

_SHORT_SIDES = {"480p": 480, "720p": 720, "1080p": 1080, "4k": 2160}
_LONG_SIDES_16_9 = {480: 854}


def closest_ratio(width: int, height: int) -> str:
    """Return the ratio nearest to the size of a first frame, which determines the ratio of the video."""

    def distance(ratio: str) -> float:
        across, down = (int(side) for side in ratio.split(":"))
        first, second = across * height, down * width
        return max(first, second) / min(first, second)

    return min(RATIOS, key=distance)


def video_size(resolution: str, ratio: str) -> tuple[int, int]:
    """Return width and height. The resolution is the short side; sides are even, as H.264 with 4:2:0 requires."""
    short = _SHORT_SIDES[resolution]
    across, down = (int(side) for side in ratio.split(":"))
    long = short * max(across, down) // min(across, down)
    if {across, down} == {16, 9}:
        long = _LONG_SIDES_16_9.get(short, long)
    long += long % 2
    return (long, short) if across >= down else (short, long)
