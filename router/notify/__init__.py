"""One line to the operator when something happens: to ntfy, Discord or any URL that takes JSON."""

from router.notify.core import Notifier
from router.notify.sender import Kind, Sender, kind_of

__all__ = ["Kind", "Notifier", "Sender", "kind_of"]
