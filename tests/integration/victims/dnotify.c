/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signals about directories: what is told, how often, by which number, to whom. */
#include "told.h"

static char path[512];
static int signal_number;

static const char *name(const char *suffix)
{
	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	return path;
}

static int watch(const char *suffix, unsigned long events, int number)
{
	int fd;

	must(mkdir(name(suffix), 0755));
	fd = must(fcntl(must(open(path, O_RDONLY)), F_DUPFD, number));
	must(fcntl(fd, F_SETSIG, signal_number));
	must(fcntl(fd, F_NOTIFY, events));
	return fd;
}

static void make(const char *suffix)
{
	close(must(open(name(suffix), O_RDWR | O_CREAT, 0644)));
}

static void rename_file(const char *from, const char *to)
{
	char old[512];

	snprintf(old, sizeof(old), "%s", name(from));
	must(rename(old, name(to)));
}

static void expect(int fd, const char *what)
{
	int got = take_signal(signal_number, 0);

	check(got == fd, "%s: a signal for %d, not %d", what, got, fd);
}

/* ---- a child that has the directory by the same description, and asks for something else ---- */

static int common;
static uint32_t *steps;

static void child(void *unused)
{
	(void)unused;
	must(fcntl(common, F_NOTIFY, DN_DELETE | DN_MULTISHOT));
	victim_arrive(steps);
	victim_meet(steps, 2);
	expect(-1, "child");
}

int main(int argc, char **argv)
{
	int multishot, once, renamed, nobody, cleared;
	pid_t pid;

	victim_init(argc, argv);
	signal_number = SIGRTMIN + 6;
	hold_signal(signal_number);
	steps = victim_shared(4096);
	multishot = watch("multishot", DN_CREATE | DN_MODIFY | DN_MULTISHOT, 40);
	once = watch("once", DN_DELETE, 50);
	renamed = watch("renamed", DN_RENAME | DN_ATTRIB | DN_MULTISHOT, 60);
	nobody = watch("nobody", DN_CREATE | DN_MULTISHOT, 70);
	must(fcntl(nobody, F_SETOWN, 0));
	cleared = watch("cleared", DN_CREATE | DN_MULTISHOT, 80);
	must(fcntl(cleared, F_NOTIFY, 0));
	common = watch("common", DN_CREATE | DN_MULTISHOT, 90);
	make("once/file");
	make("renamed/file");
	expect(-1, "before");
	pid = victim_child(child, NULL);
	victim_meet(steps, 1);
	victim_ready();
	victim_wait();
	expect(-1, "without an event");
	make("multishot/a");
	expect(multishot, "multishot");
	make("multishot/b");
	expect(multishot, "multishot, again");
	must(unlink(name("multishot/a")));
	expect(-1, "what was not asked for");
	make("once/another");
	expect(-1, "what was not asked for once");
	must(unlink(name("once/file")));
	expect(once, "once");
	must(unlink(name("once/another")));
	expect(-1, "once, again");
	must(chmod(name("renamed/file"), 0600));
	expect(renamed, "renamed, attributes");
	rename_file("renamed/file", "renamed/other");
	expect(renamed, "renamed");
	make("nobody/file");
	make("cleared/file");
	expect(-1, "nobody, cleared");
	check(fcntl(nobody, F_GETOWN) == 0, "an owner: %d", fcntl(nobody, F_GETOWN));
	make("common/file");
	expect(common, "common");
	/* the child asked, and the description's owner is told */
	must(unlink(name("common/file")));
	expect(common, "common, deleted");
	victim_arrive(steps);
	victim_reap(pid);
	victim_ok();
	return 0;
}
