"""A standing as a JSON value and back: for the history, the admin API and whoever compares builds later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.policy.facts import Grade
from router.policy.quality import Evidence, Family, Kind, Quality
from router.policy.sequential import STAKES, Bets, SequentialTest

VERSION = 1  # a record of another version is not understood, and the build starts as unknown


def dump(quality: Quality) -> dict[str, object]:
    """The whole state, JSON-ready."""
    return {
        "version": VERSION,
        "build": quality.build,
        "grade": quality.grade.value,
        "since": quality.since,
        "held": quality.held,
        "cause": None if quality.cause is None else dump_evidence(quality.cause),
        "evidence": [dump_evidence(e) for e in quality.evidence],
        "tests": {family.value: _dump_test(test) for family, test in quality.tests.items()},
    }


def dump_evidence(evidence: Evidence) -> dict[str, object]:
    """One piece of evidence, JSON-ready."""
    return {
        "kind": evidence.kind.value,
        "at": evidence.at,
        "detail": evidence.detail,
        "family": None if evidence.family is None else evidence.family.value,
        "probes": list(evidence.probes),
        "numbers": dict(evidence.numbers),
        "e_value": evidence.e_value,
    }


def restore(record: Mapping[str, Any]) -> Quality | None:
    """What `dump` wrote, or None where it was written by another version or was damaged since."""
    try:
        if record["version"] != VERSION:
            return None
        cause = record["cause"]
        return Quality(
            build=str(record["build"]),
            grade=Grade(record["grade"]),
            since=float(record["since"]),
            tests={Family(family): _restore_test(test) for family, test in record["tests"].items()},
            evidence=tuple(_restore_evidence(e) for e in record["evidence"]),
            cause=None if cause is None else _restore_evidence(cause),
            held=record["held"],
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _restore_evidence(record: Mapping[str, Any]) -> Evidence:
    family, e_value = record["family"], record["e_value"]
    return Evidence(
        kind=Kind(record["kind"]),
        at=float(record["at"]),
        detail=str(record["detail"]),
        family=None if family is None else Family(family),
        probes=tuple(map(str, record["probes"])),
        numbers={str(name): float(value) for name, value in record["numbers"].items()},
        e_value=None if e_value is None else float(e_value),
    )


def _dump_test(test: SequentialTest) -> dict[str, object]:
    return {
        "alpha": test.alpha,
        "started_s": test.started_s,
        "stakes": list(test.bets.stakes),
        "cash": test.bets.cash,
        "peak": test.bets.peak,
        "proof": test.proof,
        "total": test.total,
        "seen": sorted(test.seen),
    }


def _restore_test(record: Mapping[str, Any]) -> SequentialTest:
    stakes = tuple(float(s) for s in record["stakes"])
    if len(stakes) != len(STAKES):
        raise ValueError("written with other stakes")
    return SequentialTest(
        alpha=float(record["alpha"]),
        started_s=float(record["started_s"]),
        bets=Bets(stakes, float(record["cash"]), float(record["peak"])),
        proof=float(record["proof"]),
        total=float(record["total"]),
        seen=frozenset(map(str, record["seen"])),
    )
