#!/bin/sh
# Makes sure the Debian programs the tests talk to are there: sipp, baresip (with its FFmpeg module), linphonec, Chromium,
# Kamailio and PostgreSQL. No daemon is started: the tests start their own, on ports of their own. Then what the engine
# in C is built with; called with `fuzz`, only that and what its fuzzing wants.
set -e
missing=""
command -v gcc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
[ "$(readlink -f "$(command -v python3)")" != /usr/bin/python3.11 ] || [ -e /usr/include/python3.11/Python.h ] || missing="$missing python3-dev"
[ -e /usr/include/srtp2/srtp.h ] || missing="$missing libsrtp2-dev"
if [ "$1" = fuzz ]; then
    command -v clang >/dev/null 2>&1 || missing="$missing clang"
    ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-* >/dev/null 2>&1 || missing="$missing libclang-rt-14-dev"
else
    command -v sipp >/dev/null 2>&1 || missing="$missing sip-tester"
    command -v baresip >/dev/null 2>&1 || missing="$missing baresip"
    [ -e /usr/lib/baresip/modules/avcodec.so ] || missing="$missing baresip-ffmpeg"
    command -v linphonec >/dev/null 2>&1 || missing="$missing linphone-cli"
    command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
    PATH="$PATH:/usr/sbin" command -v kamailio >/dev/null 2>&1 || missing="$missing kamailio"
    for part in tls websocket outbound; do
        ls /usr/lib/*/kamailio/modules/$part.so >/dev/null 2>&1 || missing="$missing kamailio-$part-modules"
    done
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
fi
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing Debian packages:$missing ..."
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then # what packages ask before they start a service: 101 is no
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "missing Debian packages:$missing - install them with: sudo apt-get install$missing" >&2
exit 1
