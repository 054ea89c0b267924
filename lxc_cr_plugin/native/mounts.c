/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mounts by descriptor. They are made and attached without a path ever being followed: what lies in
 * a container is not trusted, and a mount can be filled before anybody sees it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "api.h"

static int result(long value)
{
	return value < 0 ? -errno : (int)value;
}

int cr_enter_mounts(int pidfd, int root_fd, bool with_user)
{
	if (setns(pidfd, CLONE_NEWNS | (with_user ? CLONE_NEWUSER : 0)) < 0)
		return -errno;
	/* The root of the namespace is not always that of the container; paths in options of a file
	 * system begin there. */
	if (fchdir(root_fd) < 0)
		return -errno;
	return result(chroot("."));
}

int cr_open_in_root(int root_fd, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return result(syscall(SYS_openat2, root_fd, path, &how, sizeof(how)));
}

int cr_mount_id(int fd, uint64_t *ret)
{
	struct statx found;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &found) < 0)
		return -errno;
	*ret = found.stx_mnt_id;
	return 0;
}

int cr_mount_clone(int fd)
{
	return result(open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
}

int cr_filesystem_open(const char *type)
{
	return result(fsopen(type, FSOPEN_CLOEXEC));
}

int cr_filesystem_option(int fd, const char *key, const char *value)
{
	return value ? result(fsconfig(fd, FSCONFIG_SET_STRING, key, value, 0))
		     : result(fsconfig(fd, FSCONFIG_SET_FLAG, key, NULL, 0));
}

int cr_filesystem_mount(int fd)
{
	if (fsconfig(fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	return result(fsmount(fd, FSMOUNT_CLOEXEC, 0));
}

int cr_mount_set(int fd, uint64_t set, uint64_t clear, uint64_t propagation)
{
	struct mount_attr attr = {.attr_set = set, .attr_clr = clear, .propagation = propagation};

	return result(mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)));
}

int cr_mount_attach(int mount_fd, int place_fd)
{
	return result(move_mount(mount_fd, "", place_fd, "",
				 MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}
