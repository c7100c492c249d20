"""The part of a section that compares image by image: blocks of words and tables, for every format."""

from collections.abc import Sequence
from typing import NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.images import pairs
from launch.report.analysis.images.answers import read_test_set
from launch.report.analysis.images.pairs import ImagePair
from launch.report.analysis.metrics import METRICS, Metric
from launch.report.analysis.tables import MOST_IN_MATRIX, Table
from launch.report.analysis.verdicts import MOST_SENTENCES, Pair

ABOUT_PAIRS = (
    "McNemar's exact test asks, seed by seed, whether two trained networks differ on images like these (p < 0.05 after "
    "Holm's correction for the seeds of a pair). Answers of two architectures on a shared seed differ because of the "
    "architecture and of the seed: compare with two seeds of one architecture. The interval over seeds says what other "
    "seeds would give on these test images; the one over images says what these networks would give on other images of "
    "the same kind (perturbations of one image count as one). A claim on architectures needs both"
)


class Block(NamedTuple):
    """A heading with what stands under it."""

    title: str
    lines: list[str]
    table: Table | None
    name: str
    """The class of its table on the page."""
    about: str


class Images(NamedTuple):
    """What a section says image by image."""

    notes: list[str]
    """What could not be read, and why."""
    blocks: list[Block]
    pairs: list[ImagePair]


NONE = Images([], [], [])


def compare_by_image(cells: Sequence[Cell], verdicts: Sequence[Pair], metric: Metric = METRICS[0]) -> Images:
    """Compare the architectures of one data set image by image, where their runs have kept answers."""
    test, notes = read_test_set(cells)
    if test is None or not test.cells:
        return NONE._replace(notes=notes)
    compared = pairs.compare_images(test) if len(test.cells) <= MOST_IN_MATRIX else []
    blocks = []
    if compared:
        words = pairs.sentences(compared, MOST_SENTENCES)
        table = pairs.image_table(compared, verdicts, metric)
        blocks.append(Block("Pairs of architectures image by image", words, table, "images", ABOUT_PAIRS))
    return Images(notes, blocks, compared)
