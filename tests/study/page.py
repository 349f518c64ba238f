"""The page of the routing study: two programs write it, each its own part, and neither loses the other's."""

LIVE = "\n<!-- from here on: make routing-study-live -->\n"


def with_virtual(page: str, virtual: str) -> str:
    """The page with another virtual part."""
    return virtual.rstrip("\n") + "\n" + "".join(page.partition(LIVE)[1:])


def with_live(page: str, live: str) -> str:
    """The page with another live part."""
    return f"{page.partition(LIVE)[0].rstrip()}\n{LIVE}{live.rstrip()}\n"
