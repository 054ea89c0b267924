# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
#
# Sourced by demo.sh, test.sh and the Makefile: from a bare Debian 12 to a working .venv.
#
#	cr_bootstrap demo      what the plugin needs to run
#	cr_bootstrap test      the same, the linters and the test tools
#	cr_bootstrap test whole    the same, and the Debian tree of some tests, while all that is made
#	cr_bootstrap bench     the same, and what draws the curves
#
# Looks before it acts: a second run touches neither network nor disk. Works from any directory and
# with another python first in PATH: only Debian's own is used, because liblxc's binding is built for it.

CR_PYTHON=/usr/bin/python3

CR_PACKAGES_DEMO="ca-certificates gcc libc6-dev pkg-config python3 python3-dev python3-venv
	libcbor-dev libnftables1 lxc lxc-dev lxc-templates busybox-static"
CR_PACKAGES_TEST="iproute2 nftables groff-base libsqlite3-dev mmdebstrap musl-tools shellcheck btrfs-progs rsync xfsprogs
	gdb strace"

cr_say() {
	echo "==> $*"
}

cr_die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

cr_bootstrap() {
	cr_check_host
	case $1 in
	demo) cr_install_packages "$CR_PACKAGES_DEMO" ;;
	test | bench) cr_install_packages "$CR_PACKAGES_DEMO $CR_PACKAGES_TEST" ;;
	*) cr_die "cr_bootstrap knows 'demo', 'test' and 'bench', not '$1'" ;;
	esac
	# Two of us in one checkout would build into each other's files; the lock ends with this subshell.
	(
		flock 9
		cr_make_venv
		# If that fails, the tests try again, and tell why.
		[ "$2" != whole ] || (cd "$CR_ROOT" && exec .venv/bin/python -m tests.integration.debian) &
		cr_install_project "$1"
		cr_build_engine
		wait
	) 9>"$CR_ROOT/.bootstrap.lock" || exit 1
}

cr_check_host() {
	[ "$(id -u)" -eq 0 ] ||
		cr_die "Only root may start containers and trace their processes. Run: sudo $0"
	[ "$(uname -m)" = x86_64 ] ||
		cr_die "The engine speaks x86-64 only, this machine is $(uname -m)"
	grep -q ' - cgroup' /proc/self/mountinfo ||
		cr_die "No cgroup hierarchy is mounted, LXC cannot start a container here." \
			"Mount one: mount -t cgroup2 none /sys/fs/cgroup"
}

cr_install_packages() {
	missing=
	for package in $1; do
		[ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	command -v apt-get >/dev/null ||
		cr_die "There is no apt-get here. Install what these Debian packages hold and try again:$missing"
	cr_say "Installing by apt-get:$missing"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq || cr_die "apt-get update failed. Are /etc/apt/sources.list and the network right?"
	# shellcheck disable=SC2086 # a list of words
	apt-get install -qq --yes --no-install-recommends $missing >/dev/null ||
		cr_die "apt-get could not install:$missing"
}

cr_make_venv() {
	# A checkout that was moved, or a .venv of another python, is made anew.
	if [ "$(cat "$CR_ROOT/.venv/stamp-venv" 2>/dev/null)" = "$CR_ROOT $($CR_PYTHON --version)" ]; then
		return 0
	fi
	$CR_PYTHON -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
		cr_die "$CR_PYTHON is $($CR_PYTHON --version), 3.11 or newer is needed (Debian 12 has it)"
	cr_say "Making $CR_ROOT/.venv"
	rm -rf "$CR_ROOT/.venv"
	$CR_PYTHON -m venv "$CR_ROOT/.venv" || exit 1
	"$CR_ROOT/.venv/bin/pip" install -q --disable-pip-version-check \
		'setuptools>=66.1' wheel 'cffi>=1.15' || exit 1
	echo "$CR_ROOT $($CR_PYTHON --version)" >"$CR_ROOT/.venv/stamp-venv"
}

# The stamps hold the digest of what was installed or built from.
cr_install_project() {
	# The commands too: pip copies them.
	digest=$(cd "$CR_ROOT" && sha256sum setup.cfg setup.py pyproject.toml bin/* | sha256sum)
	case $1 in
	demo) target=$CR_ROOT stamps="demo test bench" ;;
	test) target="${CR_ROOT}[test]" stamps="test bench" ;;
	bench) target="${CR_ROOT}[test,bench]" stamps=bench ;;
	esac
	for stamp in $stamps; do
		[ "$(cat "$CR_ROOT/.venv/stamp-$stamp" 2>/dev/null)" != "$digest" ] || return 0
	done
	cr_say "Installing $target and what it needs from PyPI"
	# Without isolation: the build tools are in .venv already, and are fetched once, not per build.
	# In the mode of a plain path: the other one runs code at every start of this python, for 20 ms.
	"$CR_ROOT/.venv/bin/pip" install -q --disable-pip-version-check --no-build-isolation \
		--config-settings editable_mode=compat -e "$target" || cr_die "pip could not install $target"
	cr_native_digest >"$CR_ROOT/.venv/stamp-native"
	echo "$digest" >"$CR_ROOT/.venv/stamp-$1"
}

cr_build_engine() {
	stamp="$CR_ROOT/.venv/stamp-native"
	digest=$(cr_native_digest)
	if [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] &&
		ls "$CR_ROOT"/lxc_cr_plugin/native/_engine*.so >/dev/null 2>&1; then
		return 0
	fi
	cr_say "Building the engine"
	rm -f "$stamp"
	(cd "$CR_ROOT" && .venv/bin/python setup.py --quiet build_ext --inplace --force) ||
		cr_die "The engine does not build"
	echo "$digest" >"$stamp"
}

cr_native_digest() {
	(
		cd "$CR_ROOT" || exit 1
		find lxc_cr_plugin/native \( -name '*.[ch]' -o -name 'build_engine.py' \) ! -name _engine.c |
			LC_ALL=C sort | xargs sha256sum | sha256sum
	)
}
