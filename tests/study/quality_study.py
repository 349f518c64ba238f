"""How well the quality test tells right from damaged: tables on recorded logprobs, simulations, and a plot.

    python -m tests.study.quality_study [PLOT.svg]

Prints Markdown. The tables repeat published ones with this project's score (top-20 plus tail, unlisted tokens bounded,
never dropped) and add the verdict of the sequential test. The simulations ask how many right backends are flagged and
how soon damage is. Everything is seeded: two runs print the same.
"""

import math
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, median

from router.policy.quality import SHARES, Family
from router.policy.scoring import Basis, Paired, report
from router.policy.sequential import ALPHA, begin, excess, observe, tolerance_of
from tests.study.plot import Curve, Point, axes, draw
from tests.study.recorded import GPU, TEXTS, mean_kl, pairs, positions, scores

PREFILL = ALPHA * SHARES[Family.PREFILL]
ORDERS = 500
BACKENDS = 10_000
WEEK_TEXTS = 40

# name: mean KL (over shared tokens), top-1 agreement, mean ΔNLL, as published with the recordings
NOISE = {
    "again": ("0", "100.0 %", "+0.0000"),
    "bf16b": ("0", "100.0 %", "+0.0000"),
    "load8": ("0", "100.0 %", "+0.0000"),
    "f32": ("9.91e-04", "97.5 %", "-0.0046"),
    "llama": ("3.49e-03", "95.5 %", "-0.0048"),
    "n0.005": ("2.59e-03", "96.4 %", "-0.0003"),
    "n0.02": ("2.10e-02", "90.9 %", "+0.0240"),
    "n0.05": ("1.20e-01", "77.9 %", "+0.1570"),
    "n0.1": ("4.66e-01", "58.9 %", "+0.7223"),
    "n0.2": ("1.16e+00", "18.7 %", "+3.7809"),
}
# trusted, candidate: mutual KL, KL(R, candidate), paired difference ± standard error over texts
NVFP4 = {
    ("w4a16", "w4a16_f32"): ("0.0012", "0.179", "+0.003 ± 0.002"),
    ("w4a16", "w4a4"): ("0.157", "0.354", "+0.178 ± 0.024"),
    ("w4a16", "w4a16_swapped_scales_1layer"): ("0.045", "0.225", "+0.050 ± 0.010"),
    ("w4a16", "w4a16_bad_scale_1layer"): ("0.093", "0.259", "+0.083 ± 0.015"),
    ("w4a16", "w4a16_swapped_scales_all"): ("3.29", "3.541", "+3.365 ± 0.159"),
    ("w4a4", "w4a4_f32"): ("0.202", "0.363", "+0.009 ± 0.016"),
    ("w4a4", "w4a4_swapped_act_1layer"): ("0.614", "0.935", "+0.581 ± 0.049"),
    ("w4a4", "w4a4_bad_act_all"): ("1.20", "1.481", "+1.127 ± 0.078"),
}
# on an H100, held against the same model in bfloat16, or against the same NVFP4 scheme: what was changed
ON_GPU = {
    "again": "nothing",
    "batch of 20": "19 other texts in the batch",
    "attention math": "another attention kernel (math)",
    "attention flash": "another attention kernel (flash)",
    "attention cudnn": "another attention kernel (cuDNN)",
    "compiled": "fused kernels (torch.compile)",
    "float16": "float16",
    "tf32": "TF32",
    "float32": "float32",
    "n0.005": "0.5 % noise",
    "n0.02": "2 % noise",
    "n0.05": "5 % noise",
    "n0.1": "10 % noise",
    "one layer's down_proj × 1.1": "one matrix of 210 × 1.1",
    "one layer's down_proj × 1.25": "one matrix of 210 × 1.25",
    "nvfp4/w4a16_f32": "W4A16: float32",
    "nvfp4/w4a16_compiled": "W4A16: fused kernels",
    "nvfp4/w4a16_bad_scale_1layer": "W4A16: block scales of one matrix × 1.25",
    "nvfp4/w4a16_swapped_scales_1layer": "W4A16: block scales of one matrix swapped",
    "nvfp4/w4a4_f32": "W4A4: float32",
    "nvfp4/w4a4_batch": "W4A4: 19 other texts in the batch",
    "nvfp4/w4a4_swapped_scales_1layer": "W4A4: block scales of one matrix swapped",
    "nvfp4/w4a4_bad_act_1layer": "W4A4: activation scales of one matrix × 1.25",
}
HEADINGS = "flagged after texts (positions) as recorded | random orders: median / 95 % | RMS excess, × tolerance"


