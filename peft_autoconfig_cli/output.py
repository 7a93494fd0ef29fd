"""What commands write: one JSON value or text on stdout, all else on stderr, and an exit code.

0    done
1    refused, for the reason in the line "error: ..."
2    the command line itself is wrong
130  interrupted
"""

import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

__all__ = ["INTERRUPTED", "REFUSED", "AsJson", "reports_errors", "table", "write"]

REFUSED, INTERRUPTED = 1, 130
INTERRUPTED_TEXT = "\nInterrupted. What is finished is kept; the same command goes on from there."

AsJson = Annotated[
    bool, typer.Option("--json", help="Write one JSON value to stdout instead of text.")
]


def write(value: Any, text: str, *, as_json: bool) -> None:
    """Writes a result to stdout.

    Args:
        value: The result as JSON-compatible values.
        text: The same for people.
        as_json: Which of the two.
    """
    print(json.dumps(value, indent=2, allow_nan=False) if as_json else text)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command with expected errors as one line and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **values: Any) -> None:
        try:
            command(*args, **values)
        except KeyboardInterrupt:
            print(INTERRUPTED_TEXT, file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
            sys.stderr.close()
            raise typer.Exit(REFUSED) from None
        except Exception as error:
            from peft_autoconfig.errors import AutoConfigError

            if not isinstance(error, AutoConfigError):
                raise
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(REFUSED) from None

    return wrapped


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns line up; all but the last column to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells[:-1], widths, strict=False)]
        return f"| {' | '.join([*padded, cells[-1].ljust(widths[-1])])} |"

    rule = [f"{'-' * (width - 1)}:" for width in widths[:-1]] + ["-" * widths[-1]]
    return "\n".join([line(header), line(rule), *map(line, rows)])
