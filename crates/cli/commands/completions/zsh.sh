#compdef PROGRAM
# zsh: completion for PROGRAM, which is asked. Put it into a directory of $fpath as _PROGRAM.

_PROGRAM() {
    local -a lines shown options
    local line text about directive
    lines=("${(@f)$("${(Q)words[1]}" __complete "${(Q@)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    directive=${lines[-1]#:}
    [[ $directive == <-> ]] || return 1
    for line in "${(@)lines[1,-2]}"; do
        text=${line%%$'\t'*}
        about=${line#*$'\t'}
        shown+=("${text//:/\\:}${about:+:$about}")
    done
    ((directive & 2)) && options=(-S '')
    if ((${#shown})); then
        _describe 'PROGRAM' shown "${(@)options}"
    elif ((directive & 16)); then
        _files -/
    elif ! ((directive & 4)); then
        compset -P '*[=,]'
        _files
    fi
}

if [[ $funcstack[1] == _PROGRAM ]]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
