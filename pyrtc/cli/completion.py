"""`pyrtc completion`: what makes bash, zsh and fish complete pyrtc's words.

The scripts know nothing of pyrtc: at each press of the key they ask `pyrtc __complete` (`pyrtc.cli.candidates`), which
reads the tables that also parse and explain the options. So what is offered is what the installed version takes.
"""

from pyrtc.cli.option_table import ArgumentError, Group, Option, parse, render_help

__all__ = ["completion"]

USAGE = "pyrtc completion bash|zsh|fish"
SUMMARY = "Print a script that makes your shell complete commands, options and names."
OPTIONS = (Group("Options", (Option("--help", "", "print this"),)),)
ENDING = """\
For one session, and for all that follow:

  bash   source <(pyrtc completion bash)
         pyrtc completion bash >~/.local/share/bash-completion/completions/pyrtc   (package bash-completion)
  zsh    source <(pyrtc completion zsh)                                            (after compinit)
         pyrtc completion zsh >DIR/_pyrtc                                          (DIR is one of $fpath)
  fish   pyrtc completion fish | source
         pyrtc completion fish >~/.config/fish/completions/pyrtc.fish"""

BASH = r"""# bash completion of pyrtc
_pyrtc() {
    local line="${COMP_LINE:0:COMP_POINT}" current word directive="" offered=() shown=()
    # The shell cuts words at = and :, which names of images and options hold.
    read -ra shown <<<"$line"
    [[ $line =~ [[:space:]]$ ]] && shown+=("")
    current="${shown[${#shown[@]} - 1]}"
    while IFS=$'\t' read -r word _; do
        case $word in
        :*) directive=$word ;;
        *) offered+=("$word") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${shown[@]:1}" 2>/dev/null)
    local cut=""
    [[ $current == *[:=]* ]] && cut="${current%"${current##*[:=]}"}"
    COMPREPLY=()
    for word in "${offered[@]}"; do
        [[ $word == *= || $word == */ ]] && compopt -o nospace
        COMPREPLY+=("${word#"$cut"}")
    done
    local kind=""
    case $directive in
    :files) kind=-f ;;
    :directories) kind=-d ;;
    *) return ;;
    esac
    compopt -o filenames
    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen "$kind" -- "${current##*[:=]}")
}
complete -F _pyrtc pyrtc
"""
ZSH = r"""#compdef pyrtc
_pyrtc() {
    local word text directive="" line
    local -a offered endless
    while IFS= read -r line; do
        word="${line%%$'\t'*}" text="${line#*$'\t'}"
        case $word in
        :*) directive=$word ;;
        *=) endless+=("${word//:/\\:}:$text") ;;
        *) offered+=("${word//:/\\:}:$text") ;;
        esac
    done < <("${words[1]}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
    (( $#offered )) && _describe -t words word offered
    (( $#endless )) && _describe -t options option endless -S ''
    case $directive in
    :files) compset -P '*[:=]'; _files ;;
    :directories) compset -P '*[:=]'; _files -/ ;;
    esac
}
if [[ $funcstack[1] == _pyrtc ]]; then
    _pyrtc "$@"
else
    compdef _pyrtc pyrtc
fi
"""
FISH = r"""# fish completion of pyrtc
function __pyrtc_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l program $words[1]
    for line in ($program __complete $words[2..-1] 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path (commandline -ct)
            case ':directories'
                __fish_complete_directories (commandline -ct) ''
            case '*'
                echo $line
        end
    end
end
complete -c pyrtc -f -a '(__pyrtc_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(argv: list[str]) -> int:
    """Run `pyrtc completion`."""
    parsed = parse(argv, OPTIONS, interspersed=True)
    if parsed.flag("--help"):
        print(render_help(USAGE, SUMMARY, OPTIONS, ending=ENDING))
        return 0
    if len(parsed.arguments) != 1:
        raise ArgumentError(f"name one shell: {USAGE}")
    script = SCRIPTS.get(parsed.arguments[0])
    if script is None:
        raise ArgumentError(f"no completion for {parsed.arguments[0]}: there are bash, zsh and fish")
    print(script, end="")
    return 0
