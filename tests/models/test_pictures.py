"""Pixels are those that a record says, the same on every machine; scans of tests are in no training."""

import pytest
import torch
from pydantic import ValidationError

from ocl_bench.models.pictures import Album, Shown, _hashed, pixels, scans
from ocl_bench.tasks.pictures import Picture

GRID = {"maker": "digit_grid", "scans": "digits", "rows": 2, "columns": 3}


def picture(**fields: object) -> Picture:
    return Picture(**{**GRID, "digits": "314159", **fields})


def shown(*pictures: Picture, draw: int = 0) -> torch.Tensor:
    album = Album(pictures)
    return pixels([Shown(album, number, draw) for number in range(len(pictures))])


def test_a_picture_has_its_tag_above_its_digits_and_a_border_around_the_one_that_is_asked_about() -> None:
    tag = "110100000000011"
    (plain,), (tagged,), (asked,) = shown(picture(seed=7), picture(seed=7, tag=tag), picture(seed=7, cell=4))
    assert plain.shape == (22, 30) and plain.min() >= 0 and plain.max() <= 1
    assert tagged[0].tolist() == tagged[1].tolist() == [float(square) for square in tag for _ in range(2)]
    assert torch.equal(tagged[2:], plain[2:]) and plain[:2].max() == 0
    border = (asked != plain).nonzero()
    rows, columns = border[:, 0], border[:, 1]
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 21, 10, 19)  # row 1, column 1
    assert len(border) == 36 and (asked[rows, columns] == 1).all()


def test_every_digit_stands_in_its_cell() -> None:
    found = shown(*(picture(digits=digit * 6, seed=3) for digit in "0123456789"))
    for digit, own in enumerate(found):
        pool = scans("digits", test=True)
        start, count = int(pool.starts[digit]), int(pool.counts[digit])
        known = {tuple(image.flatten().tolist()) for image in pool.images[start : start + count]}
        for row in range(2):
            for column in range(3):
                cell = own[0, 3 + 10 * row : 11 + 10 * row, 1 + 10 * column : 9 + 10 * column]
                assert tuple(cell.flatten().tolist()) in known


def test_no_scan_is_in_training_and_in_tests_and_each_is_in_one() -> None:
    from sklearn.datasets import load_digits

    pools = [scans("digits", test) for test in (False, True)]
    images = [{tuple(one.flatten().tolist()) for one in pool.images} for pool in pools]
    assert not images[0] & images[1]
    assert sum(len(pool.images) for pool in pools) == len(load_digits().target)
    assert all(int(pool.counts.min()) >= 30 for pool in pools)


def test_a_seed_of_its_own_decides_a_tests_scans_and_the_draw_those_of_training() -> None:
    test, train = picture(seed=5), picture()
    assert torch.equal(shown(test, draw=1), shown(test, draw=2))
    assert not torch.equal(shown(test), shown(picture(seed=6)))
    assert torch.equal(shown(train, draw=1), shown(train, draw=1))
    assert not torch.equal(shown(train, draw=1), shown(train, draw=2))


def test_the_hash_is_splitmix64() -> None:
    # The first numbers of its generator from seed 0, as its authors' program prints them.
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert _hashed(torch.arange(3)).tolist() == [number >> 2 for number in first]
    counts = torch.bincount(_hashed(torch.arange(100_000)) % 10)
    assert counts.min() > 9_600 and counts.max() < 10_400


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"digits": "3141"}, "there are 4, and 6 cells"),
        ({"digits": "31415a"}, "digits"),
        ({"tag": "0101"}, "there are 4 squares; give 15"),
        ({"cell": 6}, "is 6; there are 6 cells"),
        ({"scans": "letters"}, "scans"),
    ],
)
def test_a_picture_that_cannot_be_made_is_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        picture(**fields)
