"""Arguments of the tools: what an agent may send, described for it. The API checks the values."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# Below the 60 seconds after which most clients give up on a tool.
USUAL_WAIT_SECONDS = 50
LONGEST_WAIT_SECONDS = 600

MEDIA = "an http(s) link, a data URL, or the `uri` of a file of an earlier result (`dreamery://jobs/JOB_ID/files/1`)"
Media = Annotated[str, Field(min_length=1)]


class Arguments(BaseModel):
    """Arguments of a tool. An unknown name is an error, because nothing that an agent asks for is left out."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Waiting(Arguments):
    """How long a tool waits for its jobs, and what it shows of them."""

    wait_seconds: float = Field(
        USUAL_WAIT_SECONDS,
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="how long to wait for the results; 0 = return at once. A job continues after the wait: follow it "
        "with wait_for_job",
    )
    thumbnails: bool = Field(True, description="include small previews of up to 4 finished pictures")


class Creating(Waiting):
    """What all tools have that create jobs."""

    prompt: str = Field(description="what to generate, in any language")
    model: str | None = Field(None, description="id from list_models; default: the platform's")
    n: int | None = Field(None, ge=1, description="how many results; default: the model's")
    ratio: str | None = Field(None, description="such as 1:1, 16:9, 9:16, 4:3, 3:4, 21:9")
    resolution: str | None = Field(None, description="as the model offers: 1k, 2k, 4k; videos: 480p, 720p, 1080p")
    negative_prompt: str | None = Field(None, description="what to leave out, for models that support it")
    seed: int | None = Field(None, ge=0, description="repeats a result as far as the model can")
    metadata: dict[str, str] | None = Field(None, description="up to 16 texts that are kept with the job")
    max_cost: float | None = Field(
        None,
        ge=0,
        description="refuse the call if it may cost more than this, in the unit that `estimate` names",
    )
    confirm_cost: float | None = Field(
        None,
        ge=0,
        description="a cost that the user has agreed to. Needed only after the error `confirmation_required`: ask the "
        "user first",
    )
    idempotency_key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="any text of your own for this call; the same call with the same text returns the first jobs and "
        "is not paid again",
    )


class MakePicture(Creating):
    """Arguments of make_picture."""

    size: str | None = Field(None, description="WIDTHxHEIGHT, mapped to the nearest size of the model")
    output_format: str | None = Field(None, description="png, jpeg or webp; default: as the model makes it")


class EditPicture(MakePicture):
    """Arguments of edit_picture."""

    images: list[Media] = Field(min_length=1, description=f"the pictures to change or combine: each is {MEDIA}")
    sample_strength: float | None = Field(
        None, ge=0, le=1, description="how much to change, for models that support it"
    )


class MakeVideo(Creating):
    """Arguments of make_video."""

    duration: float | None = Field(None, description="seconds, as the model offers; default: the model's first")
    first_frame: Media | None = Field(None, description=f"picture with which the video begins: {MEDIA}")
    last_frame: Media | None = Field(
        None, description=f"picture with which it ends, for models that support it: {MEDIA}"
    )
    reference_images: list[Media] | None = Field(
        None, description=f"pictures that models with references take; the prompt names them @image1, @image2: {MEDIA}"
    )
    reference_videos: list[Media] | None = Field(None, description=f"the same for clips: {MEDIA}")
    reference_audios: list[Media] | None = Field(None, description=f"the same for sounds: {MEDIA}")
    generate_audio: bool | None = Field(None, description="with or without sound, for models that make it")


class EstimateCost(Arguments):
    """Arguments of estimate."""

    tool: Literal["make_picture", "edit_picture", "make_video"] = Field(description="the tool to estimate")
    arguments: dict[str, Any] = Field(description="the arguments that it would get")


class ListModels(Arguments):
    """Arguments of list_models."""

    kind: Literal["image", "video", "chat"] | None = Field(None, description="only models of this kind")


class WaitForJob(Waiting):
    """Arguments of wait_for_job."""

    job_id: str = Field(description="id of a job, job_...")


class ListJobs(Arguments):
    """Arguments of list_jobs."""

    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"] | None = Field(
        None, description="only jobs in this state"
    )
    kind: Literal["image", "video", "chat"] | None = Field(None, description="only jobs of this kind")
    words: str | None = Field(None, max_length=200, description="only jobs whose prompt has these words")
    limit: int = Field(20, ge=1, le=50, description="most jobs to return, newest first")
    after: str | None = Field(None, description="`next_after` of the previous page")


class CancelJob(Arguments):
    """Arguments of cancel_job."""

    job_id: str = Field(description="id of a job, job_...")


class Balance(Arguments):
    """balance takes no arguments."""
