#!/bin/bash
# The story of those who secure flannel's network, on three hosts, on the kernel's data plane: Libreswan's files, the same on
# all but for the private keys; pods behind Docker's MASQUERADE, flannel's VXLAN, and the story's firewall as it is, which lets
# in UDP 500 and ESP and, by `-m policy`, what these carried. Captures on all wires. Says "ok" or "FAIL" for each check; exits
# with the number of failures.
#
#   interop/vm/run --script interop/vm/flannel.sh
set -u
. interop/vm/common.sh
umask 022

LETTER=(- A B C)

firewall() {
    iptables -N ipsec_allow
    iptables -A ipsec_allow -p udp -m udp --dport 500 -j ACCEPT
    iptables -A ipsec_allow -p ah -j ACCEPT
    iptables -A ipsec_allow -p esp -j ACCEPT
    iptables -N vxlan_allow
    iptables -A vxlan_allow -p udp -m udp --dport 8472 -j ACCEPT
    iptables -N IPSEC_SECURED
    iptables -A IPSEC_SECURED -j vxlan_allow
    iptables -A IPSEC_SECURED -p icmp -j ACCEPT
    iptables -A INPUT -p udp --dport 4500 # counts what there must be none of
    iptables -A OUTPUT -p udp --dport 4500
    iptables -A INPUT -i lo -j ACCEPT
    iptables -A INPUT -i flannel.1 -j ACCEPT
    iptables -A INPUT -m policy --pol ipsec --dir in -j IPSEC_SECURED
    iptables -A INPUT -j ipsec_allow
    iptables -P INPUT DROP
    iptables -A FORWARD -i docker0 -j ACCEPT
    iptables -A FORWARD -m policy --pol ipsec --dir in -j ACCEPT
    iptables -P FORWARD DROP
}

host() { # host N: on the switch, with a pod behind docker0, flannel's device, the firewall and MASQUERADE
    local n=$1 p
    ip netns add host$n
    ip netns add pod$n
    ip link add wire0 netns host$n type veth peer name port$n netns switch
    ip link add docker0 netns host$n type veth peer name eth0 netns pod$n
    on switch ip link set port$n up master switch
    on host$n sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    on pod$n sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    on host$n ip link set lo up
    on host$n ip addr add 192.168.0.$n/24 dev wire0
    on host$n ip link set wire0 up
    on host$n ip addr add 172.16.$n.1/24 dev docker0
    on host$n ip link set docker0 up
    on pod$n ip addr add 172.16.$n.2/24 dev eth0
    on pod$n ip link set eth0 up
    on pod$n ip route add default via 172.16.$n.1
    on host$n ip link add flannel.1 address 02:00:00:00:00:0$n type vxlan id 1 dev wire0 local 192.168.0.$n dstport 8472 nolearning
    on host$n ip link set flannel.1 up mtu 1300
    on host$n ip addr add 10.200.0.$n/32 dev flannel.1
    for p in 1 2 3; do
        [ $p != "$n" ] || continue
        on host$n bridge fdb append 02:00:00:00:00:0$p dev flannel.1 dst 192.168.0.$p
        on host$n ip neigh replace 10.200.0.$p lladdr 02:00:00:00:00:0$p dev flannel.1 nud permanent
        on host$n ip route add 10.200.0.$p/32 dev flannel.1
        on host$n ip route add 172.16.$p.0/24 via 10.200.0.$p dev flannel.1 onlink
    done
    on host$n bash -c "$(declare -f firewall); firewall"
    # Docker's own rule, and on the second host the story's in its place.
    local unless=''
    [ "$n" != 2 ] || unless='-m policy --dir out --pol none'
    on host$n iptables -t nat -A POSTROUTING $unless -s 172.16.$n.0/24 ! -o docker0 -j MASQUERADE
    on host$n tcpdump -Z root -n -Q out -i wire0 -U -w host$n.pcap 2>/dev/null &
    on pod$n tcpdump -Z root -n -Q in -i eth0 -U -w pod$n.pcap 2>/dev/null &
}

keys() { # a host key of each, and the public ones
    local n
    for n in 1 2 3; do
        mkdir -p etc$n/ipsec.d etc$n/nss
        obol ipsec newhostkey --bits 3072 --nssdir "$work/etc$n/nss" >>keys.log 2>&1
        key[n]=$(obol ipsec showhostkey --left --nssdir "$work/etc$n/nss" 2>>keys.log | sed -n 's/.*leftrsasigkey=//p')
        check "host ${LETTER[n]} has a key" test -n "${key[n]}"
    done
}

