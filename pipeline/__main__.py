"""Entry point of the `pipeline` command and of `python -m pipeline`."""

import os
import sys
from itertools import pairwise

from pipeline.cli import app
from pipeline.command import LOG_FORMAT_VARIABLE, logs_as


def main() -> None:
    """Run the command line."""
    if not _json_is_wanted(sys.argv[1:]):
        app()
        return
    with logs_as("json"):
        sys.exit(_run())


def _run() -> int:
    """The same where a collector reads along: what is wrong with the usage is one object, too."""
    try:
        return int(app(standalone_mode=False) or 0)
    except Exception as error:
        code = getattr(error, "exit_code", None)  # of the usage errors of click, or of typer's own copy of it
        if not isinstance(code, int) or not hasattr(error, "format_message"):
            raise
        from pipeline.console import error_line

        error_line(error.format_message(), code)
        return code


def _json_is_wanted(arguments: list[str]) -> bool:
    """Whether standard error is lines of JSON: known before the rest is read, which may be wrong."""
    asked = [value for option, value in pairwise(arguments) if option == "--log-format"]
    asked += [argument.partition("=")[2] for argument in arguments if argument.startswith("--log-format=")]
    return (asked[-1] if asked else os.environ.get(LOG_FORMAT_VARIABLE)) == "json"


if __name__ == "__main__":
    main()