def main() -> None:
    """Print every table and write the plot where a path was given."""
    print("## Noise and other kernels (trusted: vLLM bf16; R = its own logprobs)\n")
    table(noise_rows(), "run | mean KL published | ours | top-1 published | ours | ΔNLL published | ours | " + HEADINGS)
    print("\n## NVFP4 kernels and faults (R = the model before quantisation)\n")
    table(nvfp4_rows(), "trusted | candidate | mutual KL published | ours | KL(R, candidate) published | ours | "
          "paired difference published | ours | " + HEADINGS)  # fmt: skip
    print("\n## The same model on a GPU (H100, PyTorch; R for NVFP4 = the model before quantisation)\n")
    table(gpu_rows(), "changed | mutual KL | paired difference | " + HEADINGS)
    print(f"\n## Right backends: share flagged of {BACKENDS:,}, {WEEK_TEXTS} texts each, α = {ALPHA:g}\n")
    table(healthy_rows(), "how the excess varies | share flagged")
    print(f"\n## Texts until damage is flagged, α = {PREFILL:g} (the share of prefill probes)\n")
    curve = delays()
    table(
        ([f"{x:g}", f"{m:g}", f"{h:g}"] for x, m, h in zip(curve.x, curve.middle, curve.high, strict=True)),
        "damage, × tolerance (RMS) | median | 95 %",
    )
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plot(curve), encoding="utf-8")
        print(f"\nwrote {path}")


