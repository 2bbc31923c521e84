"""Numbers with their nouns, as people read them."""


def counted(count: int, noun: str) -> str:
    """Write a number with its noun, in the plural unless it is 1."""
    return f"{count} {noun}{'s' * (count != 1)}"
