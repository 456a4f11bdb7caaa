"""`dreamery`: the command line. Each command is a thin wrapper around the module that does the work."""

import json
import sys
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from api.cli.account_proof import PROVE_EXAMPLE, accounts_prove
from api.cli.accounts import accounts_app
from api.cli.admin import audit_app, keys_app, users_app
from api.cli.api_client import Client, ClientError, Json, accepted_jobs, save_results, wait_for_jobs
from api.cli.batches import batches_app
from api.cli.credits import prices_app
from api.cli.display.help_panels import CommandsInPanels, put_into_panels
from api.cli.display.output import SANDBOX_KEY, JsonOption, KeyOption, UrlOption, platform_client
from api.cli.display.progress_bars import add_job_bars, job_progress
from api.cli.jobs import jobs_app
from api.cli.mcp.command import MCP_EXAMPLE, serve_mcp
from api.cli.models import MODELS_EXAMPLE, show_models
from api.cli.operator.alerts import alerts_app
from api.cli.operator.backup import backup, restore, take_storage
from api.cli.operator.drain import drain, workers
from api.cli.operator.healthcheck import health_app
from api.cli.operator.rotate_master_key import rotate_master_key
from api.cli.operator.run_role import run_app
from api.cli.usage import USAGE_EXAMPLE, show_usage

