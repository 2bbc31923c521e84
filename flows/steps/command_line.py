"""Metaflow's command line, as far as it must be understood before Metaflow is imported."""

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
