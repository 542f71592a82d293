#!/bin/sh
# What this host's kernel is configured to do with packets, for `lvsctl check`. From lvsctl collect.
#
#   ssh root@rs1 sh -s <collect.sh >state/rs1.txt     on each director and each real server
#   lvsctl check TOPOLOGY --from state                then, anywhere
#
# It runs the commands below and nothing else. They only read. It needs a POSIX shell, grep, sed,
# cat, ls, uname, id, sleep, and iproute2 from 4.19 on (ip, ss, tc); ipvsadm, nft and iptables-save are
# used if they are there. Without root it cannot read everything; `lvsctl check` names what is missing.
#
# What it prints: the host's name and kernel release; links, addresses, routes, rules, neighbours
# (MAC addresses); listening sockets with the names of their programs; the sysctls named below; the
# IPVS table; the rules of packet filters and of traffic control (with their comments); whether
# keepalived or ldirectord runs, and which processes are stopped (their numbers); the kernel's packet
# counters, twice within seconds. It reads no configuration file, log, command line, environment,
# packet, connection, key or password.
set -u
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH

# section.sh: lvsctl puts that file here.

settings() { # settings FILE...: name:value of those that exist
    grep -s . "$@" /dev/null || :
}

loaded() { # loaded MODULE: so that no question loads it
    grep -qs "^$1 " /proc/modules || grep -qs "/$1\.ko" "/lib/modules/$(uname -r)/modules.builtin"
}

fou() { ! loaded fou || ip fou show; }

sctp() { [ ! -e /proc/net/sctp ] || ss -HlnpS; }

ipvs() { [ ! -e /proc/net/ip_vs ] || ipvsadm "$@"; }

user=$(id -u)
! loaded nf_tables || nftables=yes

nft_rules() { # nft_rules OPTION...: of nftables, where the kernel has it
    [ -z "${nftables-}" ] || nft "$@" list ruleset
}

saved() { # saved ip|ip6: what iptables-save prints of the tables that are there
    [ "$user" = 0 ] || return 1
    legacy=$(cat "/proc/net/$1_tables_names" 2>/dev/null)
    [ -z "$legacy" ] || saved_by "$1tables-legacy-save" "$1tables-save" || return 1
    # Those of iptables-nft are nftables' rules, too: its own words say more.
    [ -z "${nftables-}" ] || saved_by "$1tables-nft-save" || :
}

saved_by() { # saved_by PROGRAM...: by the first that is installed
    for program; do
        [ -z "$(command -v "$program")" ] || { "$program" -c; return; }
    done
    return 1
}

installed() { # installed PROGRAM...: those that are
    for program; do
        [ -z "$(command -v "$program")" ] || echo "$program"
    done
}

filters() { # of traffic control, at devices that may have any
    [ -n "$(command -v tc)" ] || return 1
    tc qdisc show | sed -n -e 's/^qdisc clsact .* dev \([^ ]*\) .*/\1/p' \
        -e 's/^qdisc ingress .* dev \([^ ]*\) .*/\1/p' | while read -r device; do
        for side in ingress egress; do
            found=$(tc -j filter show dev "$device" "$side")
            case $found in *kind*) echo "$device $side $found" ;; esac
        done
    done
}

namespace() { # namespace PID: the number of its network namespace; nothing where it is not told
    ls -Li "/proc/$1/ns/net" 2>/dev/null
}

daemons() { # keepalived and ldirectord, but for those of other network namespaces
    grep -slx -e keepalived -e 'ldirectord.*' /proc/[0-9]*/comm | while read -r name; do
        process=${name%/comm} here=$(namespace self)
        there=$(namespace "${process#/proc/}")
        [ -z "$there" ] || [ "${there%% /*}" = "${here%% /*}" ] || continue
        grep -s . "$name" /dev/null
    done
}

stopped() { # numbers of processes that are stopped by a signal, or have ended unnoticed (zombies)
    grep -s '^State:[[:space:]]*[TZ]' /proc/[0-9]*/status || :
}

echo "lvsctl-collect 1"
section name uname -n
section kernel uname -r
section user id -u
section counters cat /proc/net/snmp /proc/net/netstat
section counters-ipv6 cat /proc/net/snmp6
section links ip -d -j address show
section routes-ipv4 ip -j -4 route show table all
section routes-ipv6 ip -j -6 route show table all
section rules-ipv4 ip -4 rule show
section rules-ipv6 ip -6 rule show
section neighbours ip -j neighbour show
section fou fou
section listeners ss -Hlntup
section listeners-sctp sctp
section sysctls settings \
    /proc/sys/net/ipv4/ip_forward \
    /proc/sys/net/ipv4/conf/*/arp_ignore \
    /proc/sys/net/ipv4/conf/*/arp_announce \
    /proc/sys/net/ipv4/conf/*/rp_filter \
    /proc/sys/net/ipv4/conf/*/accept_local \
    /proc/sys/net/ipv4/conf/*/forwarding \
    /proc/sys/net/ipv4/conf/*/send_redirects \
    /proc/sys/net/ipv6/conf/*/forwarding \
    /proc/sys/net/ipv6/conf/*/disable_ipv6 \
    /proc/sys/net/ipv4/vs/*
section ipvs-table cat /proc/net/ip_vs
section ipvs-rules ipvs -S -n
section ipvs-timeouts ipvs -L --timeout
section programs installed nft iptables ip6tables
section nft nft_rules -j
section nft-text nft_rules -a
section iptables saved ip
section ip6tables saved ip6
section tc-qdiscs tc -s -j qdisc show
section tc-filters filters
section keepalived daemons
section stopped stopped
sleep 2
section counters-later cat /proc/net/snmp /proc/net/netstat
section counters-ipv6-later cat /proc/net/snmp6
echo "end of lvsctl-collect"
