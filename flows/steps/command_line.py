"""Metaflow's command line, as far as it must be understood before Metaflow is imported."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

FLAGS = {
    *("--quiet", "--not-quiet", "--pylint", "--no-pylint", "--help"),
    *("--force-rebuild-environments", "--no-force-rebuild-environments"),
    *("--follow-resumed", "--no-follow-resumed", "--as-json"),
}
"""Options without a value, before the command and of the commands on cards."""


def command_of(argv: Sequence[str]) -> str:
    """Name the command; "" if there is none. `run` may also be the value of an option, or a tag."""
    return next((argv[place] for place in places_of_words(argv)), "")


def places_of_words(argv: Sequence[str]) -> Iterator[int]:
    """Give the places of all arguments that are no options and no values of options."""
    is_value = False
    for place, word in enumerate(argv[1:], 1):
        is_option = word.startswith("-") and not is_value
        if not is_option and not is_value:
            yield place
        is_value = is_option and "=" not in word and word not in FLAGS


def batch_options(argv: Sequence[str]) -> Namespace:
    """Read `--batch` and `--output-dir`; None for one that is not there."""
    options = ArgumentParser(prog="student_flow.py", add_help=False, allow_abbrev=False)
    options.add_argument("--batch")
    options.add_argument("--output-dir")
    return options.parse_known_args(argv[1:])[0]
