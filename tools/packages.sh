#!/bin/sh
# packages.sh WHO PACKAGE...: install the Debian packages that are missing; without root, say the line that does.
#
# Nothing is asked of the network when all are there, and no server that comes with a package is started.
# Elsewhere than on Debian it does nothing: what is missing then fails where it is needed.
set -eu
who=$1
shift
command -v dpkg-query >/dev/null || exit 0
missing=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>&1 |
	sed -n 's/^dpkg-query: no packages found matching //p; s/ \(config-files\|not-installed\|unpacked\|half-.*\)$//p' | paste -sd ' ')
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "$who: expected Debian packages, found these missing: $missing; run: sudo apt-get install $missing" >&2
	exit 1
fi
echo "$who: installing $missing" >&2
apt-get update -qq
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	trap 'exit 130' INT # or dash would run no trap at all
	trap 'exit 143' TERM HUP
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
fi
# shellcheck disable=SC2086 # they are words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