def table(rows: Iterable[Sequence[str]], heading: str) -> None:
    """Print a Markdown table."""
    print(f"| {heading} |")
    print("|" + "---|" * (heading.count("|") + 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def noise_rows() -> Iterable[list[str]]:
    """Our score beside the published one, run by run."""
    for name, (kl, top1, nll) in NOISE.items():
        result = scores("base", name)
        weights = [s.positions for s in result]
        agreement = sum(s.agreement * w for s, w in zip(result, weights, strict=True)) / sum(weights)
        shifts = [s.nll_delta for s in result]
        ours = "–"
        if all(shift is not None for shift in shifts):
            mean = sum((shift or 0.0) * w for shift, w in zip(shifts, weights, strict=True)) / sum(weights)
            ours = f"{mean:+.4f}"
        cells = [name, kl, f"{mean_kl(result):.2e}", top1, f"{agreement:.1%}", nll, ours]
        yield cells + verdict(pairs(Basis.MUTUAL, name, "base"), "w16a16")


def nvfp4_rows() -> Iterable[list[str]]:
    """Distances to the unquantised model, beside the published ones; across schemes there is no verdict."""
    for (trusted, candidate), (mutual, distance, difference) in NVFP4.items():
        paired = pairs(Basis.DISTANCE, f"nvfp4/{candidate}", f"nvfp4/{trusted}", "nvfp4/w16a16")
        mean, error = report(paired)
        cells = [
            trusted,
            candidate,
            mutual,
            f"{mean_kl(scores(f'nvfp4/{trusted}', f'nvfp4/{candidate}')):.3g}",
            distance,
            f"{mean_kl(scores('nvfp4/w16a16', f'nvfp4/{candidate}')):.3f}",
            difference,
            f"{mean:+.3f} ± {error:.3f}",
        ]
        is_same_scheme = candidate.startswith(trusted)
        yield cells + (verdict(paired, trusted) if is_same_scheme else ["a report: another scheme", "–", "–"])


def gpu_pairs(name: str) -> tuple[tuple[Paired, ...], str]:
    """A state on the GPU beside what it was changed from, and the scheme of both."""
    scheme = name.partition("/")[2].partition("_")[0]
    if scheme:
        trusted, reference = f"{GPU}nvfp4/{scheme}", f"{GPU}nvfp4/w16a16"
        return pairs(Basis.DISTANCE, GPU + name, trusted, reference), scheme
    return pairs(Basis.MUTUAL, GPU + name, f"{GPU}bf16"), "w16a16"


def gpu_rows() -> Iterable[list[str]]:
    """What kernels, arithmetic and damage change on a GPU."""
    for name, changed in ON_GPU.items():
        paired, scheme = gpu_pairs(name)
        mean, error = report(paired)
        trusted = GPU + ("bf16" if scheme == "w16a16" else f"nvfp4/{scheme}")
        mutual = mean_kl(scores(trusted, GPU + name))
        yield [changed, f"{mutual:.2g}", f"{mean:+.4f} ± {error:.4f}", *verdict(paired, scheme)]


def verdict(paired: Sequence[Paired], scheme: str) -> list[str]:
    """When the sequential test flags: as recorded, in random orders, and how large the damage is."""
    first = until_flagged(paired, scheme, range(TEXTS))
    dice = random.Random(1)
    needed = sorted(
        len(until_flagged(paired, scheme, dice.sample(range(TEXTS), TEXTS))) or math.inf for _ in range(ORDERS)
    )
    recorded = f"{len(first)} ({positions(first)})" if first else f"never in {TEXTS}"
    spread = f"{quantile(needed, 0.5):g} / {quantile(needed, 0.95):g}" if needed[0] < math.inf else "never"
    return [recorded, spread, f"{size_of(paired, scheme):.2f}"]


def until_flagged(paired: Sequence[Paired], scheme: str, order: Iterable[int]) -> list[str]:
    """The texts it took to flag, none where all did not suffice."""
    test = begin(0.0, PREFILL)
    used: list[str] = []
    for index in order:
        one = paired[index]
        test = observe(test, one.name, excess(one, tolerance_of(one.basis, scheme)))
        used.append(one.name)
        if test.is_worse:
            return used
    return []


def size_of(paired: Sequence[Paired], scheme: str) -> float:
    """Damage as the root mean square of the excess, in tolerances."""
    return math.sqrt(fmean(excess(p, tolerance_of(p.basis, scheme)) for p in paired))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the sorted values lies."""
    return values[min(int(share * len(values)), len(values) - 1)]


def lognormal(dice: random.Random, sigma: float) -> float:
    """A factor of mean 1."""
    return math.exp(dice.gauss(-sigma * sigma / 2, sigma))


def texts_needed(draw_one: Callable[[], float], most: int, alpha: float) -> float:
    """Texts until flagged, infinity where `most` did not suffice."""
    test = begin(0.0, alpha)
    for number in range(most):
        test = observe(test, str(number), draw_one())
        if test.is_worse:
            return number + 1
    return math.inf


def healthy_rows() -> Iterable[list[str]]:
    """Right backends of several kinds. Those at the edge have E[z] = 1 exactly: the hardest that is still right."""
    kinds: dict[str, Callable[[random.Random], Callable[[], float]]] = {
        "at the edge, every text alike": lambda dice: lambda: 1.0,
        "at the edge, texts differ by a factor of e": lambda dice: lambda: lognormal(dice, 1.0),
        "at the edge, heavy tail (one text in 50 at 50)": lambda dice: lambda: 50.0 if dice.random() < 0.02 else 0.0,
        "at the edge, two values (one text in 5 at 5)": lambda dice: lambda: 5.0 if dice.random() < 0.2 else 0.0,
        "backends from 0 to the edge, texts and backends random": _mixed,
    }
    for number, (name, kind) in enumerate(kinds.items()):
        dice = random.Random(number)
        flagged = sum(texts_needed(kind(dice), WEEK_TEXTS, ALPHA) < math.inf for _ in range(BACKENDS))
        yield [name, f"{flagged / BACKENDS:.2%}"]


def _mixed(dice: random.Random) -> Callable[[], float]:
    level, noise = dice.uniform(0.0, 1.0), dice.uniform(0.1, 1.5)
    return lambda: level * lognormal(dice, noise)


def delays() -> Curve:
    """Simulated damage: every text differs by about half (sigma 0.5), as recorded damage did."""
    dice = random.Random(99)
    sizes = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0, 40.0)
    middle, high = [], []
    for size in sizes:
        needed = sorted(
            texts_needed(lambda size=size: (size * lognormal(dice, 0.5)) ** 2 / math.exp(0.25), 300, PREFILL)  # type: ignore[misc]
            for _ in range(400)
        )
        middle.append(median(needed))
        high.append(quantile(needed, 0.95))
    return Curve(sizes, middle, high)


def plot(curve: Curve) -> str:
    """Simulated delay as a curve, recorded damage as points."""
    recorded = {
        "2 % noise": (pairs(Basis.MUTUAL, "n0.02", "base"), "w16a16"),
        "5 % noise": (pairs(Basis.MUTUAL, "n0.05", "base"), "w16a16"),
    }
    for label, candidate, trusted in (
        ("W4A16, one layer's scales swapped", "w4a16_swapped_scales_1layer", "w4a16"),
        ("W4A4, one layer's activation scales swapped", "w4a4_swapped_act_1layer", "w4a4"),
        ("W4A4, all activation scales × 1.25", "w4a4_bad_act_all", "w4a4"),
    ):
        recorded[label] = (pairs(Basis.DISTANCE, f"nvfp4/{candidate}", f"nvfp4/{trusted}", "nvfp4/w16a16"), trusted)
    points = []
    dice = random.Random(1)
    for label, (paired, scheme) in recorded.items():
        needed = [len(until_flagged(paired, scheme, dice.sample(range(TEXTS), TEXTS))) for _ in range(ORDERS)]
        points.append(Point(size_of(paired, scheme), fmean(needed), label))
    x, y = axes(50.0, 200.0, "damage: RMS distance beyond a trusted build, × tolerance", "texts until flagged")
    title = f"Texts until damage is flagged (α = {PREFILL:g} a week; line: median, band: to 95 %)"
    return draw(title, x, y, curve, points)


if __name__ == "__main__":
    main()
