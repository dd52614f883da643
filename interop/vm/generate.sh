#!/bin/bash
# Policies that are made for a peer (racoon's generate_policy), and 3DES, on the kernel's data plane: left has setkey's policies,
# right makes what left asks for.
#
#   interop/vm/run --script interop/vm/generate.sh
set -u
. interop/vm/common.sh
wire

for host in left right; do
    mkdir $host
    printf '[daemon]\ndataplane = "kernel"\nallow = ["3des"]\nlog = "debug"\n' >$host.toml
    echo '* a secret of both hosts, for tests' >$host/psk.txt
    cat >$host/racoon.conf <<CONF
path pre_shared_key "$work/$host/psk.txt";
remote anonymous {
    exchange_mode main;
    nat_traversal off;
    $([ $host = right ] && echo 'generate_policy require;')
    proposal { encryption_algorithm 3des; hash_algorithm sha256; authentication_method pre_shared_key; dh_group modp2048; }
}
sainfo anonymous { encryption_algorithm 3des; authentication_algorithm hmac_sha256; }
CONF
done
cat >left/policies <<'SETKEY'
spdadd 192.0.2.1 192.0.2.2[27017] tcp -P out ipsec esp/transport//require;
spdadd 192.0.2.2[27017] 192.0.2.1 tcp -P in ipsec esp/transport//require;
SETKEY

tool() { on "$1" obol --runtime-dir "$work/$1" --config "$work/$1.toml" "${@:2}"; }
racoon() { tool "$1" racoon -F -f "$work/$1/racoon.conf" >>"$1.log" 2>&1 & }
policies() { tool right setkey -DP; }
has() { policies | grep -q "$1"; }
serve() {
    on right python3 -c '
import socket, sys
with socket.create_server(("192.0.2.2", int(sys.argv[1]))) as server:
    while True:
        connection, _ = server.accept()
        connection.sendall(connection.recv(100))
        connection.close()
' "$1" &
}
talks() { # talks PORT
    on left timeout 8 python3 -c '
import socket, sys
with socket.create_connection(("192.0.2.2", int(sys.argv[1])), 7) as connection:
    connection.sendall(b"hello")
    sys.exit(connection.recv(100) != b"hello")
' "$1"
}

serve 27017
serve 27018
check "setkey takes the policies" tool left setkey -f left/policies
racoon left
racoon right
check "racoon runs on the left" within 20 tool left racoonctl show-sa isakmp
check "racoon runs on the right" within 20 tool right racoonctl show-sa isakmp
check "there is no policy on the right" has "No SPD entries"
check "a connection comes up" talks 27017
check "by 3DES, as the kernel says" sh -c "ip netns exec right ip xfrm state | grep -q 'enc cbc(des3_ede)'"
check "by 3DES, as setkey says" sh -c "ip netns exec right obol --runtime-dir $work/right setkey -D | grep -q 'E: 3des-cbc  xxxxxxxx'"
check "the right has a policy for it" has "192.0.2.2\[27017\] 192.0.2.1\[any\] tcp"
check "that says require" has "esp/transport//require"
check "and when it was used" has "lastused: [A-Z]"
check "other ports are left alone" talks 27018
check "the SA is closed by the left" tool left racoonctl flush-sa isakmp
check "the policy stays for what TCP has yet to say" has "192.0.2.2\[27017\] 192.0.2.1\[any\] tcp"
check "and then goes" within 150 has "No SPD entries"
check "another connection comes up" talks 27017
kill -9 "$(pid left)"
check "setkey -FP opens the left" tool left setkey -FP
on left ip xfrm state flush
on left ip xfrm policy flush
check "the right stays closed" not talks 27017
check "its policy is there" has "192.0.2.2\[27017\] 192.0.2.1\[any\] tcp"
check "setkey -FP opens the right" tool right setkey -FP
# It goes with the SA, once the peer, which is dead, has not confirmed its end.
check "its policy is gone" within 40 has "No SPD entries"
check "and all passes in clear" within 20 talks 27017
[ $failures = 0 ] || cat left.log right.log
clear_away
echo "$failures failures"
exit $failures
