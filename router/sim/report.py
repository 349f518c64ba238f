"""What came of a replay, as numbers, text, JSON, and one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from statistics import mean, median

from router.sim.described import Promise
from router.sim.replay import Ended

SKIPPED = 0.1  # of the calls at the beginning, in which everybody still learns lengths
_COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#4b5563")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 300, 48, 34, 40


@dataclass(frozen=True, slots=True)
class Summary:
    """One run in numbers: seconds, tokens, shares of calls.

    Attributes:
        goodput: share of the calls that got what they were promised.
        end_error, ttft_error: median of |log(predicted / actual)|, None where nothing was predicted.
        shares: of each backend, in calls.
    """

    policy: str
    calls: int
    refused: int
    goodput: float
    goodput_tokens_s: float
    end_mean_s: float
    end_p50_s: float
    end_p99_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_mean_s: float
    tpot_p99_s: float
    end_error: float | None
    ttft_error: float | None
    shares: Mapping[str, float]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def kept(one: Ended, promise: Promise) -> bool:
    """Whether a call got what it was promised."""
    return one.ttft_s <= promise.ttft_of(one.prompt_tokens) and one.tpot_s <= promise.tpot_s


def measured(ended: Sequence[Ended]) -> list[Ended]:
    """The calls that count: by the moment they came, without the first tenth."""
    ordered = sorted(ended, key=lambda one: one.at)
    return ordered[int(SKIPPED * len(ordered)) :]


def summarise(policy: str, ended: Sequence[Ended], refused: int, promise: Promise) -> Summary:
    """A run in numbers. Calls that nobody took count as broken promises.

    Raises:
        ValueError: no call came to its end.
    """
    calls = measured(ended)
    if not calls:
        raise ValueError("no call came to its end")
    good = [one for one in calls if kept(one, promise)]
    seconds = max(one.at + one.end_s for one in calls) - calls[0].at
    share = Counter(one.backend for one in calls)
    return Summary(
        policy=policy,
        calls=len(calls),
        refused=refused,
        goodput=len(good) / (len(calls) + refused),
        goodput_tokens_s=sum(one.output_tokens for one in good) / max(seconds, 1e-9),
        end_mean_s=mean(one.end_s for one in calls),
        end_p50_s=quantile([one.end_s for one in calls], 0.5),
        end_p99_s=quantile([one.end_s for one in calls], 0.99),
        ttft_p50_s=quantile([one.ttft_s for one in calls], 0.5),
        ttft_p99_s=quantile([one.ttft_s for one in calls], 0.99),
        tpot_mean_s=mean(one.tpot_s for one in calls),
        tpot_p99_s=quantile([one.tpot_s for one in calls], 0.99),
        end_error=_error([(one.predicted_end_s, one.end_s) for one in calls]),
        ttft_error=_error([(one.predicted_ttft_s, one.ttft_s) for one in calls]),
        shares={name: count / len(calls) for name, count in sorted(share.items())},
    )


def _error(pairs: Sequence[tuple[float | None, float]]) -> float | None:
    logs = [abs(math.log(predicted / actual)) for predicted, actual in pairs if predicted and actual > 0]
    return median(logs) if logs else None


COLUMNS = ("policy", "goodput", "good tok/s", "mean end", "p99 end", "TTFT p50", "p99", "TPOT", "error", "shares")


def row(one: Summary) -> tuple[str, ...]:
    """A summary under `COLUMNS`."""
    return (
        one.policy,
        f"{one.goodput:.1%}",
        f"{one.goodput_tokens_s:.0f}",
        f"{one.end_mean_s:.2f} s",
        f"{one.end_p99_s:.1f} s",
        f"{one.ttft_p50_s:.2f} s",
        f"{one.ttft_p99_s:.2f} s",
        f"{1000 * one.tpot_mean_s:.1f} ms",
        "" if one.end_error is None else f"{math.expm1(one.end_error):.0%}",
        ", ".join(f"{name} {share:.0%}" for name, share in one.shares.items()),
    )


def document(summaries: Sequence[Summary]) -> dict[str, list[dict[str, object]]]:
    """For JSON."""
    return {"runs": [asdict(one) for one in summaries]}


def page(title: str, about: str, summaries: Sequence[Summary], runs: Mapping[str, Sequence[Ended]]) -> str:
    """One HTML page: the table, and how end, TTFT and TPOT are spread under each policy."""
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row(one))}</tr>" for one in summaries)
    calls = {policy: measured(ended) for policy, ended in runs.items()}
    plots = (
        _spread("Time to the end (s)", {name: [one.end_s for one in ended] for name, ended in calls.items()}),
        _spread("Time to the first content, TTFT (s)", {n: [one.ttft_s for one in e] for n, e in calls.items()}),
        _spread(
            "Time per output token, TPOT (s)", {n: [one.tpot_s for one in e if one.tpot_s] for n, e in calls.items()}
        ),
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #111827; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e5e7eb; vertical-align: top; }}
svg {{ max-width: 100%; margin-top: 1.5rem; }}
</style>
<h1>{escape(title)}</h1>
<p>{escape(about)}</p>
<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>
{"".join(plots)}
</html>
"""


def _spread(title: str, values: Mapping[str, Sequence[float]]) -> str:
    """Share of calls below each value, one curve per policy, on a logarithmic axis, as SVG."""
    everything = [value for one in values.values() for value in one if value > 0]
    if not everything:
        return ""
    low, high = math.log(min(everything)), math.log(max(*everything, 1.01 * min(everything)))
    across, down = _WIDTH - _LEFT - 150, _HEIGHT - _TOP - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}: share of calls below</text>',
    ]
    for share in (0.0, 0.5, 0.9, 1.0):
        y = _TOP + down * (1 - share)
        parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + across}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#4b5563">{share:.0%}</text>')
    for tick in (m * 10.0**e for e in range(-4, 5) for m in (1, 2, 5)):
        if low <= math.log(tick) <= high:
            x = _LEFT + across * (math.log(tick) - low) / (high - low)
            parts.append(
                f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" fill="#4b5563">{tick:g}</text>'
            )
    for number, (name, one) in enumerate(values.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        ordered = sorted(value for value in one if value > 0)
        points = (
            [(ordered[min(len(ordered) - 1, int(s / 100 * len(ordered)))], s / 100) for s in range(101)]
            if ordered
            else []
        )
        path = " ".join(
            f"{_LEFT + across * (math.log(value) - low) / (high - low):.1f},{_TOP + down * (1 - share):.1f}"
            for value, share in points
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{_LEFT + across + 12}" y="{_TOP + 14 + 18 * number}" fill="{colour}">{escape(name)}</text>'
        )
    parts.append("</svg>")
    return "\n".join(parts)
