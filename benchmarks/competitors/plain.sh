#!/bin/sh
# The dr shape as the kernel's own selftest builds such things: one ip(8) for each operation.
#     plain.sh up|down N PREFIX
set -e
what=$1 servers=$2 prefix=$3
nodes="client director"
i=1
while [ $i -le "$servers" ]; do nodes="$nodes rs$i" i=$((i + 1)); done

if [ "$what" = down ]; then
    for node in sw $nodes; do ip netns del "$prefix$node"; done
    exit
fi

ip netns add "${prefix}sw"
ip -n "${prefix}sw" link set lo up
ip -n "${prefix}sw" link add br0 type bridge
ip -n "${prefix}sw" link set br0 up
ip -n "${prefix}sw" addr add 10.0.0.1/16 dev br0
i=2
for node in $nodes; do
    ns=$prefix$node
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    ip link add eth0 netns "$ns" type veth peer name p$i netns "${prefix}sw"
    ip -n "${prefix}sw" link set p$i master br0
    ip -n "${prefix}sw" link set p$i up
    ip -n "$ns" link set eth0 up
    ip -n "$ns" addr add 10.0.$((i / 256)).$((i % 256))/16 dev eth0
    ip -n "$ns" route add default via 10.0.0.1
    case $node in
        director) ip -n "$ns" addr add 10.0.255.1/32 dev eth0 ;;
        rs*)
            ip netns exec "$ns" sysctl -qw net.ipv4.conf.all.arp_ignore=1
            ip netns exec "$ns" sysctl -qw net.ipv4.conf.all.arp_announce=2
            ip -n "$ns" addr add 10.0.255.1/32 dev lo
            ;;
    esac
    i=$((i + 1))
done
