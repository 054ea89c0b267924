/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The program that runs was deleted, as by an upgrade; its parent runs it too, and another file has
 * its name now. */
#include <sys/sendfile.h>

#include "victim.h"

static char path[256];

static void check_exe(void)
{
	char now[300] = "", wanted[300];

	must(readlink("/proc/self/exe", now, sizeof(now) - 1));
	snprintf(wanted, sizeof(wanted), "%s (deleted)", path);
	/* a file that has its name now leaves it without one */
	check(strcmp(now, wanted) == 0 || strstr(now, "/#"), "was %s, is %s", wanted, now);
}

static void copy(const char *to)
{
	int from = must(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
	int fd = must(open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755));
	struct stat stat;

	must(fstat(from, &stat));
	check(sendfile(fd, from, NULL, stat.st_size) == stat.st_size, "sendfile");
	close(from);
	close(fd);
}

static void child(void *argument)
{
	(void)argument;
	victim_wait();
	check_exe();
}

int main(int argc, char **argv)
{
	char *arguments[] = {argv[0], argv[1], "copy", NULL};
	pid_t pid;

	victim_path = argv[1];
	snprintf(path, sizeof(path), "%s.program", victim_path);
	if (argc == 2) {
		victim_init(argc, argv);
		copy(path);
		must(execv(path, arguments));
	}
	must(unlink(path));
	close(must(open(path, O_WRONLY | O_CREAT, 0600)));
	pid = victim_child(child, NULL);
	victim_ready();
	victim_wait();
	check_exe();
	victim_reap(pid);
	victim_ok();
	return 0;
}
