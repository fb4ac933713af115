"""Entry point of `reverie`: finds the command, imports it, and turns errors into sentences."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import reverie
from reverie.errors import ReverieError

COMMANDS = {
    "train": "train an agent, or resume a run that was interrupted",
    "evaluate": "play episodes with a trained agent and print their returns",
    "watch": "let a trained agent play, in a video or in a window",
    "dream": "write a video of what the world model predicts, beside what happened",
    "plot": "draw learning curves of one run or many",
    "bench": "time one update on this machine, phase by phase",
    "check": "say what an agent will meet in an environment, and what a run will cost",
    "envs": "list environments that can be used here",
}

SPIN_COUNT = "20000"
"""How often an OpenMP thread looks for work before it sleeps; GNU OpenMP reads it when PyTorch is imported. With its
own 300,000 an update took more than ten times as long on cores that other programs used; with this, a twentieth longer
on idle ones."""

HELP = """reverie {version}: agents that learn a world model and learn to act by imagining in it

usage: reverie COMMAND [options]          reverie COMMAND --help for the options of a command

commands:
{commands}

examples:
  reverie train dreamer-v3 --env CartPole-v1
  reverie train dreamer-v3 --env Pendulum-v1 --seed 3
  reverie evaluate runs/CartPole-v1/dreamer-v3/0
  reverie watch runs/CartPole-v1/dreamer-v3/0
  reverie dream runs/CartPole-v1/dreamer-v3/0
  reverie plot runs/*/*/*
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± gets a question mark
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        listing = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
        print(HELP.format(version=reverie.__version__, commands=listing))
        return 0
    if words[0] == "--version":
        print(reverie.__version__)
        return 0
    if words[0] not in COMMANDS:
        close = difflib.get_close_matches(words[0], COMMANDS, 1, 0.4)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(COMMANDS)}"
        return _fail(f"there is no command {words[0]!r}; {hint}")
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return importlib.import_module(f"reverie.cli.{words[0]}").main(words[1:])
    except ReverieError as error:
        if os.environ.get("REVERIE_TRACEBACK"):
            traceback.print_exc()
        return _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"the system refused to read or write ({where}{error.strerror or error}); fix that and try again")
    except (MemoryError, OverflowError, RuntimeError) as error:
        if not isinstance(error, MemoryError | OverflowError) and "memory" not in str(error):
            raise
        if os.environ.get("REVERIE_TRACEBACK"):
            traceback.print_exc()
        reason = str(error).strip().partition("\n")[0]
        return _fail(f"this takes more memory than there is ({reason or type(error).__name__}); give smaller numbers")
    except KeyboardInterrupt:
        return 130


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"reverie: warning: {message}", file=sys.stderr)


def _fail(sentence: str) -> int:
    print(f"reverie: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