app = typer.Typer(cls=CommandsInPanels, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.add_typer(jobs_app, name="jobs")
app.add_typer(batches_app, name="batches")
app.add_typer(users_app, name="users")
app.add_typer(keys_app, name="keys")
accounts_app.command("prove", epilog=PROVE_EXAMPLE)(accounts_prove)
app.add_typer(accounts_app, name="accounts")
app.add_typer(audit_app, name="audit")
app.add_typer(alerts_app, name="alerts")
app.add_typer(prices_app, name="prices")
app.command(epilog="Example: DREAMERY_MASTER_KEY=NEW,OLD dreamery rotate-master-key")(rotate_master_key)
app.command("backup", epilog="Example: dreamery backup /srv/backups --with-files --with-keys")(backup)
app.command("restore", epilog="Example: dreamery restore /srv/backups/dreamery-20261125-030000.zip")(restore)
app.command("take-storage", epilog="Example: dreamery take-storage")(take_storage)
app.command("drain", epilog="Example: dreamery drain --reason upgrade --wait, later: dreamery drain --off")(drain)
app.command("workers", epilog="Example: dreamery workers --json")(workers)
app.add_typer(health_app, name="health")
app.add_typer(run_app, name="run")
app.command("usage", epilog=USAGE_EXAMPLE)(show_usage)
app.command("models", epilog=MODELS_EXAMPLE)(show_models)
app.command("mcp", epilog=MCP_EXAMPLE)(serve_mcp)


def _print_version(enabled: bool) -> None:  # noqa: FBT001 - the signature that typer calls
    if enabled:
        from importlib.metadata import version

        print(version("dreamery"))
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Dreamery: a self-hosted generation platform on your own upstream accounts."""


_DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Data folder; default ./data.")]


class _ProfileName(StrEnum):
    small = "small"
    standard = "standard"


class _Start(StrEnum):
    on_demand = "on-demand"
    at_start = "at-start"


_START_HELP = "Start it at the first connection or at once; default on-demand."


@app.command(epilog="Example: dreamery up --port 9000 --data-dir /srv/dreamery")
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the API; default 8000.")] = None,
    data_dir: _DataDirOption = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    profile: Annotated[
        _ProfileName | None, typer.Option(help="Pools and caches for little memory, or not; default by memory.")
    ] = None,
    flower: Annotated[_Start | None, typer.Option(help=f"Flower: {_START_HELP}")] = None,
    sandbox: Annotated[_Start | None, typer.Option(help=f"The sandbox: {_START_HELP}")] = None,
    *,
    no_flower: Annotated[bool, typer.Option("--no-flower", help="Never start Flower.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the logs of all processes.")] = False,
    container: Annotated[
        bool,
        typer.Option("--container", help="As in a container: print all logs, the key once, and use the port in PORT."),
    ] = False,
    die_with_parent: Annotated[bool, typer.Option("--die-with-parent", hidden=True)] = False,
) -> None:
    """Run the whole platform on this machine until Ctrl-C: servers, API, worker with scheduler, sandbox, Flower."""
    from api.cli.operator import container as container_start
    from api.cli.operator.run_platform import replace_this_process
    from worker.core.security import configuration
    from worker.core.security.session_tokens import demo_tokens
    from worker.local.platform_settings import PlatformOptions, read_platform_settings

    options = PlatformOptions(
        data_dir=data_dir,
        host=host,
        port=port,
        workers=workers,
        profile=profile and profile.value,
        flower="never" if no_flower or (container and flower is None) else flower and flower.value.replace("-", "_"),
        sandbox=sandbox and sandbox.value.replace("-", "_"),
        verbose=verbose or container,
        own_tmp=container,
    )
    configuration.warn_about_names()
    settings = read_platform_settings(throwaway=False, profile=options.profile)
    if container:
        options = replace(options, port=port or container_start.port_of_host(settings))
        container_start.leave_root(data_dir or Path(settings.data_dir))
    replace_this_process(options, settings, die_with_parent=die_with_parent, sandbox_keys=demo_tokens())


@app.command(epilog="Example: dreamery demo --out results")
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out"),
    *,
    die_with_parent: Annotated[bool, typer.Option("--die-with-parent", hidden=True)] = False,
) -> None:
    """Start a temporary platform, generate images and a video with the sandbox, save them, stop everything."""
    from api.cli.demo import run_demo

    run_demo(out, die_with_parent=die_with_parent)


@app.command(epilog="Example: DREAMERY_DATABASE_URL=postgresql://user:pw@db/dreamery dreamery migrate")
def migrate(
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Only wait until another process has upgraded the schema.")
    ] = False,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="With --wait: timeout in seconds.")] = 300,
    as_json: JsonOption = False,
) -> None:
    """Upgrade the database schema to the newest version. A schema of a later version is not changed."""
    from api.cli.operator.doctor import adopt_running_platform, upgrade_schema, wait_for_schema

    adopt_running_platform()
    revision = wait_for_schema(seconds) if wait else upgrade_schema()
    print(json.dumps({"revision": revision}) if as_json else f"The schema is at {revision}.")


@app.command(epilog="Example: dreamery doctor --settings")
def doctor(
    *,
    settings: Annotated[bool, typer.Option("--settings", help="List all settings instead of checking.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="With --settings: print docs/configuration.md.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check settings, database, Redis, workers, clock, disk and accounts, with a hint for each failure."""
    from api.cli.operator.doctor import adopt_running_platform, list_settings, print_report, print_settings, run_checks
    from api.cli.operator.settings_reference import settings_reference

    if settings and markdown:
        print(settings_reference(), end="")
        return
    adopt_running_platform()
    if settings:
        listed = list_settings()
        print(json.dumps({"data": listed}, indent=2)) if as_json else print_settings(listed)
        return
    findings = run_checks()
    if as_json:
        print(json.dumps({"data": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print_report(findings)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command(
    epilog='Example: dreamery generate "a lighthouse at dawn" --size 2048x2048 -n 2, or '
    'dreamery generate "waves roll ashore" --video'
)
def generate(
    prompt: Annotated[str, typer.Argument(help="Description of the image or video.")],
    model: Annotated[str | None, typer.Option(help="Model; default: the server's default model.")] = None,
    size: Annotated[str | None, typer.Option(help="Size as WIDTHxHEIGHT.")] = None,
    count: Annotated[int | None, typer.Option("-n", min=1, max=32, help="Number of results.")] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out"),
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    video: Annotated[bool, typer.Option("--video", help="Generate videos.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Generate images (with --video: videos), show the progress and save the files."""
    fields = {"prompt": prompt, "model": model, "size": size, "n": count}
    body = {name: value for name, value in fields.items() if value is not None} | {"async": True}
    client = platform_client(url, key)
    try:
        saved = _generate(client, body, out, video=video)
    except ClientError as error:
        if key or error.code != "no_account_available" or client.key == SANDBOX_KEY:
            raise
        Console(stderr=True).print(f"No account is available yet ({error}) Using the sandbox.", style="yellow")
        saved = _generate(Client(client.url, SANDBOX_KEY), body, out, video=video)
    if as_json:
        print(json.dumps({"data": [{**item, "path": str(file)} for file, item in saved]}, indent=2))
        return
    for file, _item in saved:
        print(file)


def _generate(client: Client, body: Json, out: Path, *, video: bool) -> list[tuple[Path, Json]]:
    response = client.post("/v1/videos/generations" if video else "/v1/images/generations", body)
    jobs = accepted_jobs(response)
    with job_progress(Console(stderr=True)) as bar:
        show = add_job_bars(bar, jobs)
        return save_results(client, wait_for_jobs(client, jobs, show), out)


put_into_panels(app)


def main() -> None:
    """Run the command line. Expected failures print one message instead of a traceback."""
    from pydantic import ValidationError

    from worker.local.processes import StartError

    try:
        app(prog_name="dreamery")
    except (StartError, ClientError) as error:
        sys.exit(_fail(str(error)))
    except ValidationError as error:
        problems = "; ".join(f"DREAMERY_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        sys.exit(_fail(f"A setting has an invalid value. {problems}. `dreamery doctor --settings` lists all settings."))


def _fail(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
