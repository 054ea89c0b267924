# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write the manual pages and shell completions from the command lines themselves.

    .venv/bin/python tools/manpages.py

Options come from the parsers, settings from config/lxc-cr.toml, exit codes from errors.py; what is
only prose stands in tools/manpages.toml. A test fails when a page is not what this would write.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lxc_cr_plugin import __version__, cli, lxc_checkpoint
from lxc_cr_plugin.errors import exit_codes

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "man"
COMPLETIONS = ROOT / "completions"
PROSE = tomllib.loads((ROOT / "tools/manpages.toml").read_text())

SETTING = re.compile(r"^# (\w+) = (.+)$")


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command line by the name of its page."""
    top = cli.parser()
    (places,) = (action for action in top._actions if hasattr(action, "_choices_actions"))
    found = {"lxc-cr": top}
    for name, parser in places.choices.items():  # type: ignore[union-attr]
        if parser not in found.values():  # else an alias
            found[f"lxc-cr-{name}"] = parser
    found["lxc-checkpoint"] = lxc_checkpoint.parser()
    found["lxc-restart"] = lxc_checkpoint.parser(restart=True)
    return found


def pages() -> dict[str, str]:
    """The text of every page by its file name."""
    found = parsers()
    made = {f"{name}.1": command_page(name, parser, found) for name, parser in found.items()}
    made["lxc-cr.toml.5"] = settings_page()
    return made


# ---- roff ----


def escaped(text: str) -> str:
    """@text so that nothing in it means anything to roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def prose(text: str) -> Iterator[str]:
    """Paragraphs; an indented one is an example, `this` is bold."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip("\n"))):
        if number:
            yield ".PP"
        if paragraph.startswith("    "):
            lines = [escaped(line.removeprefix("    ")) for line in paragraph.splitlines()]
            yield from (".RS 4", ".nf", *lines, ".fi", ".RE")
        else:
            yield re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped(" ".join(paragraph.split())))


def section(title: str, text: str) -> Iterator[str]:
    """A heading and what is under it; nothing when that is nothing."""
    if text:
        yield f'.SH "{title}"'
        yield from prose(text)


def entry(head: str, text: str) -> Iterator[str]:
    """One entry of a list of terms."""
    yield from (".TP", head, *prose(text or "See above."))


def heading(name: str, number: int) -> str:
    """The first line of a page."""
    return f'.TH "{escaped(name.upper())}" {number} "" "lxc-cr {__version__}" "lxc-cr"'


# ---- pages ----


def command_page(
    name: str, parser: argparse.ArgumentParser, all_parsers: dict[str, argparse.ArgumentParser]
) -> str:
    """The page of one command."""
    words = PROSE.get(name, {})
    description = (parser.description or "").rstrip(".")
    lines = [
        '.\\" Written by tools/manpages.py; do not edit.',
        heading(name, 1),
        '.SH "NAME"',
        f"{escaped(name)} \\- {escaped(description[:1].lower() + description[1:])}",
        '.SH "SYNOPSIS"',
        synopsis(name, parser),
        *section("DESCRIPTION", words.get("description") or f"{description}."),
        *options(parser),
    ]
    if name == "lxc-cr":
        lines += commands(all_parsers)
    for title in ("images", "files", "environment"):
        lines += section(title.upper(), words.get(title, ""))
    lines += exit_status()
    lines += section("EXAMPLES", words.get("examples", ""))
    others = words.get("see_also") or "lxc-cr(1), lxc-cr.toml(5), lxc(7)"
    return "\n".join([*lines, *section("SEE ALSO", others)]) + "\n"


def synopsis(name: str, parser: argparse.ArgumentParser) -> str:
    """The command and its arguments in one line."""
    words = [f"\\fB{escaped(name.replace('lxc-cr-', 'lxc-cr '))}\\fR"]
    actions = [action for action in parser._actions if not is_help(action)]
    for action in actions:
        if action.option_strings and action.required:
            words.append(option_head(action, action.option_strings[:1]))
    words.append("[\\fIOPTION\\fR]...")
    for action in actions:
        if not action.option_strings:
            word = f"\\fI{escaped(placeholder(action))}\\fR"
            words.append({"?": f"[{word}]", "+": f"{word}..."}.get(str(action.nargs), word))
    if name == "lxc-cr":
        words.append("[\\fIARGUMENT\\fR]...")
    return " ".join(words)


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Arguments first, then options in the order of the help text."""
    actions = [a for a in parser._actions if not isinstance(a, argparse._SubParsersAction)]
    positional = [a for a in actions if not a.option_strings]
    yield '.SH "OPTIONS"'
    for action in positional:
        yield from entry(f"\\fI{escaped(placeholder(action))}\\fR", help_of(action))
    for action in actions:
        if action.option_strings:
            yield from entry(option_head(action, action.option_strings), help_of(action))


