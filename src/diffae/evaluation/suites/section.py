"""What a suite gives: a table or figure of the paper, measured; and the words that suites share."""

from dataclasses import dataclass, field

from diffae.evaluation.pages.figures import Figure
from diffae.evaluation.pages.tables import Table
from diffae.evaluation.results import Result

OURS = "DPM-Solver++"
"""The solver of rows that are not the paper's."""
JUMPED = "jumps"
"""That of a distilled model."""
CONVENTION = "bilinear without antialiasing, x / 127.5 - 1, as pytorch-fid"


class NotMeasurable(ValueError):
    """A suite needs what these images or this model do not have. Of all suites it is left out, with the reason on the page."""


@dataclass(slots=True)
class Section:
    """One table or figure of the paper, measured.

    Attributes:
        suite: its name.
        title: heading.
        text: what was done, and what the paper reports.
        results: the rows.
        tables: the same to read.
        figures: pictures and plots.
    """

    suite: str
    title: str
    text: str
    results: list[Result]
    tables: list[Table]
    figures: list[Figure] = field(default_factory=list)
