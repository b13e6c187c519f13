# fish: completion for PROGRAM, which is asked. Load it with: PROGRAM completion fish | source

function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l begun (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l lines ($program __complete $words "$begun" 2>/dev/null)
    or return
    set -l directive (string replace ':' '' -- $lines[-1])
    set -e lines[-1]
    if test (count $lines) -gt 0
        printf '%s\n' $lines
    else if test (math "bitand($directive, 16)") -gt 0
        __fish_complete_directories "$begun" ''
    else if test (math "bitand($directive, 4)") -eq 0
        __fish_complete_path "$begun"
    end
end

complete -c PROGRAM -e
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
