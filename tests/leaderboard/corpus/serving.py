"""Requests to the served site, by other names, for other files, or of no form."""

from corpus.attack import Attack, Bench
from corpus.changes import Act
from corpus.doors import SECRET, served
from corpus.outcome import Outcome

OWN = b"Host: 127.0.0.1:PORT\r\n"
NAME, NOTHING = r"^421 ", r"^404 "


def asked(request: bytes) -> Act:
    """Ask a site of one page, beside which a secret lies, and in which links lead to it."""

    def act(bench: Bench) -> Outcome:
        pages = bench.board / "site"
        (pages / "vendor").mkdir(parents=True)
        (pages / "index.html").write_text("<p>the board</p>")
        (pages / ".hidden").symlink_to("../secret")
        (pages / "up").symlink_to("..")
        (bench.board / "secret").write_text(SECRET)
        return served(pages, request, bench.folder)

    return act


def host(value: bytes) -> Act:
    """The first page, by another name."""
    return asked(b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n")


def address(value: bytes) -> Act:
    return asked(b"GET " + value + b" HTTP/1.1\r\n" + OWN + b"\r\n")


def method(value: bytes) -> Act:
    return asked(value + b" /index.html HTTP/1.1\r\n" + OWN + b"Content-Length: 0\r\n\r\n")


REQUESTS: dict[str, tuple[Act, str]] = {
    "another's name": (host(b"example.org"), NAME),
    "another's name that begins as ours": (host(b"127.0.0.1.example.org"), NAME),
    "another's name that ends as ours": (host(b"example-localhost"), NAME),
    "another's name behind ours": (host(b"localhost@example.org"), NAME),
    "another's name with our port": (host(b"example.org:PORT"), NAME),
    "an address of all machines": (host(b"0.0.0.0:PORT"), NAME),
    "our address as a number": (host(b"2130706433:PORT"), NAME),
    "our address in another form": (host(b"[::ffff:127.0.0.1]:PORT"), NAME),
    "our name with a dot": (host(b"localhost.:PORT"), NAME),
    "our name with words behind": (host(b"localhost:PORT example.org"), NAME),
    "a port of ten digits": (host(b"localhost:1234567890"), NAME),
    "a port in other digits": (host("localhost:\u0661".encode()), NAME),
    "an empty name": (host(b""), NAME),
    "no name": (asked(b"GET / HTTP/1.1\r\n\r\n"), NAME),
    "no name, as in old times": (asked(b"GET / HTTP/1.0\r\n\r\n"), NAME),
    "two names": (asked(b"GET / HTTP/1.1\r\n" + OWN + b"Host: example.org\r\n\r\n"), NAME),
    "a folder up": (address(b"/../secret"), NOTHING),
    "a folder up, from below": (address(b"/vendor/../../secret"), NOTHING),
    "a folder up, encoded": (address(b"/%2e%2e/secret"), NOTHING),
    "a folder up, with its slash encoded": (address(b"/..%2fsecret"), NOTHING),
    "a folder up, encoded twice": (address(b"/%252e%252e/secret"), NOTHING),
    "a folder up, with another slash": (address(b"/..\\secret"), NOTHING),
    "a folder up, with another slash encoded": (address(b"/%2e%2e%5csecret"), NOTHING),
    "a folder up, in overlong bytes": (address(b"/%c0%ae%c0%ae/secret"), NOTHING),
    "a folder up, behind a question": (address(b"/vendor?/../../secret"), NOTHING),
    "a NUL": (address(b"/%00"), NOTHING),
    "a NUL before an ending": (address(b"/index.html%00.png"), NOTHING),
    "half an encoded byte": (address(b"/%e"), NOTHING),
    "bytes that are no text": (address(b"/%ff%fe"), NOTHING),
    "an absolute path": (address(b"//etc/passwd"), NOTHING),
    "a drive": (address(b"/C:/Windows/win.ini"), NOTHING),
    "a whole address": (address(b"http://example.org/index.html"), NOTHING),
    "a file by its scheme": (address(b"file:///etc/passwd"), NOTHING),
    "all of the server": (asked(b"OPTIONS * HTTP/1.1\r\n" + OWN + b"\r\n"), r"^501 "),
    "a link inside": (address(b"/.hidden"), NOTHING),
    "a folder that is a link": (address(b"/up/secret"), NOTHING),
    "the list of a folder": (address(b"/vendor/"), NOTHING),
    "a repository": (address(b"/.git/config"), NOTHING),
    "a path of 4,000 letters": (address(b"/" + b"a" * 4000), NOTHING),
    "a path of 70,000 letters": (address(b"/" + b"a" * 70_000), r"^414 "),
    "a path of 2,000 folders": (address(b"/" + b"a/" * 2000), NOTHING),
    "a method that writes": (method(b"PUT"), r"^501 "),
    "a method that deletes": (method(b"DELETE"), r"^501 "),
    "a form": (method(b"POST"), r"^501 "),
    "a proxy": (asked(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n"), r"^501 "),
    "a method that echoes": (method(b"TRACE"), r"^501 "),
    "a method of no name": (method(b"\x00"), r"^(400|501) "),
    "200 headers": (asked(b"GET / HTTP/1.1\r\n" + OWN + b"X: 1\r\n" * 200 + b"\r\n"), r"^431 "),
    "a header of 70,000 letters": (asked(b"GET / HTTP/1.1\r\n" + OWN + b"X: " + b"1" * 70_000 + b"\r\n\r\n"), r"^431 "),
    "a version to come": (asked(b"GET / HTTP/9.9\r\n" + OWN + b"\r\n"), r"^505 "),
    "a version of no number": (asked(b"GET / HTTP/x\r\n" + OWN + b"\r\n"), r"^400 "),
    "four words": (asked(b"GET / a HTTP/1.1\r\n" + OWN + b"\r\n"), r"^400 "),
}

# An answer to these is the page and nothing else.
HARMLESS = {
    "a part of the page": asked(b"GET / HTTP/1.1\r\n" + OWN + b"Range: bytes=-999999999\r\n\r\n"),
    "a second request in the first": asked(
        b"GET / HTTP/1.1\r\n" + OWN + b"Content-Length: 40\r\n\r\nGET /../secret HTTP/1.1\r\n" + OWN + b"\r\n"
    ),
    "a length below zero": asked(b"GET / HTTP/1.1\r\n" + OWN + b"Content-Length: -1\r\n\r\n"),
    "another page as origin": asked(b"GET / HTTP/1.1\r\n" + OWN + b"Origin: https://example.org\r\n\r\n"),
}

ATTACKS = [
    *(Attack("serve", name, act, said) for name, (act, said) in REQUESTS.items()),
    *(Attack("serve", name, act, ".", refused=False) for name, act in HARMLESS.items()),
]
