"""`ds-flow completion`: a completion script for a shell.

`eval "$(ds-flow completion bash)"`, or in fish `ds-flow completion fish | source`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

from ds_flow.cli.arguments import Argument, Arguments, UsageError, argument
from ds_flow.system import DONE, put, put_lines

Flags = Mapping[str, Sequence[str]]
"""The flags of each command."""

Helps = Mapping[str, str]
Kinds = Mapping[str, str]
"""What the arguments of a command name, if a project knows it: runs, files or schedules."""

KINDS = {
    **dict.fromkeys(("RUN", "RUN_ID", "BATCH"), "runs"),
    **dict.fromkeys(("FILE", "PATH"), "files"),
    "NAME": "schedules",
}
"""By what an argument is called in the help; `backup` names a new file."""

MOST_NAMES = 200

BASH = """\
_ds_flow() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} word kind='' config=() before=''
    local words='{names} --config --project --version --help'
    for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
        [[ $before == --config || $before == --project ]] \\
            && config=("$before" "$word") && before='' && continue
        before=$word
        case $word in
{cases}
        esac
    done
    if [[ -n $kind && $current != -* ]]; then
        mapfile -t COMPREPLY < <("${{1:-ds-flow}}" completion --names "$kind" \\
            --begun "$current" "${{config[@]}}" 2>/dev/null)
    else
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
}}
complete -o default -F _ds_flow ds-flow"""

ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def _bash(flags: Flags, _helps: Helps, kinds: Kinds) -> str:
    cases = (
        f"        {name}) words='{' '.join([*own, '--help'])}' kind='{kinds.get(name, '')}' ;;"
        for name, own in flags.items()
    )
    return BASH.format(names=" ".join(flags), cases="\n".join(cases))


def _zsh(flags: Flags, helps: Helps, kinds: Kinds) -> str:
    return ZSH + _bash(flags, helps, kinds)


def _fish(flags: Flags, helps: Helps, kinds: Kinds) -> str:
    lines = [
        "complete -c ds-flow -l config -r -d 'settings file of the project'",
        "complete -c ds-flow -l project -x -d 'an installed service'",
    ]
    for name, own in flags.items():
        lines.append(f"complete -c ds-flow -n __fish_use_subcommand -a {name} -d '{helps[name]}'")
        after = f"complete -c ds-flow -n '__fish_seen_subcommand_from {name}'"
        lines += (f"{after} {_fish_flag(flag)}" for flag in own)
        if kind := kinds.get(name):
            asked = f"ds-flow completion --names {kind} --begun (commandline -ct) 2>/dev/null"
            lines.append(f"{after} -a '({asked})'")
    return "\n".join(lines)


def _fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


SHELLS: dict[str, Callable[[Flags, Helps, Kinds], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}


HELP = "print a completion script for a shell"
ARGUMENTS: Arguments = (
    argument("shell", nargs="?", choices=[*SHELLS]),
    argument(
        "--names",
        choices=("runs", "files", "schedules"),
        metavar="KIND",
        help="print names of runs, files or schedules instead, as the scripts ask for them",
    ),
    argument("--begun", default="", metavar="TEXT", help="only names that begin so"),
)


def run(args: argparse.Namespace) -> int:
    """Complete the table of commands, which `main` puts into the arguments."""
    if args.names:
        return _put_names(args)
    if not args.shell:
        raise UsageError(f"completion: name a shell: {', '.join(SHELLS)}")
    flags, helps, kinds = {}, {}, {}
    for name, command in args.commands.items():
        every = [flag for one in args.arguments[name] for flag in one.flags]
        flags[name] = [flag for flag in every if flag.startswith("-")]
        helps[name] = command.HELP
        named = [one.options.get("metavar", "") for one in command.ARGUMENTS if _is_place(one)]
        kinds[name] = next((kind for one in named if (kind := KINDS.get(one))), "")
    put_lines(SHELLS[args.shell](flags, helps, {**kinds, "backup": ""}))
    return DONE


def _is_place(one: Argument) -> bool:
    return not one.flags[0].startswith("-")


def _put_names(args: argparse.Namespace) -> int:
    """Print what begins so. A key that is pressed changes nothing, so the ledger is only read."""
    from ds_flow.cli.project import load
    from ds_flow.core import escape
    from ds_flow.ledger import Ledger, ask_ledger

    settings, begun = load(args, to_work=False), args.begun

    def found(ledger: Ledger) -> list[str]:
        names = ledger.names
        if args.names == "files":
            return names.paths(escape(begun), MOST_NAMES)
        return [*names.runs(begun, MOST_NAMES), *names.batches(begun, MOST_NAMES)]

    if args.names == "schedules":
        named = [one.name for one in settings.schedule if one.name.startswith(begun)]
    else:
        named = ask_ledger(settings.ledger, found)
    for name in named:
        put(name)
    return DONE
