"""Post standard input to a webhook, whose address is on line one. Without more lines, call it only.

A program of its own: name look-ups and a server that answers a byte at a time have no other limit,
and an idle daemon does without the megabytes of HTTP. It is started by its path, so that it imports
nothing else of ds-flow. An address is a secret, so it is no argument.
"""

import sys
from http.client import HTTPException
from typing import IO
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

MIME_TYPE = "application/json"


class NoRedirects(HTTPRedirectHandler):
    """Take a redirect for the failure that it is: the request after one would not be a POST."""

    def redirect_request(self, *_: object) -> None:
        return None


def no_redirects() -> OpenerDirector:
    """Open addresses without following redirects."""
    return build_opener(NoRedirects)


def post(text: IO[str], token: str | None = None) -> None:
    """Post everything after the first line to the address in it; if that is nothing, get it.

    A token goes into the header Authorization.

    Raises OSError, ValueError or HTTPException if it is not accepted.
    """
    address, body = text.readline().strip(), text.read()
    asked = Request(address, headers={"User-Agent": "ds-flow"})  # noqa: S310 - http or https, says the setting
    if body:
        asked.data = body.encode()
        asked.add_header("Content-Type", MIME_TYPE)
    if token:
        asked.add_header("Authorization", f"Bearer {token}")
    no_redirects().open(asked).close()


if __name__ == "__main__":
    try:
        post(sys.stdin)
    except (OSError, ValueError, HTTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
