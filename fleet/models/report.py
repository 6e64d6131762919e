"""How far each sender's reports have been taken in."""

from sqlmodel import Field, SQLModel

from fleet.models.columns import Big


class ReportCursor(SQLModel, table=True):
    """The newest report of one worker session of a host; what is not newer has been taken in before.

    One row a session, because a former session's last reports may come after the first ones of the next. A principal
    has one row, (0, 0), which only says that its list exists.
    """

    __tablename__ = "report_cursor"

    sender: str = Field(primary_key=True, max_length=80)
    epoch: int = Field(default=0, primary_key=True, sa_type=Big, sa_column_kwargs={"autoincrement": False})
    seq: int = Field(default=0, sa_type=Big)
