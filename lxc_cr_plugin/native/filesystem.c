/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls that snapshots of files need and Python does not have. They run in the command's own
 * process, some of them inside the stop.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "api.h"
#include "cleanup.h"

static int open_piece(int root_fd, const char *path, int flags, int mode)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned int)(flags | O_CLOEXEC | O_NOFOLLOW),
		.mode = (uint64_t)(unsigned int)mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
			   RESOLVE_NO_XDEV,
	};
	long fd;

	/* EAGAIN: something was renamed meanwhile, and nobody can tell whether ".." stayed inside */
	do
		fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN);
	return fd < 0 ? -errno : (int)fd;
}

int cr_open_beneath(int root_fd, const char *path, int flags, int mode)
{
	_cleanup_close_ int above = -1;

	/* the kernel takes no longer ones at once, but whoever goes step by step makes them */
	while (strlen(path) >= PATH_MAX) {
		const char *slash = memrchr(path, '/', PATH_MAX - 1);
		_cleanup_free_ char *piece = slash ? strndup(path, (size_t)(slash - path)) : NULL;
		int fd = piece ? open_piece(above < 0 ? root_fd : above, piece,
					    O_PATH | O_DIRECTORY, 0)
			       : -ENAMETOOLONG;

		if (fd < 0)
			return fd;
		if (above >= 0)
			close(above);
		above = fd;
		path = slash + 1;
	}
	return open_piece(above < 0 ? root_fd : above, path, flags, mode);
}

/*
 * Pages leave this clean and write-protected: the next store into a mapping faults, and moves ctime.
 * No journal is committed, so this costs next to nothing for a file that is clean.
 */
int cr_write_back(int fd)
{
	enum {
		WRITE_AND_WAIT = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				 SYNC_FILE_RANGE_WAIT_AFTER,
	};

	return sync_file_range(fd, 0, 0, WRITE_AND_WAIT) < 0 ? -errno : 0;
}

int cr_sync_filesystem(int fd)
{
	return syncfs(fd) < 0 ? -errno : 0;
}

int cr_exchange(int one_dir, const char *one, int other_dir, const char *other)
{
	return renameat2(one_dir, one, other_dir, other, RENAME_EXCHANGE) < 0 ? -errno : 0;
}

int cr_descriptor_of(int pid, int fd)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), copy;

	if (pidfd < 0)
		return -errno;
	copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (copy < 0)
		copy = -errno;
	close(pidfd);
	return copy;
}

/*
 * The kernel gets and clears as many bytes for a setting of sysctl(8) as it is asked for, which takes
 * longer than all else: most are a number. A value that does not fit is cut off, perhaps between
 * two numbers.
 */
static ssize_t read_start(int fd, uint8_t *buffer, size_t longest)
{
	enum { MOST = 64, LONGEST_NUMBER = 24 };
	ssize_t length;

	if (longest <= MOST)
		return pread(fd, buffer, longest, 0);
	length = pread(fd, buffer, MOST, 0);
	return length < MOST - LONGEST_NUMBER ? length : pread(fd, buffer, longest, 0);
}

int cr_read_all(const int *fds, size_t count, size_t longest, uint8_t *buffer, size_t room,
		int32_t *lengths)
{
	for (size_t i = 0; i < count; i++) {
		ssize_t length;

		if (room < longest)
			return -ENOBUFS;
		length = read_start(fds[i], buffer, longest);
		lengths[i] = length < 0 ? -errno : (int32_t)length;
		if (length > 0) {
			buffer += length;
			room -= (size_t)length;
		}
	}
	return 0;
}
