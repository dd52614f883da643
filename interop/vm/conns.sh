#!/bin/bash
# Conns of pluto's files added, replaced, routed and deleted one by one beside others with the same peer, on the kernel's data
# plane: the kernel has their policies at once, and no packet passes in clear. Says "ok" or "FAIL" for each; exits with the number
# of failures.
#
#   interop/vm/run --script interop/vm/conns.sh
set -u
. interop/vm/common.sh

configure() { # configure HOST
    cat >"$1.conf" <<END
config setup
	secretsfile=$work/ipsec.secrets

conn %default
	left=192.0.2.1
	leftid=@left
	right=192.0.2.2
	rightid=@right
	authby=secret

conn hosts
	auto=add

conn nets
	leftsubnet=172.16.1.0/24
	rightsubnet=172.16.2.0/24
	auto=ignore
END
    printf '[daemon]\ndataplane = "kernel"\n' >"$1.toml"
    on "$1" obol run --config "$1.toml" --ipsec-conf "$work/$1.conf" --runtime-dir "$work/$1" >>"$1.log" 2>&1 &
}
ipsec_at() { on "$1" obol ipsec "${@:2}" --rundir "$work/$1"; }
echoes() { on left ping -c 3 -i 0.2 -W 5 "$@"; }
nets_in_policies() { on left ip xfrm policy | grep -q 'src 172.16.1.0/24 dst 172.16.2.0/24'; }

wire
echo '@left @right : PSK "a secret of both of them"' >ipsec.secrets
for host in left right; do configure $host; done
for host in left right; do check "$host answers" within 60 ipsec_at $host status; done
# What leaves: what comes in is seen again when the kernel has opened it.
for host in left right; do on $host tcpdump -Z root -n -Q out -i wire -U -w $host.pcap 'ip proto 50 or icmp' 2>/dev/null & done
check "the hosts come up" ipsec_at left up hosts
check "packets pass between them" echoes 192.0.2.2
for host in left right; do check "a conn with the same peer is added at $host" ipsec_at $host add nets; done
check "the kernel has its policy" nets_in_policies
check "without an SA nothing passes" not echoes -I 172.16.1.1 172.16.2.1
check "it comes up" ipsec_at left up nets
check "packets pass" echoes -I 172.16.1.1 172.16.2.1
for verb in replace route unroute; do
    check "$verb" ipsec_at left $verb nets
    check "and packets pass on" echoes -I 172.16.1.1 172.16.2.1
done
check "and between the hosts" echoes 192.0.2.2
for host in left right; do
    check "what leaves $host is ESP" test "$(tcpdump -n -r $host.pcap 'ip proto 50' 2>/dev/null | wc -l)" -ge 12
    check "and nothing of it in clear" test "$(tcpdump -n -r $host.pcap 'not ip proto 50' 2>/dev/null | wc -l)" = 0
done
check "it is deleted" ipsec_at left delete nets
# It protects until the SA is gone.
check "with its policy" within 10 not nets_in_policies
check "the hosts are up all the same" echoes 192.0.2.2
((failures == 0)) || tail -n 30 left.log right.log
clear_away
rm -f ./*.pcap
echo "$failures failures"
exit "$failures"
