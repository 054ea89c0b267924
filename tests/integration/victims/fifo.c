/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Named pipes: contents, flags of each end, two names for one fifo, ends in two processes. */
#include "victim.h"

static char path[256];
static char buffer[20000], expected[20000];

static int make(const char *suffix, int flags)
{
	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	if (mkfifo(path, 0600) < 0 && errno != EEXIST)
		must(-1);
	return must(open(path, flags));
}

static void child(void *argument)
{
	int *fds = argument;

	close(fds[0]);
	victim_wait();
	check(write(fds[1], "child", 5) == 5, "child's write");
}

int main(int argc, char **argv)
{
	int both, reader, writer, link_end, ends[2];
	char other[256];
	pid_t pid;

	victim_init(argc, argv);
	ends[0] = make("shared", O_RDONLY | O_NONBLOCK);
	ends[1] = make("shared", O_WRONLY);
	must(fcntl(ends[0], F_SETFL, 0));
	pid = victim_child(child, ends);
	close(ends[1]);

	both = make("both", O_RDWR);
	victim_fill(expected, sizeof(expected), 4);
	check(write(both, expected, sizeof(expected)) == sizeof(expected), "write");
	must(read(both, buffer, 1000));

	reader = make("two", O_RDONLY | O_NONBLOCK);
	writer = make("two", O_WRONLY | O_APPEND);
	must(write(writer, "waiting", 7));

	/* A hard link is another path to the same pipe. */
	snprintf(other, sizeof(other), "%s.link", argv[1]);
	must(link(path, other));
	link_end = must(open(other, O_RDONLY | O_NONBLOCK));

	victim_ready();
	victim_wait();

	check(fcntl(both, F_GETFL) == (O_RDWR | 0100000) || fcntl(both, F_GETFL) == O_RDWR,
	      "flags %#o", fcntl(both, F_GETFL));
	check(read(both, buffer, sizeof(buffer)) == sizeof(buffer) - 1000, "contents: length");
	check(memcmp(buffer, expected + 1000, sizeof(buffer) - 1000) == 0, "contents");
	check(read(link_end, buffer, 3) == 3 && memcmp(buffer, "wai", 3) == 0, "by its other name");
	check(read(reader, buffer, 100) == 4 && memcmp(buffer, "ting", 4) == 0, "reader");
	check(read(reader, buffer, 1) < 0 && errno == EAGAIN, "reader at the end");
	close(writer);
	check(read(reader, buffer, 1) == 0, "end of file");
	check(read(ends[0], buffer, 100) == 5 && memcmp(buffer, "child", 5) == 0, "child's words");
	check(read(ends[0], buffer, 100) == 0, "the child was not the last writer");
	victim_reap(pid);
	victim_ok();
	return 0;
}
