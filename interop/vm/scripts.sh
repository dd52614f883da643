#!/bin/bash
# All scripts of this folder in one VM, some at a time, each with names of namespaces and a /tmp of its own. Prints what each
# said when it ends; exits with the number of those that failed.
#
#   interop/vm/run --script interop/vm/scripts.sh
set -u
AT_A_TIME=${AT_A_TIME:-3}
# The longest first.
SCRIPTS=(pluto both "kernel story" features racoon flannel clear conns generate)
out=$(mktemp -d)

run() { # run NAME [ARGUMENT]
    local began=$SECONDS code
    unshare --mount sh -c 'mkdir -p /run/netns && mount -t tmpfs netns /run/netns && mount -t tmpfs tmp /tmp && exec "$@"' - \
        "interop/vm/$1.sh" "${@:2}" >"$out/$1" 2>&1 </dev/null
    code=$?
    [ $code = 0 ] || touch "$out/$1.failed"
    { echo "--- $1.sh ${*:2} ($((SECONDS - began)) s)"; cat "$out/$1"; } >"$out/$1.report"
    cat "$out/$1.report" # in one piece
}

run kernel auto # before anything has loaded modules
for script in "${SCRIPTS[@]}"; do
    while (($(jobs -rp | wc -l) >= AT_A_TIME)); do wait -n; done
    run $script &
done
wait
failed=$(find "$out" -name '*.failed' | wc -l)
echo "$failed scripts failed"
exit "$failed"
