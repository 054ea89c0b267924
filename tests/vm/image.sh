#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The disk of a virtual machine: one ext4 file system, whose kernel lies beside it.
#
#	image.sh base SUITE IMAGE	make IMAGE, IMAGE.vmlinuz and IMAGE.initrd of a Debian suite
#	image.sh install IMAGE		copy this checkout into it, install what it needs, build the engine
#
# Both work in a chroot, at the speed of the host. Run by tests/vm/machine.py, in a mount namespace
# of its own: whatever happens, no mount outlives this script.
set -eu

CR_ROOT=$(cd "$(dirname "$0")/../.." && pwd -P)
. "$CR_ROOT/tools/bootstrap.sh"

MIRROR=http://deb.debian.org/debian
SIZE=6G
PACKAGES="linux-image-cloud-amd64 systemd-sysv udev kmod openssh-server procps"
CHECKOUT=/root/lxc-cr # in the virtual machine

root=$(mktemp -d)
trap 'umount -R "$root" 2>/dev/null || true; rmdir "$root"' EXIT

make_base() {
	suite=$1 image=$2
	truncate -s "$SIZE" "$image.new"
	mkfs.ext4 -q -F -L root "$image.new"
	mount -o loop "$image.new" "$root"
	# shellcheck disable=SC2086 # a list of words
	mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Apt::Install-Recommends false' \
		--include="$(echo $PACKAGES $CR_PACKAGES_DEMO $CR_PACKAGES_TEST | tr ' ' ',')" \
		"$suite" "$root" "$MIRROR"
	configure
	cp -L "$root/vmlinuz" "$image.vmlinuz"
	cp -L "$root/initrd.img" "$image.initrd"
	umount "$root"
	mv "$image.new" "$image"
}

# Reached by ssh only, at an address that QEMU gives it.
configure() {
	echo lxc-cr-vm >"$root/etc/hostname"
	printf '[Match]\nName=en*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/all.network"
	echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
	mkdir -p "$root/root/.ssh"
	chmod 700 "$root/root/.ssh"
	cp "$(dirname "$image")/key.pub" "$root/root/.ssh/authorized_keys"
	chroot "$root" systemctl --quiet enable systemd-networkd
	chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
}

install_checkout() {
	mount -o loop "$1" "$root"
	mkdir -p "$root$CHECKOUT"
	rsync -a --delete --exclude=/.git --filter=':- .gitignore' "$CR_ROOT/" "$root$CHECKOUT/"
	for directory in dev proc sys; do
		mount --rbind "/$directory" "$root/$directory"
	done
	# PyPI as the host reaches it.
	mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
	mount --bind /etc/ssl/certs "$root/etc/ssl/certs"
	chroot "$root" env -u PIP_FIND_LINKS PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		CR_ROOT=$CHECKOUT sh -euc ". $CHECKOUT/tools/bootstrap.sh; cr_bootstrap test"
}

case $1 in
base) make_base "$2" "$3" ;;
install) install_checkout "$2" ;;
esac
