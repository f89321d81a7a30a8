"""The Typer application, and the parameters that several commands share."""

from typing import Annotated

import typer

from service.cli.finding import find_job

app = typer.Typer(
    name="stillhouse",
    help="Distil large networks into small ones, on GPUs that a team shares.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id, job_…, the beginning of it, or its name.", callback=find_job)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SpecFile = Annotated[str, typer.Argument(metavar="SPEC", help="A YAML or JSON file; - reads standard input.")]
