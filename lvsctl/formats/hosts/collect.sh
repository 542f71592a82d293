#!/bin/sh
# What this host's kernel is configured to do with packets, for `lvsctl check`. From lvsctl collect.
#
#   ssh root@rs1 sh -s <collect.sh >state/rs1.txt     on each director and each real server
#   lvsctl check TOPOLOGY --from state                then, anywhere
#
# It runs the commands below and nothing else. They only read. It needs a POSIX shell, grep, sed,
# cat, uname, id, sleep, and iproute2 from 4.19 on (ip, ss); ipvsadm is used if it is there. Without
# root it cannot read everything; `lvsctl check` names what is missing.
#
# What it prints: the host's name and kernel release; links, addresses, routes, rules, neighbours
# (MAC addresses); listening sockets with the names of their programs; the sysctls named below; the
# IPVS table; whether keepalived runs; the kernel's packet counters, twice within seconds. It reads
# no configuration file, log, command line, environment, packet, connection, key or password.
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
section keepalived grep -sx keepalived /proc/[0-9]*/comm
sleep 2
section counters-later cat /proc/net/snmp /proc/net/netstat
section counters-ipv6-later cat /proc/net/snmp6
echo "end of lvsctl-collect"
