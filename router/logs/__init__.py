"""One line per call and per change of state, written in batches beside the loop."""

from router.logs.core import Logs
from router.logs.lines import LogFormat
from router.logs.sink import Sink, ThreadSink

__all__ = ["LogFormat", "Logs", "Sink", "ThreadSink"]
