"""Make the pages of the documentation site: those of docs/, and the reference from the code and the command line."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

import budwood
from budwood.cli.main import app
from budwood.cli.options import make_recipe_flags
from budwood.config.recipe import Recipe
from budwood.reporting.network_charts import draw_network

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
FROM_ROOT: Final = {"BENCHMARKS.md": "benchmarks.md", "CHANGELOG.md": "changelog.md"}  # files that are pages, too
FIGURE: Final = DOCS / "surgery.svg"
LINE: Final = 80  # characters of a signature
MARGIN: Final = 16  # around the figure
COLOURS: Final = """\
svg { --card: #ffffff; --ink: #1b2328; --soft: #55616a; --rule: #dce1e5; --accent: #0b6480; --second: #b4540a }
text { fill: var(--ink); font: 13px system-ui, sans-serif } .tick { fill: var(--soft); font-size: 12px }
"""  # those of the reports in the light; the figure has its own white ground
# What a browser fetches by itself: any `src`, and `href` of a `link`, but for those that only name a page.
LOADED: Final = re.compile(r"""(?:\ssrc=|<link(?![^>]*rel="?canonical)[^>]*\shref=)["']?((?:https?:)?//[^"'\s>]+)""")
EXIT_CODES: Final = """\
Every command takes `--json` (one document on stdout, progress on stderr) and `--debug` (the traceback of an error).
What the documents hold and what the exit codes mean: [For scripts and agents](../agents.md).
"""


def main(folder: Path) -> None:
    """Write all pages into a folder, which is emptied first.

    Args:
        folder: The folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder)
    for name, page in FROM_ROOT.items():
        (folder / page).write_text(adapt_links((ROOT / name).read_text(encoding="utf-8")), encoding="utf-8")
    for path in folder.glob("*.md"):
        path.write_text(adapt_links(path.read_text(encoding="utf-8")), encoding="utf-8")
    reference = folder / "reference"
    reference.mkdir()
    (reference / "commands.md").write_text(describe_commands(), encoding="utf-8")
    (reference / "recipe.md").write_text(describe_recipe(), encoding="utf-8")
    (reference / "python.md").write_text(describe_names(), encoding="utf-8")


def adapt_links(text: str) -> str:
    """Turn links that are right in the repository into those that are right on the site.

    Args:
        text: Markdown of a page.

    Returns:
        The page with links to other pages of the site.
    """
    for name, page in FROM_ROOT.items():
        text = text.replace(f"](../{name}", f"]({page}").replace(f"]({name}", f"]({page}")
    return text.replace("](docs/", "](")


def draw_surgery() -> str:
    """Draw what surgery makes of ResNet-18, by the function that draws every report's network.

    Returns:
        The figure as an SVG file.
    """
    from budwood.networks.surgery import plan_network

    plan = plan_network(Recipe(model="resnet18", freeze="upto:layer2", cut="layer3"), classes=10)
    image = (plan.channels, plan.size, plan.size)
    drawn = draw_network("ResNet-18 after surgery", image, plan.stages, plan.removed, plan.head)
    found = re.match(r'<svg viewBox="0 0 (\d+) (\d+)"', drawn)
    if not found:
        raise ValueError("the figure has no size")
    width, height = int(found[1]) + 2 * MARGIN, int(found[2]) + 2 * MARGIN
    box = f'viewBox="{-MARGIN} {-MARGIN} {width} {height}" width="{width}" height="{height}"'
    ground = f'<rect x="{-MARGIN}" y="{-MARGIN}" width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {box}'
    return f"{start}{drawn[found.end() :].replace('</desc>', f'</desc><style>{COLOURS}</style>{ground}', 1)}\n"


def describe_commands() -> str:
    """Describe every command of the command line, from the parser itself.

    Returns:
        A page in Markdown.
    """
    parts = ["# Commands", EXIT_CODES]
    recipe = {flag.opts[0] for flag in make_recipe_flags()}
    for name in sorted(app.commands):
        command = app.commands[name]
        context = click.Context(command, info_name=f"budwood {name}")
        own = [one for one in command.get_params(context) if not (recipe & set(one.opts))]
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"## budwood {name}", _tidy(command.help or ""), f"```text\nbudwood {name} {usage}\n```"]
        parts += ["\n".join(_tabulate(one for one in own if isinstance(one, click.Option)))]
        if len(own) < len(command.get_params(context)):
            parts.append("It also takes [recipe options](recipe.md) as flags.")
    return "\n\n".join(parts) + "\n"


