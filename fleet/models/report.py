"""How far each sender's reports have been taken in."""

from sqlmodel import Field, SQLModel


class ReportCursor(SQLModel, table=True):
    """The newest report of a host: epoch, and number within it. What is not newer has been taken in before."""

    __tablename__ = "report_cursor"

    sender: str = Field(primary_key=True, max_length=80)
    epoch: int = 0
    seq: int = 0
