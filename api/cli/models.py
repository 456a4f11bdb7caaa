"""`dreamery models`: the models that the key can use, and what each takes and makes."""

from typing import Annotated

import typer

from api.cli.api_client import Json
from api.cli.display.output import (
    JsonOption,
    KeyOption,
    UrlOption,
    platform_client,
    print_list,
    print_object,
    quote_segment,
)

MODELS_EXAMPLE = "Example: dreamery models --kind video, or dreamery models gpt-image-1"
_COLUMNS = ("id", "kind", "name", "takes", "makes", "regions")
_KINDS = ("image", "video", "chat")


def show_models(
    model: Annotated[str | None, typer.Argument(help="Show only this model, with all its values.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Only models of this kind: image, video or chat.", autocompletion=lambda: [*_KINDS]),
    ] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    aliases: Annotated[bool, typer.Option("--all", help="Also other names of the same models.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models that the key can use: what each takes besides text, and what it makes."""
    if kind is not None and kind not in _KINDS:
        raise typer.BadParameter("Give image, video or chat.", param_hint="--kind")
    client = platform_client(url, key)
    if model is not None:
        found = client.get(f"/v1/models/{quote_segment(model)}")
        print_object(found if as_json else _details(found), as_json=as_json)
        return
    listed = [
        each
        for each in client.get("/v1/models")["data"]
        if (aliases or each["alias_of"] is None) and kind in {None, each["kind"]}
    ]
    columns = (*_COLUMNS, "means") if aliases else _COLUMNS
    print_list(listed if as_json else [*map(_as_row, listed)], columns, as_json=as_json)


def _as_row(model: Json) -> Json:
    return {
        **model,
        "name": model["model_name"],
        "takes": _takes(model),
        "makes": _makes(model),
        "means": model["alias_of"],
    }


def _details(model: Json) -> Json:
    """Return the fields of one model for a person."""
    fields = [field["name"] for field in model["fields"]]
    shown = {"id": model["id"], "kind": model["kind"], "name": model["model_name"], "means": model["alias_of"]}
    shown |= {"about": model["model_tip"], "takes": _takes(model), "makes": _makes(model)}
    shown |= {"ratios": model.get("ratios"), "options": fields, "provider": model["provider"]}
    shown |= {"regions": model["regions"], "note": model["remark"], "sold until": model["ends"]}
    return {name: value for name, value in shown.items() if value}


def _takes(model: Json) -> str:
    """Return what a model takes besides the prompt."""
    if model.get("omni"):
        return f"up to {model['references']} pictures, clips, sounds"
    frames = [name for name, field in (("first", "first_frame"), ("last", "end_frame")) if model.get(field)]
    if frames:
        return f"{' and '.join(frames)} frame"
    count = model["references"]
    return f"up to {count} pictures" if count > 1 else "1 picture" if count else "text only"


def _makes(model: Json) -> str:
    """Return resolutions, and the number of pictures or the lengths of videos."""
    sizes = " ".join(model["resolutions"])
    if seconds := model.get("durations"):
        ordered = sorted(seconds)
        lengths = f"{ordered[0]}-{ordered[-1]}" if len(ordered) > 3 else "/".join(map(str, ordered))
        return f"{lengths} s, {sizes}"
    counts = sorted(model["counts"])
    if not counts:
        return "text, pictures and videos"
    numbers = f"{counts[0]}-{counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f"{numbers} pictures, {sizes}" if counts[-1] > 1 else f"1 picture, {sizes}"
