#!/bin/sh
# Installs programs that optional parts are tested with, where they are missing and can be had without a question.
# Never fails: a test whose program is not here skips and says so.
#   sh tools/install_system.sh chromium bwrap=bubblewrap libseccomp.so.2=libseccomp2 ...
# Each is a program, or a shared library (its name has .so in it); after a = the name of its package, where it differs.
set -u
missing=
there() {
    case "$1" in
        *.so*) ldconfig -p 2>/dev/null | grep -q "$1" || PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q "$1" ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}
for wanted in "$@"; do
    there "${wanted%%=*}" || missing="$missing ${wanted#*=}"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed, and there is no apt-get to install it with:$missing"
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "Some tests will be skipped; to run them: sudo apt-get install --no-install-recommends$missing"
    exit 0
fi
echo "Installing for the tests:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! { $as_root apt-get update -qq && $as_root apt-get install -qq -y --no-install-recommends $missing; } >/dev/null 2>&1; then
    echo "Some tests will be skipped: apt-get could not install$missing"
fi
exit 0
