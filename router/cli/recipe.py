"""`router recipe`: write what to start for a model on a Spark, or take a fleet over from another tool's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.configtypes import to_ports
from router.errors import ConfigFault, RouterError
from router.fleetfile import parse
from router.recipes.imports import Imported
from router.recipes.litellm import from_litellm
from router.recipes.models import MODELS, Model, find, near
from router.recipes.recipe import Recipe, RecipeRefused, Wish, plan
from router.recipes.sparkrun import from_sparkrun
from router.recipes.write import compose, fleet, systemd
from router.vllm.kernels import Kernel, Scheme, Version, kernel_of, version_of

FINE, REFUSED = 0, 1
NEWEST = Version(0, 33)


def recipe(
    model: Annotated[str, typer.Argument(help="Model by its name on Hugging Face, or a part of it; see --list.")] = "",
    kernel: Annotated[list[str] | None, typer.Option(help="NVFP4 kernel of a server, or auto; once for each.")] = None,
    vllm: Annotated[str, typer.Option(help="Version of vLLM that will run.")] = str(NEWEST),
    ports: Annotated[str, typer.Option(help="Ports of the servers, as in 8000-8002.")] = "",
    memory_gib: Annotated[float | None, typer.Option(help="GiB that one server may take in all.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt and answer together.")] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="The Spark's name; once for each, for --from-sparkrun.")
    ] = None,
    weights_gib: Annotated[float | None, typer.Option(help="Of a model that is not known: GiB of its weights.")] = None,
    scheme: Annotated[Scheme | None, typer.Option(help="Of a model that is not known: its quantisation.")] = None,
    use_systemd: Annotated[bool, typer.Option("--systemd", help="Units instead of a compose file.")] = False,
    out: Annotated[Path | None, typer.Option(help="Directory to write to; without it, print.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    known: Annotated[bool, typer.Option("--list", help="Show the models that are known.")] = False,
    litellm: Annotated[Path | None, typer.Option("--from-litellm", help="Take over a LiteLLM config.yaml.")] = None,
    sparkrun: Annotated[Path | None, typer.Option("--from-sparkrun", help="Take over a sparkrun recipe.")] = None,
) -> None:
    """Write compose file (or systemd units) and fleet file for a model, its kernels and the router in front.

    Exit code: 0 written, 1 it cannot work (the reasons are printed).

    Examples:

        router recipe nemotron-3-nano --kernel marlin --kernel vllm_cutlass --out my-spark

        router recipe nemotron-3-super --kernel flashinfer_cutlass --vllm 0.33 --systemd

        router recipe --from-litellm config.yaml --out fleet
    """
    said = Console(stderr=True)
    try:
        if known:
            Console().print(table())
        elif litellm is not None:
            taken = from_litellm(text_of(litellm), str(litellm))
            deliver(imported(taken, said), out, force, said)
        elif sparkrun is not None:
            taken = from_sparkrun(text_of(sparkrun), str(sparkrun), host or ["spark-1"])
            deliver(imported(taken, said), out, force, said)
        else:
            wish = wished(chosen(model, weights_gib, scheme), kernel or ["auto"], vllm, ports)
            wish = replace(wish, memory_gib=memory_gib, context=context, host=(host or ["spark-1"])[0])
            deliver(files(plan(wish), use_systemd), out, force, said)
    except (RouterError, OSError, ValueError) as fault:
        for line in str(fault).splitlines():
            said.print(f"[red]{escape(line)}[/]", soft_wrap=True)
        raise typer.Exit(REFUSED) from fault


def chosen(name: str, weights_gib: float | None, scheme: Scheme | None) -> Model:
    """Return the model that is meant; one that is not known needs its size.

    Raises:
        RecipeRefused: it is not known.
    """
    model = find(name) if name else None
    if model is not None and weights_gib is None:
        return model
    if name and weights_gib is not None:
        flags = ("--trust-remote-code",) if model is None else model.flags
        return Model(name if model is None else model.name, weights_gib, scheme, Version(0, 17), flags)
    meant = ", ".join(near(name) or [one.name for one in MODELS])
    reason = f"{name} is not known. Did you mean {meant}?" if name else f"Which model? Known are {meant}."
    raise RecipeRefused([reason, "For any other model give --weights-gib (its size on disk) and --scheme."])


def wished(model: Model, kernels: Sequence[str], vllm: str, ports: str) -> Wish:
    """Put together what was asked for.

    Raises:
        RecipeRefused: a kernel, a version or a port is none.
    """
    version = version_of(vllm)
    found = [None if name == "auto" else kernel_of(name) for name in kernels]
    unknown = [name for name, one in zip(kernels, found, strict=True) if one is None and name != "auto"]
    reasons = [f"{name} is no NVFP4 kernel: {', '.join(Kernel)} or auto." for name in unknown]
    if version is None:
        reasons.append(f"{vllm} is no version of vLLM: 0.33 or 0.33.0.")
    if reasons or version is None:
        raise RecipeRefused(reasons)
    given = to_ports([part.strip() for part in ports.split(",")]) if ports else None
    return Wish(model, tuple(found), version, given or tuple(range(8000, 8000 + len(found))))


def files(what: Recipe, use_systemd: bool) -> dict[str, str]:
    """Return the files of a recipe, by name."""
    if use_systemd:
        return {**systemd(what), "fleet.yaml": fleet(what, in_containers=False)}
    return {"compose.yaml": compose(what), "fleet/fleet.yaml": fleet(what, in_containers=True)}


def imported(taken: Imported, said: Console) -> dict[str, str]:
    """Print what was left out and what is to be done, and return the fleet file.

    Raises:
        FleetFault: what came out of it is no good fleet file.
        ConfigFault: no backend is left.
    """
    stand_ins = dict.fromkeys(names_of_variables(taken.text), "http://stand-in")
    count = len(parse(taken.text, taken.source, stand_ins).backends)
    said.print(f"{escape(taken.source)}: {count} backend{'' if count == 1 else 's'} taken over", soft_wrap=True)
    for item in taken.left_out:
        said.print(f"[yellow]left out[/] {escape(str(item))}", soft_wrap=True)
    for line in dict.fromkeys(taken.to_do):
        said.print(f"[cyan]to do[/] {escape(line)}", soft_wrap=True)
    if not count:
        raise ConfigFault(f"{taken.source}: no backend is left of it, so no fleet file is written")
    return {"fleet.yaml": taken.text}


def text_of(file: Path) -> str:
    """Return what is in a file.

    Raises:
        ConfigFault: it cannot be read, or is no text.
    """
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as fault:
        raise ConfigFault(f"{file}: not UTF-8 text") from fault
    except OSError as fault:
        raise ConfigFault(f"{file}: {(fault.strerror or str(fault)).lower()}") from fault


def names_of_variables(text: str) -> list[str]:
    """Return the variables that a fleet file refers to."""
    return [part.split("}")[0] for part in text.split("${")[1:]]


def deliver(texts: dict[str, str], out: Path | None, force: bool, said: Console) -> None:
    """Write files to a directory, or print them.

    Raises:
        RecipeRefused: one is there already.
    """
    if out is None:
        for name, text in texts.items():
            typer.echo(text if len(texts) == 1 else f"# ---- {name}\n{text}")
        return
    there = [str(out / name) for name in texts if (out / name).exists()]
    if there and not force:
        raise RecipeRefused([f"{name} is there already: --force overwrites it." for name in there])
    for name, text in texts.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, "utf-8")
        said.print(f"[green]written[/] {escape(str(out / name))}", soft_wrap=True)


def table() -> Table:
    """Return the known models as a table."""
    shown = Table("model", "GiB", "scheme", "vLLM from", box=None, pad_edge=False)
    shown.columns[0].no_wrap = True
    for one in MODELS:
        scheme = one.scheme.value if one.scheme is not None else "?"
        shown.add_row(one.name, f"{one.weights_gib:g}", scheme, str(one.since))
    return shown
