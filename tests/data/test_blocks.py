"""Blocks hold every row once, in order."""

from __future__ import annotations

import pytest

from budwood.data.blocks import split_blocks


@pytest.mark.parametrize(("n", "sizes"), [(0, []), (1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4])])
def test_every_row_is_in_one_block(n: int, sizes: list[int]) -> None:
    rows = list(range(n))
    blocks = [rows[block] for block in split_blocks(n, 4)]
    assert [len(block) for block in blocks] == sizes
    assert [row for block in blocks for row in block] == rows