def describe_recipe() -> str:
    """Describe every option of a recipe, from the record that carries them.

    Returns:
        A page in Markdown.
    """
    told = "Each is a flag of `budwood train`, `lr-find` and `tune`, a key of `recipe.toml` (with `_` for `-`), of \
`-s KEY=VALUE` and of a study file, and an argument of `bw.Recipe`. Options that the chosen network, optimizer or \
schedule does not use are refused. In brackets stands the default."
    return "\n\n".join(["# Recipe options", told, "\n".join(_tabulate(make_recipe_flags()))]) + "\n"


def describe_names() -> str:
    """List the public names of the package, with what mkdocstrings makes of their docstrings.

    Returns:
        A page in Markdown.
    """
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in budwood.__all__:
        value = getattr(budwood, name)
        if isinstance(value, type):
            kinds["Errors" if issubclass(value, Exception) else "Classes"].append(name)
        elif callable(value):
            kinds["Functions"].append(name)
    parts = ["# Python", "All public names, as `import budwood as bw` gives them. Importing loads no PyTorch."]
    for kind, names in kinds.items():
        parts.append(f"## {kind}")
        parts += [_describe_name(f"bw.{name}", getattr(budwood, name)) for name in names]
    parts += ["## bw.explain", *_list_explain()]
    return "\n\n".join(parts) + "\n"


def find_home(value: Any) -> str:
    """Find where a public name is defined.

    Args:
        value: A function or class of the package.

    Returns:
        Its path, as `budwood.data.scanning.scan`.
    """
    return f"{value.__module__}.{value.__qualname__}"


def find_foreign(folder: Path) -> list[str]:
    """Find what pages load from elsewhere: scripts, styles, images, frames; links that a reader follows are none.

    Args:
        folder: The built site.

    Returns:
        Page and address of each, sorted.
    """
    return sorted(
        f"{page.relative_to(folder)}: {address}"
        for page in folder.rglob("*.html")
        for address in LOADED.findall(page.read_text(encoding="utf-8"))
    )


def _list_explain() -> Iterator[str]:
    from budwood import explain

    for name in sorted(explain.__all__):
        value = getattr(explain, name)
        if callable(value):
            yield _describe_name(f"bw.explain.{name}", value)


def _describe_name(name: str, value: Any) -> str:
    """Heading, signature without types, which stand in the table below it, and docstring of a public name."""
    shown = "" if isinstance(value, type) else f"```python\n{_format_call(name, value)}\n```\n\n"
    return f"### {name}\n\n{shown}::: {find_home(value)}"


def _format_call(name: str, value: Any) -> str:
    signature = inspect.signature(value)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    plain = inspect.Signature(bare)
    text = re.sub(r"(?:Posix|Windows)Path\(('[^']*')\)", r"\1", f"{name}{plain}")
    return textwrap.fill(text, LINE, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _tabulate(options: Iterable[click.Option]) -> list[str]:
    rows = [("option", "what it does")]
    rows += [(_name_option(one), _tidy(one.help or "")) for one in options if "--help" not in one.opts]
    lines = [f"| {' | '.join(_escape(cell) for cell in row)} |" for row in rows]
    return [lines[0], "|---|---|", *lines[1:]]


def _name_option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in _order(option))
    if option.is_flag:
        return names
    choices = option.type.choices if isinstance(option.type, click.Choice) else ()
    return f"{names} `{option.metavar or '|'.join(map(str, choices)) or option.type.name.upper()}`"


def _order(option: click.Option) -> Sequence[str]:
    return [*sorted(option.opts, key=len, reverse=True), *option.secondary_opts]


def _tidy(text: str) -> str:
    """Help as Markdown: paragraphs without their line breaks, and braces and stars as they stand."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\b", "").strip())
    return "\n\n".join(" ".join(part.split()) for part in paragraphs)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    if sys.argv[1:] == ["figure"]:
        FIGURE.write_text(draw_surgery(), encoding="utf-8")
    elif sys.argv[1] == "check":
        sys.exit("\n".join(find_foreign(Path(sys.argv[2]))) or 0)
    else:
        main(Path(sys.argv[1]))
