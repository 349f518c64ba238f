"""Write values as YAML that people like to read: blocks for long texts, comments above keys, one shared mapping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import yaml


class Merge:
    """The key `<<`: take over the fields of another mapping."""


MERGE = Merge()


def with_comments(text: str, header: Iterable[str], above: Mapping[str, list[str]]) -> str:
    """Put comments above a YAML text and above keys of its second level."""
    lines = [f"# {line}".rstrip() for line in header]
    for line in text.splitlines():
        key = line.strip().removesuffix(":")
        if line.startswith("  ") and not line.startswith("   ") and line.endswith(":"):
            lines += [f"  # {comment}" for comment in above.get(key, ())]
        lines.append(line)
    return "\n".join(lines) + "\n"


class Dumper(yaml.SafeDumper):
    """Writes lists indented below their key, and texts of several lines as blocks; has one anchor, `vllm`."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists too."""
        super().increase_indent(flow, False)

    def generate_anchor(self, _: yaml.Node) -> str:
        """Name the one mapping that is written once and used by several services."""
        return "vllm"

    def ignore_aliases(self, data: object) -> bool:
        """Write everything out, but for what services have in common."""
        return not (isinstance(data, dict) and "healthcheck" in data and "entrypoint" in data)


def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Write a text of several lines as a block."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def represent_nothing(dumper: yaml.SafeDumper, _: None) -> yaml.ScalarNode:
    """Write nothing as nothing."""
    return dumper.represent_scalar("tag:yaml.org,2002:null", "")


def represent_merge(dumper: yaml.SafeDumper, _: Merge) -> yaml.ScalarNode:
    """Write the merge key."""
    return dumper.represent_scalar("tag:yaml.org,2002:merge", "<<")


Dumper.add_representer(str, represent_text)
Dumper.add_representer(type(None), represent_nothing)
Dumper.add_representer(Merge, represent_merge)


def dump(value: object) -> str:
    """Return a value as YAML."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
