"""What the commands and the scheduler share: no more than a command can load quickly."""

from collections.abc import Sequence

SOCKET = "mbatchd.sock"
DOWN = "down.json"  # there while mbatchd is out of reach
CALLS = "calls.jsonl"

WITH_VALUE = frozenset(
    [
        "G",
        "J",
        "M",
        "P",
        "R",
        "W",
        "app",
        "cwd",
        "e",
        "env",
        "eo",
        "gpu",
        "i",
        "m",
        "n",
        "o",
        "oo",
        "q",
        "sla",
    ]
)
FLAGS = frozenset(["B", "K", "N", "Zs", "r", "rn", "x"])

Options = dict[str, list[str]]


class Refused(Exception):  # noqa: N818 - an answer, not a failure of the emulator
    """What a command says on standard error when it exits 255."""


def split(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Options by name, each with its values, and the words of the command.

    Raises: Refused for an option that bsub does not know.
    """
    options: Options = {}
    words = list(argv)
    while words and words[0].startswith("-") and words[0] != "-":
        name = words.pop(0)[1:]
        if name in FLAGS:
            options.setdefault(name, []).append("")
        elif name in WITH_VALUE and words:
            options.setdefault(name, []).append(words.pop(0))
        else:
            raise Refused(f"bsub: illegal option -- {name}\nUsage: bsub [options] command\n")
    return options, words
