"""A bench as one HTML page that needs nothing from elsewhere: verdict, plots, tables, method."""

from __future__ import annotations

from html import escape
from importlib import resources

from router.bench.measured import Key
from router.bench.plan import Siblings
from router.bench.plots import Bar, Series, forest, lines
from router.bench.result import Result
from router.bench.stats import Mean
from router.bench.text import Table, method, tables
from router.bench.verdict import Comparison


def page(result: Result) -> str:
    """The whole page."""
    style = (resources.files("router.bench") / "page.css").read_text(encoding="utf-8")
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Bench: {escape(result.title)}</title><style>\n{style}</style></head><body><main>",
        f"<header><h1>{escape(' against '.join(one.title for one in result.subjects))}</h1>",
        f"<p>{escape(_about(result))}</p></header>",
    ]
    if result.stopped:
        parts.append(f'<p class="incomplete"><b>Incomplete.</b> {escape(result.stopped)}</p>')
    parts.append("<section><h2>Verdict</h2><ul class=verdict>")
    parts += [f"<li>{escape(one)}</li>" for one in result.verdict]
    parts.append("</ul></section>")
    parts += [*_forests(result), _plots(result), *map(_table, tables(result))]
    if result.notes:
        notes = "".join(f"<li>{escape(one)}</li>" for one in result.notes)
        parts.append(f"<section><h2>Seen on the way</h2><ul>{notes}</ul></section>")
    parts.append(f"<footer><h2>How it was measured</h2><p>{escape(method(result))}</p></footer>")
    return "\n".join([*parts, "</main></body></html>\n"])


def _about(result: Result) -> str:
    models = " and ".join(dict.fromkeys(one.model for one in result.subjects))
    hosts = ", ".join(dict.fromkeys(host for one in result.subjects for host in one.hosts))
    when = result.title.rpartition(", ")[2]
    on = f" on {hosts}" if hosts else ""
    return f"{models}{on}; {when}, {result.took_s / 60:.0f} min, {len(result.measurements)} measurements"


def _forests(result: Result) -> list[str]:
    """One plot of ratios for every two backends."""
    titles = {one.name: one.title for one in result.subjects}
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for one in result.comparisons:
        pairs.setdefault((one.first, one.second), []).append(one)
    found = []
    for (first, second), comparisons in pairs.items():
        bars = [
            Bar(str(one.key), one.ratio.value, one.ratio.low, one.ratio.high, one.winner is not None)
            for one in comparisons
            if one.ratio is not None
        ]
        drawn = forest(bars, titles[second], titles[first])
        if drawn:
            found.append(
                f"<section><h2>{escape(titles[first])} over {escape(titles[second])}</h2>"
                "<p class=hint>Ratio of speeds with its 95 % interval. Filled: stands among all that were asked.</p>"
                f'<div class="wide">{drawn}</div></section>'
            )
    return found


def _plots(result: Result) -> str:
    legend = "".join(
        f'<span><i style="background:var(--line-{n % 8})"></i>{escape(one.title)}</span>'
        for n, one in enumerate(result.subjects)
    )
    figures = []
    for title, unit, what, prompt, siblings, total in (
        ("Decode of one stream, short prompt", "tok/s", "decode", "short", Siblings.IDLE, False),
        ("Decode of all streams together, short prompt", "tok/s", "decode", "short", Siblings.IDLE, True),
        ("Decode of one stream, long prompt", "tok/s", "decode", "long", Siblings.IDLE, False),
        ("Prefill of all streams together", "tok/s", "prefill", "", Siblings.IDLE, False),
        ("Decode of one stream beside busy siblings", "tok/s", "decode", "short", Siblings.BUSY, False),
        ("Prefill beside busy siblings", "tok/s", "prefill", "", Siblings.BUSY, False),
    ):
        series = [
            Series(one.title, n, _points(result, one.name, what, prompt, siblings, total))
            for n, one in enumerate(result.subjects)
        ]
        drawn = lines(title, unit, series)
        if drawn:
            figures.append(f"<figure><figcaption>{title} <small>{unit}</small></figcaption>{drawn}</figure>")
    if not figures:
        return ""
    return (
        f'<section><h2>Speed by load</h2><p class="legend">{legend}</p><div class="plots">{"".join(figures)}</div>'
        "<p class=hint>Bars are 95 % intervals of each backend alone, drift of the box included; "
        "the ratios above are paired by round, which leaves the drift out.</p></section>"
    )


def _points(result: Result, subject: str, what: str, prompt: str, siblings: Siblings, total: bool) -> dict[int, Mean]:
    found = {}
    for key in result.seen():
        if (key.what, key.prompt, key.siblings) == (what, prompt, siblings):
            mean = result.mean(subject, key)
            if mean is not None:
                found[key.concurrency] = _times(mean, key) if total else mean
    return found


def _times(mean: Mean, key: Key) -> Mean:
    n = key.concurrency
    low, high = (None if edge is None else n * edge for edge in (mean.low, mean.high))
    return Mean(n * mean.value, low, high, mean.repeats)


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(one)}</th>' for one in table.heads)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in table.rows
    )
    return (
        f"<section><h2>{escape(table.title)}</h2><div class=wide><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )
