/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pipes: contents, capacity, packet mode, ends that are shared, closed, or opened twice. */
#include <poll.h>
#include <signal.h>

#include "victim.h"

enum { LARGE = 256 * 1024, HELD = 100000 };

struct pipe {
	int read, write;
};

static struct pipe make(int flags)
{
	int fds[2];

	must(pipe2(fds, flags));
	return (struct pipe){fds[0], fds[1]};
}

static void read_exactly(int fd, void *buffer, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t got = read(fd, (char *)buffer + done, size - done);

		check(got > 0, "pipe gave %zd after %zu of %zu bytes", got, done, size);
		done += got;
	}
}

static char buffer[HELD], expected[HELD];

/* More than the usual 64 KiB, beginning in the middle of a page. */
static void check_large(struct pipe large)
{
	check(fcntl(large.read, F_GETPIPE_SZ) == LARGE, "capacity is %d",
	      fcntl(large.read, F_GETPIPE_SZ));
	victim_fill(expected, HELD, 7);
	read_exactly(large.read, buffer, HELD - 100);
	check(memcmp(buffer, expected + 100, HELD - 100) == 0, "large pipe's contents changed");
}

static void check_packets(struct pipe packets)
{
	check(fcntl(packets.write, F_GETFL) & O_DIRECT, "packet mode lost");
	check(read(packets.read, buffer, 100) == 3 && memcmp(buffer, "one", 3) == 0, "packet 1");
	check(read(packets.read, buffer, 100) == 5 && memcmp(buffer, "three", 5) == 0, "packet 2");
	/* The rest of a packet that was read short is thrown away. */
	check(read(packets.read, buffer, 2) == 2 && memcmp(buffer, "fi", 2) == 0, "packet 3");
	check(read(packets.read, buffer, 100) == 3 && memcmp(buffer, "end", 3) == 0, "packet 4");
}

/* The end that reads is seen first, and does not know of packets. */
static void check_single(struct pipe single)
{
	check(read(single.read, buffer, 2) == 2 && memcmp(buffer, "si", 2) == 0, "single packet");
	must(write(single.write, "next", 4));
	check(read(single.read, buffer, 100) == 4 && memcmp(buffer, "next", 4) == 0,
	      "the rest of a packet was kept");
}

static void check_full(struct pipe full, size_t held)
{
	check(write(full.write, "x", 1) < 0 && errno == EAGAIN, "a full pipe takes more");
	while (held) {
		ssize_t got = read(full.read, buffer, sizeof(buffer));

		check(got > 0 && (size_t)got <= held, "full pipe gave %zd, %zu left", got, held);
		held -= got;
	}
	check(read(full.read, buffer, 1) < 0 && errno == EAGAIN, "full pipe held more");
}

struct shared {
	struct pipe pipe;
};

static void child(void *argument)
{
	struct shared *shared = argument;

	close(shared->pipe.read);
	victim_wait();
	check(write(shared->pipe.write, "from the child", 14) == 14, "child's write");
}

int main(int argc, char **argv)
{
	struct pipe large, packets, single, full, no_reader, no_writer, empty;
	struct shared shared;
	size_t held = 0;
	int twice;
	char path[32];
	pid_t pid;

	victim_init(argc, argv);
	signal(SIGPIPE, SIG_IGN);

	large = make(0);
	must(fcntl(large.write, F_SETPIPE_SZ, LARGE));
	victim_fill(expected, HELD, 7);
	check(write(large.write, expected, HELD) == HELD, "write");
	read_exactly(large.read, buffer, 100);

	packets = make(O_DIRECT);
	must(write(packets.write, "one", 3));
	must(write(packets.write, "three", 5));
	must(write(packets.write, "five5", 5));
	must(write(packets.write, "end", 3));

	single = make(O_DIRECT);
	must(write(single.write, "single", 6));

	full = make(O_NONBLOCK);
	for (ssize_t put; (put = write(full.write, expected, 4096)) > 0;)
		held += put;

	no_reader = make(0);
	close(no_reader.read);
	no_writer = make(0);
	must(write(no_writer.write, "last", 4));
	close(no_writer.write);

	empty = make(O_NONBLOCK | O_CLOEXEC);
	/* A second description of the same pipe, with flags of its own. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", large.read);
	twice = must(open(path, O_RDONLY | O_NONBLOCK));

	shared.pipe = make(0);
	pid = victim_child(child, &shared);
	close(shared.pipe.write);

	victim_ready();
	victim_wait();

	check_large(large);
	check(read(twice, buffer, 1) < 0 && errno == EAGAIN, "second description");
	check_packets(packets);
	check_single(single);
	check_full(full, held);
	check(write(no_reader.write, "x", 1) < 0 && errno == EPIPE, "pipe got a reader");
	check(read(no_writer.read, buffer, 100) == 4, "pipe without a writer: contents");
	check(read(no_writer.read, buffer, 100) == 0, "pipe without a writer: end of file");
	check(read(empty.read, buffer, 1) < 0 && errno == EAGAIN, "empty pipe");
	check(fcntl(empty.read, F_GETFD) == FD_CLOEXEC, "close-on-exec lost");
	read_exactly(shared.pipe.read, buffer, 14);
	check(memcmp(buffer, "from the child", 14) == 0, "child's words");
	check(read(shared.pipe.read, buffer, 1) == 0, "the child was not the last writer");
	victim_reap(pid);
	victim_ok();
	return 0;
}
