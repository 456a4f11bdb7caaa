"""All tools: names, descriptions, schemas, hints for clients, and the functions that carry them out."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mcp.types import Tool, ToolAnnotations
from pydantic import BaseModel

from api.protocols.mcp.tools import account, generation, inputs, jobs, outputs
from api.protocols.mcp.tools.arguments import read_arguments
from api.protocols.mcp.tools.call import Call, Outcome
from api.protocols.mcp.tools.schemas import input_schema

Arguments = TypeVar("Arguments", bound=inputs.Arguments)


@dataclass(frozen=True, slots=True)
class ToolRow(Generic[Arguments]):
    """One tool. `changes`: it creates or changes something; `destroys`: something is lost; `repeats`: no harm again."""

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    result: type[BaseModel]
    run: Callable[[Call, Arguments], Awaitable[Outcome]]
    changes: bool = False
    destroys: bool = False
    repeats: bool = True

    def definition(self) -> Tool:
        """Return the tool as the protocol lists it."""
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=input_schema(self.arguments),
            output_schema=outputs.output_schema(self.result),
            annotations=ToolAnnotations(
                title=self.title,
                read_only_hint=not self.changes,
                destructive_hint=self.destroys,
                idempotent_hint=self.repeats,
                open_world_hint=self.changes,
            ),
        )

    async def call(self, call: Call, arguments: Mapping[str, Any]) -> Outcome:
        """Check the arguments and carry out the tool."""
        return await self.run(call, read_arguments(self.arguments, arguments))


_COSTS = "This costs credits or money. Returns the results, or the job if the wait ends first; it then continues."

TOOLS: dict[str, ToolRow[Any]] = {
    row.name: row
    for row in (
        ToolRow(
            "list_models",
            "List models",
            "List the models for pictures and videos, with their sizes, durations and inputs.",
            inputs.ListModels,
            outputs.Models,
            account.list_models,
        ),
        ToolRow(
            "estimate",
            "Estimate a cost",
            "Tell what a call of make_picture, edit_picture or make_video would cost and how long it would take. "
            "Creates nothing.",
            inputs.EstimateCost,
            outputs.Estimate,
            generation.estimate,
        ),
        ToolRow(
            "make_picture",
            "Make pictures",
            f"Generate pictures from a text. {_COSTS}",
            inputs.MakePicture,
            outputs.Jobs,
            generation.make_picture,
            changes=True,
            repeats=False,
        ),
        ToolRow(
            "edit_picture",
            "Edit pictures",
            f"Change or combine pictures as a text says. {_COSTS}",
            inputs.EditPicture,
            outputs.Jobs,
            generation.edit_picture,
            changes=True,
            repeats=False,
        ),
        ToolRow(
            "make_video",
            "Make a video",
            "Generate a video from a text, optionally with a first and a last frame. Takes minutes, so the result is "
            f"often a job that wait_for_job follows. {_COSTS}",
            inputs.MakeVideo,
            outputs.Jobs,
            generation.make_video,
            changes=True,
            repeats=False,
        ),
        ToolRow(
            "wait_for_job",
            "Wait for a job",
            "Wait until a job has ended, and return its results. Repeat the call while it has not.",
            inputs.WaitForJob,
            outputs.Jobs,
            jobs.wait_for_job,
        ),
        ToolRow(
            "list_jobs",
            "List jobs",
            "List jobs with their results, newest first.",
            inputs.ListJobs,
            outputs.JobPage,
            jobs.list_jobs,
        ),
        ToolRow(
            "cancel_job",
            "Cancel a job",
            "Cancel a job. A queued job costs nothing; the upstream may finish and charge one that it has begun.",
            inputs.CancelJob,
            outputs.Job,
            jobs.cancel_job,
            changes=True,
            destroys=True,
        ),
        ToolRow(
            "balance",
            "Show the balance",
            "Show the limits of the key, what was spent this month, and the credits of the caller's own accounts.",
            inputs.Balance,
            outputs.BalanceSheet,
            account.balance,
        ),
    )
}
