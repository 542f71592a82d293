section() { # section NAME COMMAND...: what the command prints, each line after a bar
    name=$1
    shift
    echo "section $name"
    if text=$("$@" 2>/dev/null); then status=0; else status=$?; fi
    [ -z "$text" ] || printf '%s\n' "$text" | sed 's/^/|/'
    echo "end $name $status"
}
