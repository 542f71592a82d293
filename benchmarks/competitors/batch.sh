#!/bin/sh
# The dr shape by as few ip(8) as can be: one batch for the namespaces, one for each of them.
#     batch.sh up|down N PREFIX
set -e
what=$1 servers=$2 prefix=$3
nodes="client director"
i=1
while [ $i -le "$servers" ]; do nodes="$nodes rs$i" i=$((i + 1)); done

if [ "$what" = down ]; then
    for node in sw $nodes; do echo "netns del $prefix$node"; done | ip -batch -
    exit
fi

for node in sw $nodes; do echo "netns add $prefix$node"; done | ip -batch -
{
    echo "link set lo up"
    echo "link add br0 type bridge"
    echo "link set br0 up"
    echo "addr add 10.0.0.1/16 dev br0"
    i=2
    for node in $nodes; do
        echo "link add p$i master br0 up type veth peer name eth0 netns $prefix$node"
        i=$((i + 1))
    done
} | ip -n "${prefix}sw" -batch -
i=2
for node in $nodes; do
    vip="" quiet=""
    case $node in
        director) vip="addr add 10.0.255.1/32 dev eth0" ;;
        rs*)
            vip="addr add 10.0.255.1/32 dev lo"
            quiet="echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore"
            quiet="$quiet; echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce;"
            ;;
    esac
    ip netns exec "$prefix$node" sh -c "$quiet exec ip -batch -" <<END
link set lo up
link set eth0 up
addr add 10.0.$((i / 256)).$((i % 256))/16 dev eth0
$vip
route add default via 10.0.0.1
END
    i=$((i + 1))
done
