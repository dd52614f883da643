#!/bin/bash
# One obol on the kernel's data plane beside others that use the kernel's IPsec too. No peer answers it.
# Says "ok" or "FAIL" for each; exits with the number of failures.
#
#   interop/vm/run --script interop/vm/features.sh
set -u
failures=0
work=$(mktemp -d)
cd "$work" || exit 1
umask 077

check() { # check WHAT COMMAND...
    local what=$1
    shift
    if "$@" >out 2>&1; then echo "ok    $what"; else
        echo "FAIL  $what: $(tail -n 2 out)"
        failures=$((failures + 1))
    fi
}
within() { # within SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}
policy() { ip xfrm policy "$@"; }
told() { grep -F "$1" log | grep -qF "$2"; }
protects() { policy | grep -A 1 -F 'src 172.16.1.0/24 dst 172.16.2.0/24' | grep -q 'dir out priority'; }

cat >config.toml <<'END_OF_CONFIG'
[daemon]
dataplane = "kernel"
[connections.hosts]
local_addrs = ["127.0.0.1"]
remote_addrs = ["127.0.0.2"]
local = { auth = "psk", id = "@left" }
remote = { auth = "psk", id = "@right" }
[connections.hosts.children.net]
local_ts = ["172.16.1.0/24"]
remote_ts = ["172.16.2.0/24"]
start_action = "trap"
[secrets.hosts]
type = "psk"
secret = "0sdm0tc2VjcmV0LXZtLXNlY3JldA=="
END_OF_CONFIG

echo "-- policies of others"
ip link set lo up
policy add src 172.16.1.0/24 dst 172.16.2.0/24 dir out if_id 7 action block
policy add src 172.16.0.0/16 dst 172.16.0.0/16 dir out priority 2000000000 action block
obol run --config config.toml --runtime-dir "$work/run" >>log 2>&1 &
check "one that only an xfrm interface meets is not in the way" within 30 protects
check "one that was there and comes later is told" within 10 told 172.16.0.0/16 'whose policies come first'
policy add src 172.16.1.7/32 dst 172.16.2.7/32 dir out priority 1
check "one that is added and lets packets pass in clear is told" within 10 told 172.16.1.7/32 'passes in clear'
policy add src 172.16.8.0/24 dst 172.16.9.0/24 dir out priority 1
sleep 1
check "one about other packets is not" sh -c '! grep -q 172.16.8.0 log'
check "nor the one of the interface" sh -c '[ "$(grep -c "another program" log)" = 2 ]'
kill $!
wait
obol purge --config config.toml >>log 2>&1
check "theirs are all there, and nothing of ours" sh -c '[ "$(ip xfrm policy | grep -c "dir ")" = 4 ]'
grep -hE 'WARN|ERROR' log | cut -c 1-300
echo "$failures failures"
exit "$failures"
