"""docs.py: build the site in build/docs, strictly, and see that reading it asks no other host.

Links to other hosts are for people. They are listed in build/docs/links.txt and not followed.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SITE = CHECKOUT / "build/docs"
ENTRY = """\
<!doctype html><meta charset="utf-8"><title>ds-flow</title>
<meta http-equiv="refresh" content="0; url=docs/index.html"><a href="docs/index.html">ds-flow</a>
"""
OF_LINKS = ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload")
OUTSIDE = ("http:", "https:", "//")


class Requests(HTMLParser):
    """What a browser asks for by itself to show a page, and the links that a person may follow."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(words.get("href", ""))
        elif tag != "link":
            self.asked += [words[name] for name in ("src", "srcset", "poster") if name in words]
        elif any(kind in words.get("rel", "") for kind in OF_LINKS):
            self.asked.append(words.get("href", ""))


def outside(addresses: Sequence[str]) -> list[str]:
    return [address for address in addresses if address.strip().startswith(OUTSIDE)]


def links(site: Path) -> list[str]:
    """The links to other hosts in all pages."""
    seen = Requests()
    for page in site.rglob("*.html"):
        seen.feed(page.read_text(encoding="utf-8"))
    return sorted(set(outside(seen.links)))


def faults(site: Path) -> Iterator[str]:
    """Each request to another host that a page or a style would make."""
    for page in sorted(site.rglob("*.html")):
        seen = Requests()
        seen.feed(page.read_text(encoding="utf-8"))
        yield from (f"{page.relative_to(site)}: {address}" for address in outside(seen.asked))
    for style in sorted(site.rglob("*.css")):
        for part in style.read_text(encoding="utf-8").replace("@import", "url(").split("url(")[1:]:
            yield from (
                f"{style.relative_to(site)}: {address}"
                for address in outside([part.lstrip(" \"'").split(")")[0]])
            )


def main() -> None:
    words = ["-q", "-E", "-W", "--keep-going", "-n", "-j", "auto", "-c", "docs", ".", str(SITE)]
    build = Path(sys.executable).with_name("sphinx-build")
    if subprocess.run([build, *words], cwd=CHECKOUT, check=False).returncode:
        sys.exit("docs: the site has faults, see above")
    (SITE / "index.html").write_text(ENTRY, encoding="utf-8")
    (SITE / "links.txt").write_text("".join(f"{link}\n" for link in links(SITE)), encoding="utf-8")
    if found := list(faults(SITE)):
        sys.exit("\n".join(["docs: reading the site would ask other hosts:", *found]))


if __name__ == "__main__":
    main()
