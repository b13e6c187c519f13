# bash: completion for PROGRAM, which is asked. Load it with: source <(PROGRAM completion bash)

_PROGRAM() {
    local words=() line=$COMP_LINE word rest answer directive begun=$2 i
    # Readline cuts words at = and : too; what has no blank between is one word.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        rest=${line#"${line%%[![:blank:]]*}"}
        if ((i > 0)) && [[ $rest == "$line" ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        line=${rest#"$word"}
    done
    local last=${words[${#words[@]} - 1]}
    answer=$("$1" __complete "${words[@]:1}" 2>/dev/null) || return
    directive=${answer##*:}
    answer=${answer%:*}
    local before=${last%"$begun"} candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        candidate=${candidate%%$'\t'*}
        [[ -n $candidate ]] && COMPREPLY+=("${candidate#"$before"}")
    done <<<"$answer"
    ((directive & 2)) && compopt -o nospace 2>/dev/null
    if ((${#COMPREPLY[@]} == 0)); then
        if ((directive & 16)); then
            compopt -o dirnames 2>/dev/null
        elif ! ((directive & 4)); then
            compopt +o nospace -o default 2>/dev/null
        fi
    fi
}

complete -F _PROGRAM PROGRAM
