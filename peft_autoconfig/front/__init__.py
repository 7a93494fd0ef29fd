"""The front made real, and compared with what people choose by hand."""

from .comparison import Comparison, Row, markdown_table
from .front import choose_members, train_front

__all__ = ["Comparison", "Row", "choose_members", "markdown_table", "train_front"]