files() { # files N: of the story, for each two hosts
    local etc=etc$1 pair x y
    printf 'config setup\n\ninclude ipsec.d/*.conf\n' >$etc/ipsec.conf
    (umask 077; : >$etc/ipsec.secrets)
    for pair in "1 2" "1 3" "2 3"; do
        read -r x y <<<"$pair"
        cat >$etc/ipsec.d/host${LETTER[x]}-host${LETTER[y]}.conf <<END
conn host${LETTER[x]}-host${LETTER[y]}-subnet
  also=host${LETTER[x]}-host${LETTER[y]}
  leftsubnet=172.16.$x.0/24
  rightsubnet=172.16.$y.0/24

conn host${LETTER[x]}-host${LETTER[y]}
  type=tunnel
  leftid=@host${LETTER[x]}.example.com
  left=192.168.0.$x
  leftrsasigkey=${key[x]}
  rightid=@host${LETTER[y]}.example.com
  right=192.168.0.$y
  rightrsasigkey=${key[y]}
  authby=rsasig
  auto=start
END
    done
}

start_host() { # start_host N
    printf '[daemon]\ndataplane = "kernel"\n' >host$1.toml
    on host$1 obol run --config host$1.toml --ipsec-conf etc$1/ipsec.conf --ipsec-secrets etc$1/ipsec.secrets \
        --nssdir "$work/etc$1/nss" --runtime-dir "$work/host$1" >>host$1.log 2>&1 &
}
all_up() { # all_up N: both conns with each other host
    local x y conn
    for pair in "1 2" "1 3" "2 3"; do
        read -r x y <<<"$pair"
        [[ "$pair" = *$1* ]] || continue
        conn=host${LETTER[x]}-host${LETTER[y]}
        obol_at host$1 status $conn && obol_at host$1 status $conn-subnet || return 1
    done
}
each_pair() { # each_pair WHAT...: with the numbers of two hosts
    local from to
    for from in 1 2 3; do
        for to in 1 2 3; do
            [ $from = $to ] || within 60 "$@" $from $to || { echo "$* $from $to"; return 1; }
        done
    done
}
pods() { on pod$1 ping -c 1 -W 5 172.16.$2.2; }
overlay() { on host$1 ping -c 1 -W 5 -I 10.200.0.$1 10.200.0.$2; }
hosts() { on host$1 ping -c 1 -W 5 192.168.0.$2; }
all_pass() { each_pair pods && each_pair overlay && each_pair hosts; }
only_protected() { # only_protected N: what left this host
    tcpdump -n -r host$1.pcap 'not arp and not ip proto 50 and not (udp src port 500 and udp dst port 500)' 2>/dev/null | head -n 3 | tee seen
    [ ! -s seen ] && [ -n "$(tcpdump -n -r host$1.pcap -c 1 'ip proto 50' 2>/dev/null)" ]
}
sources_kept() { # sources_kept N: what came to its pod came from pods
    tcpdump -n -r pod$1.pcap 'icmp and not src net 172.16.0.0/16' 2>/dev/null | head -n 3 | tee seen
    [ ! -s seen ] && [ -n "$(tcpdump -n -r pod$1.pcap -c 1 'icmp[0] = 8' 2>/dev/null)" ]
}
none_to_4500() { [ "$(on host$1 iptables -nvxL | grep 'dpt:4500' | grep -c '^ *0 ')" = 2 ]; }

key=()
keys
ip netns add switch
on switch ip link add switch type bridge mcast_snooping 0
on switch ip link set switch up
for n in 1 2 3; do
    files $n
    host $n
done
sleep 2
for n in 1 2 3; do start_host $n; done
for n in 1 2 3; do check "all conns of host ${LETTER[n]} are up" within 120 all_up $n; done
check "pods, vxlan and hosts reach each other" all_pass
check "a conn of two others is nobody's trouble" sh -c "ip netns exec host3 obol ipsec up hostA-hostB --rundir '$work/host3' 2>&1 | grep 'cannot identify ourselves'"

echo "-- a daemon is killed"
kill -KILL "$(pid host2)"
sleep 1
check "pods, vxlan and hosts reach each other without it" all_pass
start_host 2
check "all conns of host B are up again" within 120 all_up 2
check "pods, vxlan and hosts reach each other" all_pass

echo "-- and one ends"
obol_at host2 down --all >/dev/null 2>&1
check "host A does not send to it in clear" sh -c '! ip netns exec host1 ping -c 3 -i 0.2 -W 2 192.168.0.2'
check "nor do A's pods" sh -c '! ip netns exec pod1 ping -c 3 -i 0.2 -W 2 172.16.2.2'
check "the others go on" within 60 pods 1 3

sleep 1
for n in 1 3; do check "host ${LETTER[n]} has sent IKE and ESP alone" only_protected $n; done
for n in 1 2 3; do
    check "pods of host ${LETTER[n]} saw whom packets came from" sources_kept $n
    check "nothing to port 4500" none_to_4500 $n
done
grep -hE 'WARN|ERROR' host?.log | cut -c 1-200 | sort | uniq -c | sort -rn | head -n 8
((failures == 0)) || tail -n 30 host?.log
kill $(jobs -p) 2>/dev/null
echo "$failures failures"
exit "$failures"
