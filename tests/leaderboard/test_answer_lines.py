"""Lines that the suite writes are read by a quick reader: it takes what the slow one takes, and nothing else."""

from itertools import product

from msgspec import MsgspecError
from pydantic import ValidationError

from ocl_bench.leaderboard.checks.answers import _REGULAR
from ocl_bench.leaderboard.submission import AnswerLine, SubmittedAnswer, answer_lines, decode_answers

TEXTS = (
    b"red", b"", b"x\\u00e9", b"\xc3\xa9", b"\\ud83d\\ude00", b"\\uD83D\\uDE00", b"\\ud83d", b"\\udc00", b"\\ud83dx",
    b"\\ud83d\\u0041", b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\\u0000", b"\\q", b"\\u12", b"\\/",
    b"\x7f", b"\xef\xbb\xbf",
)  # fmt: skip
STAGES = (b"x1", b"X1", b"x1\\n", b"", b"x\\u0031", b"1x", b"x" * 255, b"x" * 256, b"x-1", b"x1 ", b"\xd9\xa1")
NUMBERS = (
    b"-1.5", b"0", b"-0", b"-0.0", b"-00", b"-007", b"01", b"-1e-05", b"1", b"0.1", b"-1000000", b"-1000000.1",
    b"-0.12345678901234567890", b"-99999999", b"-1e-99",
)  # fmt: skip
CHOICES = (b"", b"0", b"05", b"999999")


def line(
    id: bytes = b"a", stage: bytes = b"x1", logprob: bytes = b"-1", said: bytes = b"red", choice: bytes = b""
) -> bytes:
    end = b', "choice": %b' % choice if choice else b""
    parts = id, stage, logprob, said, end
    return b'{"id": "%b", "stage": "%b", "em_forced": 1, "logprob": %b, "generated": "%b"%b}' % parts


def slowly(text: bytes) -> AnswerLine | None:
    try:
        return AnswerLine(**vars(SubmittedAnswer.model_validate_json(text, strict=True)))
    except ValidationError:
        return None


def quickly(text: bytes) -> AnswerLine | None:
    try:
        (found,) = decode_answers([text])
    except (MsgspecError, ValueError):
        return None
    return found


def test_both_readers_take_the_same_lines_and_read_the_same_in_them() -> None:
    lines = [line(id=one) for one in TEXTS] + [line(said=one) for one in TEXTS] + [line(stage=one) for one in STAGES]
    lines += [line(logprob=number, choice=choice) for number, choice in product(NUMBERS, CHOICES)]
    regular = [one for one in lines if _REGULAR.fullmatch(one)]
    read = {one: (quickly(one), slowly(one)) for one in regular}
    assert {one: both for one, both in read.items() if repr(both[0]) != repr(both[1])} == {}
    taken = sum(first is not None for first, _ in read.values())
    assert 30 < taken < len(read) - 30


def test_what_is_written_is_read() -> None:
    answer = SubmittedAnswer(id="é", stage="x2", em_forced=0, logprob=-0.25, generated='a "b" \\ \u2028', choice=3)
    (found,) = decode_answers(answer_lines([answer]).splitlines())
    assert found == AnswerLine(**vars(answer))