def option_head(action: argparse.Action, names: list[str] | Any) -> str:
    """Names of an option and its value."""
    value = "" if action.nargs == 0 else f" \\fI{escaped(placeholder(action))}\\fR"
    return ", ".join(f"\\fB{escaped(name)}\\fR{value}" for name in names)


def placeholder(action: argparse.Action) -> str:
    """What stands for a value."""
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices and len(list(action.choices)) < 6:
        return "|".join(map(str, action.choices))
    return action.dest.upper()


def is_help(action: argparse.Action) -> bool:
    """Whether an action shows a text instead of running the command."""
    return action.dest in ("help", "version", "usage")


def help_of(action: argparse.Action) -> str:
    """The help text as a sentence."""
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def commands(all_parsers: dict[str, argparse.ArgumentParser]) -> Iterator[str]:
    """The list of commands, each with its page."""
    yield '.SH "COMMANDS"'
    for name, parser in all_parsers.items():
        if name.startswith("lxc-cr-"):
            yield from entry(f"\\fB{escaped(name)}\\fR(1)", parser.description or "")


def exit_status() -> Iterator[str]:
    """The exit codes."""
    yield '.SH "EXIT STATUS"'
    for code, meaning in exit_codes():
        yield from entry(str(code), f"{meaning}.")


def settings_page() -> str:
    """lxc-cr.toml(5), from the comments of the file with the defaults."""
    words = PROSE["lxc-cr.toml"]
    lines = [
        '.\\" Written by tools/manpages.py; do not edit.',
        heading("lxc-cr.toml", 5),
        '.SH "NAME"',
        "lxc\\-cr.toml \\- configuration of lxc\\-cr",
        *section("DESCRIPTION", words["description"]),
    ]
    comment: list[str] = []
    for line in (ROOT / "config/lxc-cr.toml").read_text().splitlines():
        if line.startswith("# ---- "):
            lines.append(f'.SH "{escaped(line.strip("# -").upper())}"')
            comment = []
        elif found := SETTING.match(line):
            name, default = found.groups()
            head = f"\\fB{escaped(name)}\\fR (default: {escaped(default)})"
            lines += entry(head, "\n".join(comment))
            comment = []
        else:
            comment = [*comment, line.removeprefix("#").strip()] if line else []
    lines += section("EXAMPLES", words["examples"])
    return "\n".join([*lines, *section("SEE ALSO", words["see_also"])]) + "\n"


# ---- completions ----

CONTAINERS = {"bash": "_lxc_cr_containers", "zsh": "_lxc_cr_containers"}

PREAMBLE = {
    "bash": '_lxc_cr_containers() { compgen -W "$(lxc-ls -1 2>/dev/null)" -- "$1"; }\n',
    "zsh": '_lxc_cr_containers() { compadd -- ${(f)"$(lxc-ls -1 2>/dev/null)"}; }\n',
}

# By what stands for a value: images are named after containers, the rest is for the user to type.
COMPLETE = ("NAME", "REF")


def completions() -> dict[str, str]:
    """The text of every completion by its path."""
    import shtab

    made = {}
    for name in ("lxc-cr", "lxc-checkpoint", "lxc-restart"):
        parser = parsers()[name]
        for each in parsers_below(parser):
            for action in each._actions:
                value = placeholder(action)
                if value in COMPLETE:
                    action.complete = CONTAINERS  # type: ignore[attr-defined]
                elif value in ("FILE", "DIR"):
                    kind = shtab.FILE if value == "FILE" else shtab.DIRECTORY
                    action.complete = kind  # type: ignore[attr-defined]
        for shell, path in (("bash", f"bash/{name}"), ("zsh", f"zsh/_{name}")):
            made[path] = shtab.complete(parser, shell, preamble=PREAMBLE)  # type: ignore[arg-type]
    return made


def parsers_below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """@parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def main() -> None:
    """Rewrite all files; those of commands that are gone go."""
    targets: tuple[tuple[Path, Callable[[], dict[str, str]]], ...] = (
        (PAGES, pages),
        (COMPLETIONS, completions),
    )
    for directory, make in targets:
        made = make()
        for path in directory.rglob("*"):
            if path.is_file() and str(path.relative_to(directory)) not in made:
                path.unlink()
        for name, text in made.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        print(f"Wrote {directory.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
