"""The board's changelog: what was added, verified, revoked or removed, and when, as the history of git has it.

Only the branch's own line of commits counts: a date is that of the merge, not one that a submitter chose, and what came
and went inside a pull request was never on the board.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ocl_bench.files import write_atomic
from ocl_bench.leaderboard.git import GitFailed, ask, blobs, is_shallow, sizes
from ocl_bench.leaderboard.untrusted import Unreadable, parse_json

MAX_RECORD_BYTES = 64 * 2**10
MAX_SHOWN = 300  # characters of a reason

_FILE = re.compile(
    r"(?P<area>results|records)/(?P<place>[A-Za-z0-9_]+/[A-Za-z0-9._-]+__[A-Za-z0-9._-]+/[A-Za-z0-9._-]+)"
    r"/(?P<file>submission|verification|revocation)\.json"
)
_WHAT = {
    ("submission", "A"): "added",
    ("submission", "M"): "changed",
    ("submission", "D"): "removed",
    ("verification", "A"): "verified",
    ("verification", "M"): "verified",
    ("verification", "D"): "verification withdrawn",
    ("revocation", "A"): "revoked",
    ("revocation", "M"): "revoked",
    ("revocation", "D"): "revocation withdrawn",
}
_SAYS = {"verified": "level", "revoked": "reason"}  # the key of the record that is shown

HEADER = """# Changelog of the leaderboard

Made by `ocl-bench leaderboard build` from the history of git; do not edit. Dates are those of the commits on the
branch, in UTC.
"""


@dataclass(frozen=True)
class Change:
    """One change of the board.

    Attributes:
        date: of the commit, in UTC.
        what: added, changed, removed, verified, revoked, …
        place: `<task>/<org>__<model>/<revision>` of the entry.
        says: a verification's level, or a revocation's reason.
    """

    date: str
    what: str
    place: str
    says: str = ""

    @property
    def name(self) -> str:
        """Task, model and revision."""
        task, model, revision = self.place.split("/")
        return f"{task}: {model.replace('__', '/', 1)}, {revision}"


def changes(leaderboard: Path) -> list[Change]:
    """What happened to the entries below a leaderboard's folder, the latest first.

    Raises:
        GitFailed: if the folder lies in no repository, or in one without its whole history.
    """
    if is_shallow(leaderboard):
        raise GitFailed(f"{leaderboard}: the history of git is cut off; complete it with git fetch --unshallow.")
    found = [one for one in _touched(leaderboard) if (one.file, one.letter) in _WHAT]
    texts = _texts(leaderboard, [one for one in found if one.letter != "D" and one.file != "submission"])
    return [
        Change(one.date, what := _WHAT[one.file, one.letter], one.place, _said(texts.get(one.blob), _SAYS.get(what)))
        for one in found
    ]


def markdown(found: Sequence[Change]) -> str:
    """The changelog as Markdown."""
    parts = [HEADER]
    for date in dict.fromkeys(one.date for one in found):
        lines = [f"- {one.what}: {_plain(one.name)}{_behind(one)}\n" for one in found if one.date == date]
        parts.append(f"## {date}\n\n{''.join(lines)}")
    return "\n".join(parts if found else [*parts, "Nothing yet.\n"])


def rows(found: Sequence[Change]) -> list[dict[str, str]]:
    """What the page shows of each change, as plain text: date, what, entry, the entry's page, what a record says."""
    return [
        {"date": one.date, "what": one.what, "entry": one.name, "slug": one.place.replace("/", "-"), "says": one.says}
        for one in found
    ]


def write_changelog(leaderboard: Path) -> str | None:
    """Write CHANGELOG.md, and changelog.html into the site, which exists; without git, the former one stays.

    Args:
        leaderboard: the folder that holds `results`.

    Returns:
        Why there is no new one; None if there is.
    """
    try:
        found: list[Change] | None = changes(leaderboard)
        reason = None
    except GitFailed as error:
        found, reason = None, str(error)
    if found is not None:
        write_atomic(leaderboard / "CHANGELOG.md", markdown(found))
    write_atomic(leaderboard / "site" / "changelog.html", _page(leaderboard / "site", found))
    return reason


@dataclass(frozen=True)
class _Touched:
    date: str
    letter: str
    place: str
    file: str
    blob: str


def _touched(leaderboard: Path) -> Iterator[_Touched]:
    """Every change of a file that says something of an entry, the latest first."""
    # --diff-merges: a merge is compared with the branch that it was made on, so that it is the moment of a change.
    answer = ask(
        leaderboard, "log", "--first-parent", "--diff-merges=first-parent", "--no-renames", "--no-ext-diff",
        "--no-textconv", "--no-notes", "--no-color", "--raw", "--no-abbrev", "-z", "--relative", "--format=%x00%ct",
        "HEAD", "--", "results", "records",
    )  # fmt: skip
    date, tokens = "", iter(answer.decode(errors="surrogateescape").split("\0"))
    for token in tokens:
        described = token.lstrip("\n")
        if described.isdigit():
            date = datetime.fromtimestamp(min(int(described), 2**37), UTC).strftime("%Y-%m-%d")
        elif described.startswith(":"):
            path, (_, _, _, blob, letter) = next(tokens), described.split(" ")
            if match := _FILE.fullmatch(path):
                in_results = match["file"] == "submission"
                if in_results == (match["area"] == "results"):
                    yield _Touched(date, letter[:1], match["place"], match["file"], blob)


def _texts(leaderboard: Path, found: Sequence[_Touched]) -> dict[str, bytes]:
    """Blob → content of each record that is not too large."""
    names = list(dict.fromkeys(one.blob for one in found))
    small = [name for name, size in zip(names, sizes(leaderboard, names), strict=True) if size <= MAX_RECORD_BYTES]
    return dict(zip(small, blobs(leaderboard, small, MAX_RECORD_BYTES * len(small)), strict=True))


def _said(text: bytes | None, key: str | None) -> str:
    """A text of a record on one line, shortened; empty if there is none that can be read."""
    if text is None or key is None:
        return ""
    try:
        value = parse_json(text)
    except Unreadable:
        return ""
    said = value.get(key) if isinstance(value, dict) else None
    if not isinstance(said, str):
        return ""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(said.split()))
    return line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN - 3]}..."


def _behind(one: Change) -> str:
    return f" ({_plain(one.says)})" if one.says else ""


def _plain(text: str) -> str:
    """Text that Markdown takes as it is, whatever it holds: no mark, tag, address or mention."""
    marked = re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", text.replace("&", "&amp;"))
    for char, spelled in (("<", "&lt;"), (">", "&gt;"), ("@", "&#64;"), ("://", "&#58;//"), ("www.", "www&#46;")):
        marked = marked.replace(char, spelled)
    return marked


def _page(site: Path, found: Sequence[Change] | None) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    shown = None if found is None else rows(found)
    pages = {path.stem for path in site.glob("*.html")}
    return environment.get_template("changelog.html").render(rows=shown, pages=pages)
