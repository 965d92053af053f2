"""What readers of the board get to see does nothing: no markup, link, script or unseen character of a submitter's."""

import re
import unicodedata
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path

OF_RECORDS = {"<b >", "<p >", "<p class>", "<p role>"}  # what a page says of a revocation
HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
LINK = re.compile(r"(?<!\\)(?<!\\\\)!?\[[^\]]*\]\(([^)]*)\)")
OWN = re.compile(r"results/[a-z0-9_]+/[\w.-]+/[\w-]+|\.\./docs/\w+\.md[\w#-]*|[A-Z]+\.md[\w#-]*|site/[\w.-]*")


def complaints(path: Path, like: Path | None) -> list[str]:
    """What is not inert in a page, or in README.md.

    Args:
        path: the page.
        like: the same page of an honest board, whose elements and attributes are the only ones there may be.
    """
    text = path.read_bytes().decode("utf-8", "replace")
    found = [f"{path.name}: holds U+{ord(char):04X}" for char in sorted(set(text)) if hides(char)]
    if path.suffix == ".md":
        return found + _markdown(text, like.read_text() if like else "")
    allowed = elements(like.read_text()) | OF_RECORDS if like else OF_RECORDS
    return found + [f"{path.name}: has {one}" for one in sorted(elements(text) - allowed)]


def hides(char: str) -> bool:
    """Whether a character is not seen, or moves others."""
    return char != "\n" and unicodedata.category(char) in HIDDEN


def _markdown(text: str, like: str) -> list[str]:
    own = set(LINK.findall(like))
    links = [link for link in LINK.findall(text) if link not in own and not OWN.fullmatch(link)]
    found = [f"README.md: links to {link}" for link in links]
    table = 0
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line))
        if line.startswith("|") and table and cells != table:
            found.append(f"README.md: a row of {cells} bars, not {table}")
        table = cells if line.startswith("|") else 0
        plain = re.sub(r"\\.", "", line)
        if re.search(r"<[a-zA-Z!/]", plain):
            found.append("README.md: holds an element")
    return found


@lru_cache(maxsize=64)
def elements(text: str) -> frozenset[str]:
    """Every element with its attributes' names, and where it leads."""
    reader = _Reader()
    reader.feed(text)
    return frozenset(reader.found)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in [("", ""), *attrs]:
            shown = f"<{tag} {name}>"
            if name in ("href", "src", "action") and re.match(r"\s*[a-zA-Z][\w+.-]*:|//", value or ""):
                shown = f"<{tag} {name}={value}>"
            self.found.add(shown)
