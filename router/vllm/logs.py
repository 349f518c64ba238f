"""Read a vLLM log for what the server really runs: version, arguments, resolved kernels, and what went wrong.

Lines come as they are: docker timestamps, `(EngineCore pid=392)` prefixes, colours, JSON-file logs, garbage bytes. A
log may hold several starts; what counts is the last one. Memory is bounded whatever the log's size.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from router.vllm.findings import HINTS, Finding, Kind, Weight, find
from router.vllm.identity import Identity
from router.vllm.kernels import Kernel, Requested, Scheme, kernel_of, requested_from_args

LINE_LIMIT = 65_536  # characters looked at; the engine's config line has about 5,000
_QUOTED = 300
_DETAILS_LIMIT = 8  # distinct ones of one kind of finding
_NAMES_LIMIT = 16

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_BANNER = re.compile(r"vLLM API server version (\S+)|█  version (\d\S*)")  # the second in the logo, from 0.19 on
_ENGINE = re.compile(r"Initializing an? (?:V1 )?LLM engine \(v([^)]+)\)")
_ARGS = re.compile(r"non-default args: (\{.*\})")
_LINEAR = re.compile(r"Using (?:NvFp4LinearBackend\.)?([\w-]+) for NVFP4 GEMM")
_MOE = re.compile(r"Using '(\w+)' NvFp4 MoE backend(?: out of potential backends: \[([^\]]*)\])?")
_SELECTED = re.compile(r"Selected (\w*Kernel for \w+)")
_KV_TOKENS = re.compile(r"GPU KV cache size: ([\d,]+) tokens")
_CONCURRENCY = re.compile(r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x")
_CONFIG = re.compile(r"\b(model|quantization|moe_backend|linear_backend)=('[^']*'|[\w-]+)")
_SCALAR = re.compile(r"'(\w+)': ('[^']*'|\"[^\"]*\"|-?\d+(?:\.\d+)?|True|False|None)(?=[,}])")
_SECRET = re.compile(r"(?:^|_)(?:api_key|token|secret|password)$")
_CLIENTS_WORDS = re.compile(r"Received request |Generated response ")  # with --enable-log-requests: prompts, not facts
_SCHEMES = (  # what a checkpoint is quantised to: ModelOpt's algorithms, file names of log lines, a model's name
    (Scheme.W4A4, re.compile(r"quant_algo=NVFP4\b|compressed_tensors_w4a4_nvfp4")),
    (Scheme.W4A16, re.compile(r"quant_algo=W4A16_NVFP4|compressed_tensors_w4a16_nvfp4|model='[^']*(?:W4A16|NVFP4A16)")),
)

START_MARKS = ("non-default args: {", "vLLM API server version", "LLM engine (v")
"""One of these stands near the beginning of every start."""

MARKS = (
    *START_MARKS,
    " version ",  # the logo's
    "for NVFP4 GEMM",
    "NvFp4 MoE backend",
    "Selected ",
    "KV cache size",
    "Maximum concurrency",
    "Application startup complete",
    "quant_algo=",
    "compressed_tensors_w4a",
    *HINTS,
)
"""A line with none of these says nothing that is looked for: what a far machine need not send."""

_INTERESTING = re.compile("|".join(map(re.escape, MARKS)))


@dataclass(slots=True)
class _Start:
    """What was read since one start-up banner."""

    version: str | None = None
    has_engine: bool = False
    args: dict[str, Any] | None = None
    config: dict[str, str] = field(default_factory=dict)
    linear: dict[str, None] = field(default_factory=dict)
    moe: str | None = None
    potential_moe: tuple[str, ...] = ()
    others: dict[str, None] = field(default_factory=dict)
    checkpoint: set[Scheme] = field(default_factory=set)
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    ready: bool = False
    findings: dict[tuple[Kind, str], Finding] = field(default_factory=dict)

    @property
    def is_marked(self) -> bool:
        """Whether its beginning was seen; a tail cut out of an older run has none."""
        return self.version is not None or self.args is not None or self.has_engine


class LogReader:
    """Feed it lines in order; ask for `identity` at any time."""

    def __init__(self) -> None:
        self._start = _Start()
        self._starts = 0

    def __repr__(self) -> str:
        return f"LogReader({self._starts} earlier starts, {self.identity.kernels})"

    def feed(self, lines: Iterable[str | bytes]) -> tuple[Finding, ...]:
        """Read more lines; give back what was found in them and was not known of this start. Never raises."""
        before, known = self._start, set(self._start.findings)
        for line in lines:
            text = plain(line)
            if _INTERESTING.search(text) and not _CLIENTS_WORDS.search(text):
                self._read(text)
        if self._start is not before:
            known = set()
        return tuple(finding for key, finding in self._start.findings.items() if key not in known)

    @property
    def identity(self) -> Identity:
        """What the last start says so far."""
        start = self._start
        requested = _requested(start)
        resolved = {name: kernel_of(name) for name in start.linear}
        moe = kernel_of(start.moe) if start.moe else None
        unknown = [name for name, kernel in resolved.items() if kernel is None]
        return Identity(
            requested_linear=requested.linear,
            requested_moe=requested.moe,
            linear=tuple(dict.fromkeys(kernel for kernel in resolved.values() if kernel)),
            moe=moe,
            potential_moe=start.potential_moe,
            version=start.version,
            model=start.config.get("model") or _text((start.args or {}).get("model")),
            quantization=start.config.get("quantization") or _text((start.args or {}).get("quantization")),
            checkpoint=next(iter(start.checkpoint)) if len(start.checkpoint) == 1 else None,
            args=start.args or {},
            kv_tokens=start.kv_tokens,
            max_concurrency=start.max_concurrency,
            others=tuple(start.others),
            unrecognised=tuple([*unknown, start.moe] if start.moe and moe is None else unknown),
            findings=tuple(sorted(start.findings.values(), key=lambda finding: -finding.weight)),
            ready=start.ready,
            starts=self._starts,
        )

    def _read(self, line: str) -> None:
        """One line that may matter: a mark of a start, a resolution, or a finding."""
        is_start = self._read_start(line)
        self._start.checkpoint.update(scheme for scheme, pattern in _SCHEMES if pattern.search(line))
        if is_start or self._read_resolution(line):
            return
        found = find(line)
        if found:
            self._note(*found, line)
            if found[0] is Kind.MARLIN_WEIGHT_ONLY and "[marlin.py:" in line:
                _add(self._start.linear, Kernel.MARLIN)  # weight-only linear layers have no line of their own

    def _read_start(self, line: str) -> bool:
        """The three marks of a start-up, in their order: banner, arguments, engine."""
        if banner := _BANNER.search(line):
            if self._start != _Start(version=self._start.version):
                self._begin()
            self._start.version = banner[1] or banner[2]
        elif arguments := _ARGS.search(line):
            if self._start.args is not None or self._start.has_engine:
                self._begin()
            self._start.args = parsed_args(arguments[1])
        elif engine := _ENGINE.search(line):
            if self._start.ready:  # several engines of one start come before it is ready
                self._begin()
            self._start.version = engine[1]
            self._start.has_engine = True
            self._start.config = _config(line)
        else:
            return False
        return True

    def _read_resolution(self, line: str) -> bool:
        """Lines that say what was chosen, and how much fits."""
        start = self._start
        if linear := _LINEAR.search(line):
            _add(start.linear, linear[1])
            self._note_unknown(linear[1], line)
        elif moe := _MOE.search(line):
            start.moe = moe[1]
            start.potential_moe = tuple(re.findall(r"'(\w+)'", moe[2] or ""))[:_NAMES_LIMIT]
            self._note_unknown(moe[1], line)
        elif selected := _SELECTED.search(line):
            _add(start.others, selected[1])
        elif "Application startup complete" in line:
            start.ready = True
        else:
            tokens, concurrency = _KV_TOKENS.search(line), _CONCURRENCY.search(line)
            if tokens:
                start.kv_tokens = _whole(tokens[1])
            if concurrency:
                start.max_concurrency = _decimal(concurrency[1])
            return bool(tokens or concurrency)
        return True

    def _begin(self) -> None:
        self._starts += self._start.is_marked
        self._start = _Start()

    def _note_unknown(self, name: str, line: str) -> None:
        if kernel_of(name) is None:
            self._note(Kind.UNKNOWN_KERNEL, Weight.NOTE, name, line)

    def _note(self, kind: Kind, weight: Weight, detail: str, line: str) -> None:
        """Count a finding; of one kind only so many details are told apart."""
        findings = self._start.findings
        if (kind, detail) not in findings and sum(key[0] is kind for key in findings) >= _DETAILS_LIMIT:
            detail = ""
        old = findings.get((kind, detail))
        if old is None:
            findings[kind, detail] = Finding(kind, weight, detail, 1, line.strip()[:_QUOTED])
        else:
            findings[kind, detail] = replace(old, weight=max(old.weight, weight), count=old.count + 1)


def read(log: bytes | str) -> Identity:
    """Read a whole log at once."""
    reader = LogReader()
    reader.feed(log.split(b"\n") if isinstance(log, bytes) else log.split("\n"))
    return reader.identity


def plain(line: str | bytes) -> str:
    """A line as text: bytes decoded, colours gone, taken out of docker's JSON file format, cut at LINE_LIMIT."""
    text = line[:LINE_LIMIT].decode("utf-8", "replace") if isinstance(line, bytes) else line[:LINE_LIMIT]
    if text.startswith('{"log":'):
        text = _unwrapped(text)
    return _COLOUR.sub("", text) if "\x1b" in text else text


