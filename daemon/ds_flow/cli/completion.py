"""Completion scripts: `eval "$(ds-flow completion bash)"`, `... | source` in fish."""

from collections.abc import Callable, Mapping, Sequence

Flags = Mapping[str, Sequence[str]]

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


def script(shell: str, flags: Flags, helps: Mapping[str, str]) -> str:
    """Write the script for one of SHELLS. `flags` has each command's; `helps` its sentence."""
    return SHELLS[shell](flags, helps)


def _bash(flags: Flags, _helps: Mapping[str, str]) -> str:
    cases = (
        f"        {name}) words='{' '.join([*own, '--config', '--help'])}' ;;"
        for name, own in flags.items()
    )
    return BASH.format(names=" ".join(flags), cases="\n".join(cases))


def _zsh(flags: Flags, helps: Mapping[str, str]) -> str:
    return ZSH + _bash(flags, helps)


def _fish(flags: Flags, helps: Mapping[str, str]) -> str:
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


SHELLS: dict[str, Callable[[Flags, Mapping[str, str]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
