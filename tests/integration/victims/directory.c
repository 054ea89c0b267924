/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Directories: a listing that was interrupted goes on where it was; descriptors serve openat(). */
#include <dirent.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "victim.h"

enum { ENTRIES = 2000 };

static bool seen[ENTRIES];

/* A small buffer: the rest of the listing is still to come from the kernel. */
static int list(int fd, int calls)
{
	char buffer[1024];
	int found = 0;
	long got;

	while (calls-- && (got = must(syscall(SYS_getdents64, fd, buffer, sizeof(buffer)))) > 0) {
		for (long at = 0; at < got;) {
			struct dirent64 *entry = (struct dirent64 *)(buffer + at);
			int number;

			at += entry->d_reclen;
			if (sscanf(entry->d_name, "entry-%d", &number) != 1)
				continue;
			check(!seen[number], "entry %d came twice", number);
			seen[number] = true;
			found++;
		}
	}
	return found;
}

int main(int argc, char **argv)
{
	char path[256], name[512];
	struct stat before, now;
	int fd, walker, search, found;

	victim_init(argc, argv);
	snprintf(path, sizeof(path), "%s.dir", argv[1]);
	must(mkdir(path, 0755));
	fd = must(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (int i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "entry-%d", i);
		close(must(openat(fd, name, O_CREAT | O_WRONLY, 0600)));
	}
	walker = must(open(path, O_RDONLY | O_DIRECTORY));
	search = must(open(path, O_PATH | O_DIRECTORY));
	found = list(walker, 7);
	check(found > 0 && found < ENTRIES, "found %d", found);
	must(fstat(fd, &before));
	victim_ready();
	victim_wait();

	must(fstat(fd, &now));
	check(now.st_ino == before.st_ino, "another directory");
	check(fcntl(fd, F_GETFD) == FD_CLOEXEC, "close-on-exec lost");
	check(fcntl(search, F_GETFL) & O_PATH, "O_PATH lost");
	close(must(openat(search, "entry-5", O_RDONLY)));
	found += list(walker, -1);
	check(found == ENTRIES, "%d of %d entries seen", found, ENTRIES);
	victim_ok();
	return 0;
}
