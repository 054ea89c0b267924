/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Devices without a state of their own: null, zero, full, random, urandom. */
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "victim.h"

static struct device {
	const char *path;
	int flags;
	unsigned int minor;
	int fd;
} devices[] = {
	{"/dev/null", O_RDWR, 3, -1},
	{"/dev/null", O_WRONLY | O_APPEND, 3, -1},
	{"/dev/zero", O_RDWR, 5, -1},
	{"/dev/full", O_RDWR | O_CLOEXEC, 7, -1},
	{"/dev/random", O_RDONLY | O_NONBLOCK, 8, -1},
	{"/dev/urandom", O_RDONLY, 9, -1},
};

enum { DEVICES = sizeof(devices) / sizeof(devices[0]) };

int main(int argc, char **argv)
{
	char buffer[64] = "x";
	char *zero;

	victim_init(argc, argv);
	for (int i = 0; i < DEVICES; i++)
		devices[i].fd = must(open(devices[i].path, devices[i].flags));
	/* Anonymous memory of the old school. */
	zero = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, devices[2].fd, 0);
	check(zero != MAP_FAILED, "mmap of /dev/zero");
	victim_fill(zero, 4096, 3);
	victim_ready();
	victim_wait();

	for (int i = 0; i < DEVICES; i++) {
		struct device *device = &devices[i];
		struct stat stat;

		must(fstat(device->fd, &stat));
		check(stat.st_rdev == makedev(1, device->minor), "%s is %#lx", device->path,
		      stat.st_rdev);
		check((fcntl(device->fd, F_GETFL) & ~0100000) == (device->flags & ~O_CLOEXEC),
		      "%s: flags %#o", device->path, fcntl(device->fd, F_GETFL));
		check(fcntl(device->fd, F_GETFD) == (device->flags & O_CLOEXEC ? FD_CLOEXEC : 0),
		      "%s: descriptor flags", device->path);
	}
	check(read(devices[0].fd, buffer, 1) == 0, "/dev/null");
	check(read(devices[2].fd, buffer, 64) == 64 && buffer[0] == 0, "/dev/zero");
	check(write(devices[3].fd, buffer, 1) < 0 && errno == ENOSPC, "/dev/full");
	check(read(devices[4].fd, buffer, 8) == 8, "/dev/random");
	check(read(devices[5].fd, buffer, 8) == 8, "/dev/urandom");
	check(victim_differs(zero, 4096, 3) < 0 && zero[4096] == 0, "mapping of /dev/zero");
	victim_ok();
	return 0;
}