def parsed_args(text: str) -> dict[str, Any]:
    """The non-default arguments as a dict; where Python objects stand in it, its plain values only.

    API keys, tokens and passwords are left out.
    """
    parsed = _literal(text)
    if not isinstance(parsed, dict):
        parsed = {name: _literal(value) for name, value in reversed(_SCALAR.findall(text))}  # the first, outermost wins
    return {str(name): value for name, value in parsed.items() if not _SECRET.search(str(name))}


def _unwrapped(text: str) -> str:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return entry["log"] if isinstance(entry, dict) and isinstance(entry.get("log"), str) else text


def _requested(start: _Start) -> Requested:
    """From the arguments; where they were not in the log, from the engine's configuration."""
    asked = requested_from_args(start.args or {})
    configured = requested_from_args(start.config)
    return Requested(asked.linear or configured.linear, asked.moe or configured.moe)


def _literal(text: str) -> Any:
    """A Python literal; None where it is none. Odd escapes in it are no reason to warn anyone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None


def _config(line: str) -> dict[str, str]:
    """The few fields of the engine's configuration that count; the first of a name is the model's own."""
    pairs = {name: value.strip("'") for name, value in reversed(_CONFIG.findall(line))}
    return {name: value for name, value in pairs.items() if value != "None"}


def _add(names: dict[str, None], name: str) -> None:
    if len(names) < _NAMES_LIMIT:
        names[name] = None


def _whole(text: str) -> int | None:
    digits = text.replace(",", "")
    return int(digits) if 0 < len(digits) <= 15 else None


def _decimal(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
