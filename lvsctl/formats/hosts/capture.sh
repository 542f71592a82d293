# Capture frames of one client's requests on this host, for `lvsctl check --capture`.
#
# In front of it stand the variables that it needs: `devices`, `filter` (pcap-filter(7)), `clients`
# (grep's pattern for the client's addresses in IPVS's connection table).
#
# It runs tcpdump twice for each device, once a direction, without promiscuous mode, into a directory
# of mktemp(1) that it removes, until a line comes on its input or the input ends. Then it prints the
# frames, IPVS's counters before and after, and the client's own entries of the connection table.
# shellcheck disable=SC2154  # devices, filter, clients
main() {
    set -u
    LC_ALL=C
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    export LC_ALL PATH
    umask 077
    running=
    command -v tcpdump >/dev/null || { echo 'tcpdump is not installed' >&2; exit 3; }
    directory=$(mktemp -d) || exit 3
    trap 'end; rm -rf "$directory"' EXIT
    trap 'exit 3' HUP INT TERM

    number=0
    for device in $devices; do
        for way in in out; do
            file=$directory/$number-$way
            tcpdump -n -p -U --time-stamp-precision=nano -c 20000 -i "$device" -Q "$way" -w - \
                "$filter" >"$file.pcap" 2>"$file.log" </dev/null &
            running="$running $!"
            if ! listens "$file.log" $!; then
                sed "s/^/$device: /" "$file.log" >&2
                exit 3
            fi
        done
        number=$((number + 1))
    done
    counters >"$directory/before"
    echo ready
    read -r _ || exit 3
    connections >"$directory/connections"
    sleep 3 # IPVS adds up its counters every two seconds (ip_vs_est.c)
    counters >"$directory/after"
    end

    echo 'lvsctl-collect 1'
    section counters-before cat "$directory/before"
    section counters-after cat "$directory/after"
    section connections cat "$directory/connections"
    number=0
    for device in $devices; do
        for way in in out; do
            section "frames-$number-$way" od -An -v -tx1 "$directory/$number-$way.pcap"
            section "lost-$number-$way" grep 'dropped by kernel' "$directory/$number-$way.log"
        done
        number=$((number + 1))
    done
    echo 'end of lvsctl-collect'
}

listens() { # listens LOG PID: tcpdump says so once it does
    tries=0
    while ! grep -q 'listening on' "$1"; do
        tries=$((tries + 1))
        [ $tries -lt 150 ] && kill -0 "$2" 2>/dev/null || return 1
        sleep 0.1 2>/dev/null || sleep 1
    done
}

end() {
    # shellcheck disable=SC2086  # one word per process
    [ -z "$running" ] || kill -INT $running 2>/dev/null
    wait
    running=
}

counters() { [ ! -e /proc/net/ip_vs ] || ipvsadm -L -n --stats --exact 2>/dev/null; }

connections() { [ ! -e /proc/net/ip_vs_conn ] || grep -iE "$clients" /proc/net/ip_vs_conn; }

# section.sh: lvsctl puts that file here.

main
exit
