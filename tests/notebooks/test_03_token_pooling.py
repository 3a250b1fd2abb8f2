"""The notebook shows shapes, maps, filters, the trap of even sides and the dilated form."""

import pytest
from executed import execute, execute_in_a_kernel


def check(shown):
    for line in (
        "stage 1: (1, 27, 27, 64)",
        "stage 2: (1, 14, 14, 128)",
        "stage 3: (1, 7, 7, 256)",
        "(1, 1, 64) -> (1, 1, 128)",
        "(3, 3, 128, 2)",
        "from 27 to 14: the same numbers? True",
        "from 14 to 7: the same numbers? False",
        "stage 3: (1, 14, 14, 256)",
        "stride 1, dilation 2",
    ):
        assert line in shown.text
    assert [picture.size for picture in shown.pictures] == [(1200, 1020)] * 2


def test_it_runs_and_shows_what_it_says(tmp_path):
    check(execute("03_token_pooling", tmp_path, epochs=2))


@pytest.mark.slow
def test_in_a_kernel_it_shows_the_same(tmp_path):
    check(execute_in_a_kernel("03_token_pooling", tmp_path))
