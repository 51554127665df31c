#!/bin/sh
# Makes sure the Debian programs the tests talk to are there: sipp and baresip (with its FFmpeg module).
set -e
missing=""
command -v sipp >/dev/null 2>&1 || missing="$missing sip-tester"
command -v baresip >/dev/null 2>&1 || missing="$missing baresip"
[ -e /usr/lib/baresip/modules/avcodec.so ] || missing="$missing baresip-ffmpeg"
command -v linphonec >/dev/null 2>&1 || missing="$missing linphone-cli"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing Debian packages:$missing ..."
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "missing Debian packages:$missing - install them with: sudo apt-get install$missing" >&2
exit 1
