"""The video models upstream knows: where each is on offer, what it can do, and how big its videos become."""

from dataclasses import dataclass

from worker.sandbox.models.image_models import EVERYWHERE

RATIOS = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16")
CREDITS_PER_SECOND = 5
_V3 = "basic_video_operation_vgfm_v_three"


@dataclass(frozen=True)
class VideoModel:
    key: str
    name: str
    # The first is the one its configuration names; clients disagree about some models, and all were served.
    benefits: tuple[str, ...]
    places: frozenset[str] = EVERYWHERE
    seconds: tuple[int, ...] = (5, 10)
    resolutions: tuple[str, ...] = ("720p",)
    end_frame: bool = False
    # Takes pictures, videos and sounds as materials of one `unified_edit_input`.
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


def _seedance(key: str, name: str, benefits: tuple[str, ...], places: frozenset[str], *resolutions: str) -> VideoModel:
    return VideoModel(key, name, benefits, places, _SEEDANCE, resolutions or ("720p",), end_frame=True, omni=True)


def _guest(key: str, name: str, benefit: str, seconds: tuple[int, ...]) -> VideoModel:
    return VideoModel(key, name, (benefit, _V3), EVERYWHERE, seconds, _BOTH)


_VEO31 = "generate_video_veo3.1"
_DRAFT = ("seedance_25_draft_480p_no_input_video_output",)
_ALL = (
    VideoModel(_vgfm("vgfm_3.0"), "Video 3.0", (_V3,), resolutions=_BOTH, end_frame=True),
    VideoModel(_vgfm("vgfm_3.0_pro"), "Video 3.0 Pro", (_V3, f"{_V3}_pro"), _NOT_US, resolutions=_BOTH),
    VideoModel(_vgfm("vgfm_3.0_fast"), "Video 3.0 Fast", (_V3, f"{_V3}_1080"), _NOT_US, resolutions=_BOTH),
    VideoModel(_vgfm("vgfm1.0"), "Video S2.0 Pro", (_V3,), _NOT_US),
    VideoModel(_vgfm("vgfm_lite"), "Video S2.0", (_V3,), _NOT_US),
    VideoModel(
        _vgfm("vgfm_3.5_pro"), "Video 3.5 Pro", ("dreamina_video_seedance_15_pro",), seconds=(5, 10, 12), end_frame=True
    ),
    _guest("dreamina_sora2_generate_video", "Sora 2", "generate_video_sora2", (4, 8, 12)),
    _guest("dreamina_veo31_generate_video", "Veo 3.1", _VEO31, (8,)),
    _guest("dreamina_veo3.1_generate_video", "Veo 3.1", _VEO31, (8,)),
    _guest("dreamina_veo3_generate_video", "Veo 3", "generate_video_veo3", (8,)),
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

_LINES = {"480p": 480, "720p": 720, "1080p": 1080, "4k": 2160}
_WIDE = {480: 854}


def closest_ratio(width: int, height: int) -> str:
    """With a first frame the video follows the picture: the ratio on offer that is nearest to it."""

    def distance(ratio: str) -> float:
        across, down = (int(side) for side in ratio.split(":"))
        mine, theirs = across * height, down * width
        return max(mine, theirs) / min(mine, theirs)

    return min(RATIOS, key=distance)


def video_size(resolution: str, ratio: str) -> tuple[int, int]:
    """The short side is the resolution; sides are even, as H.264 with halved colour needs them."""
    short = _LINES[resolution]
    across, down = (int(side) for side in ratio.split(":"))
    long = short * max(across, down) // min(across, down)
    if {across, down} == {16, 9}:
        long = _WIDE.get(short, long)
    long += long % 2
    return (long, short) if across >= down else (short, long)
