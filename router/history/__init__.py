"""What must survive a restart: builds, speeds, hours, verdicts, intents, in one SQLite file."""

from router.history.reader import HistoryUnreadable, Reader
from router.history.rows import (
    Baseline,
    BenchDay,
    Build,
    GradeChange,
    Hour,
    Incident,
    Load,
    Mark,
    OperatorIntent,
    Row,
    SpeedState,
    Standing,
    Verdict,
    build_id,
)
from router.history.store import History

__all__ = [
    "Baseline",
    "BenchDay",
    "Build",
    "GradeChange",
    "History",
    "HistoryUnreadable",
    "Hour",
    "Incident",
    "Load",
    "Mark",
    "OperatorIntent",
    "Reader",
    "Row",
    "SpeedState",
    "Standing",
    "Verdict",
    "build_id",
]
