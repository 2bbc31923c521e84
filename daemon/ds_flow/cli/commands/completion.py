"""`ds-flow completion`: a completion script for a shell.

`eval "$(ds-flow completion bash)"`, or in fish `ds-flow completion fish | source`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

from ds_flow.cli.arguments import Arguments, argument
from ds_flow.system import DONE, put_lines

Flags = Mapping[str, Sequence[str]]
"""The flags of each command."""

Helps = Mapping[str, str]

BASH = """\
_ds_flow() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} word words='{names} --config --version --help'
    for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
        case $word in
{cases}
        *) continue ;;
        esac
        break
    done
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _ds_flow ds-flow"""

ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def _bash(flags: Flags, _helps: Helps) -> str:
    cases = (
        f"        {name}) words='{' '.join([*own, '--config', '--help'])}' ;;"
        for name, own in flags.items()
    )
    return BASH.format(names=" ".join(flags), cases="\n".join(cases))


def _zsh(flags: Flags, helps: Helps) -> str:
    return ZSH + _bash(flags, helps)


def _fish(flags: Flags, helps: Helps) -> str:
    lines = ["complete -c ds-flow -l config -r -d 'settings file of the project'"]
    for name, own in flags.items():
        lines.append(f"complete -c ds-flow -n __fish_use_subcommand -a {name} -d '{helps[name]}'")
        lines += (
            f"complete -c ds-flow -n '__fish_seen_subcommand_from {name}' {_fish_flag(flag)}"
            for flag in own
        )
    return "\n".join(lines)


def _fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


SHELLS: dict[str, Callable[[Flags, Helps], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}


HELP = "print a completion script for a shell"
ARGUMENTS: Arguments = (argument("shell", choices=[*SHELLS]),)


def run(args: argparse.Namespace) -> int:
    """Complete the table of commands, which `main` puts into the arguments."""
    flags = {
        name: [flag for one in command.ARGUMENTS for flag in one.flags if flag.startswith("-")]
        for name, command in args.commands.items()
    }
    helps = {name: command.HELP for name, command in args.commands.items()}
    put_lines(SHELLS[args.shell](flags, helps))
    return DONE
