"""The study runs: its tables have as many cells as headings, and its plot is well-formed."""

from xml.etree import ElementTree

from tests.study import quality_study as study
from tests.study.plot import Curve


def test_each_row_of_the_tables_is_whole() -> None:
    assert {len(row) for row in study.noise_rows()} == {10}
    assert {len(row) for row in study.nvfp4_rows()} == {11}
    assert {len(row) for row in study.gpu_rows()} == {6}


def test_the_plot_is_well_formed() -> None:
    picture = study.plot(Curve((1.25, 5.0, 40.0), (60.0, 3.0, 1.0), (150.0, 4.0, 2.0)))
    root = ElementTree.fromstring(picture)
    assert sum(element.tag.endswith("circle") for element in root.iter()) == 5
