/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open file descriptions that are in flight in unix sockets (SCM_RIGHTS), most of them open nowhere
 * else; those of sockets that hold others; a circle; locks that they have; and senders that have ended.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "pass.h"

enum { MANY = 40 };

struct pair {
	int a, b;
};

static struct pair make(int type)
{
	int ends[2];

	must(socketpair(AF_UNIX, type, 0, ends));
	return (struct pair){ends[0], ends[1]};
}

static void put_one(int fd, const char *text, int passed)
{
	pass(fd, text, &passed, 1);
}

/* The next message is @text with @count descriptors; who sent it, where that is told. */
static struct ucred take(int fd, const char *text, int *fds, size_t count)
{
	char control[CMSG_SPACE(MOST * sizeof(int)) + 256], buffer[256];
	struct iovec iov = {buffer, sizeof(buffer)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct ucred sender = {0};
	size_t found = 0;

	check(got == (ssize_t)strlen(text) && memcmp(buffer, text, (size_t)got) == 0,
	      "got %zd bytes '%.20s', not '%s'", got, buffer, text);
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
	     header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_type == SCM_CREDENTIALS)
			memcpy(&sender, CMSG_DATA(header), sizeof(sender));
		if (header->cmsg_type != SCM_RIGHTS)
			continue;
		found = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		check(found == count, "%zu descriptors with '%s'", found, text);
		memcpy(fds, CMSG_DATA(header), found * sizeof(int));
	}
	check(found == count, "no descriptors with '%s'", text);
	return sender;
}

static int take_one(int fd, const char *text)
{
	int taken;

	take(fd, text, &taken, 1);
	return taken;
}

static void check_event(int fd, uint64_t wanted)
{
	uint64_t value = 0;

	check(read(fd, &value, sizeof(value)) == sizeof(value) && value == wanted,
	      "an eventfd has %llu, not %llu", (unsigned long long)value,
	      (unsigned long long)wanted);
	close(fd);
}

static void check_same(int a, int b)
{
	check(syscall(SYS_kcmp, getpid(), getpid(), 0, a, b) == 0, "not the same description");
}

/* ---- a stream: what is in flight begins and ends with a piece of it ---- */

static int reading_end, kept;

static struct pair make_stream(void)
{
	struct pair pair = make(SOCK_STREAM);
	char path[256];
	int ends[2], file;

	must(pipe(ends));
	reading_end = ends[0];
	snprintf(path, sizeof(path), "%s.passed", victim_path);
	file = must(open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600));
	check(write(file, "contents", 8) == 8 && lseek(file, 3, SEEK_SET) == 3, "file");
	must(unlink(path));
	kept = must(eventfd(7, 0));
	pass(pair.a, "before", NULL, 0);
	pass(pair.a, "|with", (int[]){ends[1], file, dup(kept)}, 3);
	pass(pair.a, "after", NULL, 0);
	put_one(pair.a, "last", dup(kept));
	return pair;
}

static void check_stream(struct pair pair)
{
	char text[16] = "";
	int fds[3];

	take(pair.b, "before|with", fds, 3);
	check(write(fds[0], "through", 7) == 7 && read(reading_end, text, 7) == 7 &&
		      strcmp(text, "through") == 0,
	      "the pipe is another one");
	close(fds[0]);
	check(read(reading_end, text, 1) == 0, "somebody else has the pipe");
	check(lseek(fds[1], 0, SEEK_CUR) == 3 && fcntl(fds[1], F_GETFL) & O_APPEND, "file");
	check(read(fds[1], text, sizeof(text)) == 5 && memcmp(text, "tents", 5) == 0, "contents");
	check_same(fds[2], kept);
	fds[0] = take_one(pair.b, "afterlast");
	check_same(fds[0], kept);
	check_event(fds[0], 7);
}

/* ---- messages, empty ones too, and many descriptors in their order ---- */

static struct pair make_messages(int type)
{
	struct pair pair = make(type);
	int fds[MANY];

	pass(pair.a, "", NULL, 0);
	for (int i = 0; i < MANY - 1; i++)
		fds[i] = must(eventfd((unsigned int)i + 1, 0));
	fds[MANY - 1] = must(dup(fds[0]));
	pass(pair.a, "many", fds, MANY);
	put_one(pair.a, "", must(dup(kept)));
	pass(pair.a, "none", NULL, 0);
	put_one(pair.a, "one", must(eventfd(99, 0)));
	return pair;
}

static void check_messages(struct pair pair)
{
	int fds[MANY], fd;

	take(pair.b, "", NULL, 0);
	take(pair.b, "many", fds, MANY);
	check_same(fds[0], fds[MANY - 1]);
	for (int i = 0; i < MANY - 1; i++)
		check_event(fds[i], (uint64_t)i + 1);
	fd = take_one(pair.b, "");
	check_same(fd, kept);
	take(pair.b, "none", NULL, 0);
	check_event(take_one(pair.b, "one"), 99);
}

/* ---- sockets in sockets ---- */

enum { DEPTH = 4 };

/* The innermost holds an eventfd, each of the others the one before. */
static int make_nested(void)
{
	int inner = must(eventfd(5, 0));

	for (int i = 0; i < DEPTH; i++) {
		struct pair pair = make(i % 2 ? SOCK_STREAM : SOCK_DGRAM);

		put_one(pair.a, "inner", inner);
		close(pair.a);
		inner = pair.b;
	}
	return inner;
}

static void check_nested(int fd)
{
	for (int i = 0; i < DEPTH; i++) {
		int inner = take_one(fd, "inner");

		close(fd);
		fd = inner;
	}
	check_event(fd, 5);
}

/* Each of two sockets is in flight in the other one; one of them is open, too. */
static struct pair make_circle(void)
{
	struct pair x = make(SOCK_STREAM), y = make(SOCK_STREAM);

	put_one(y.a, "x", must(dup(x.b)));
	put_one(x.a, "y", y.b);
	close(y.a);
	return x;
}

static void check_circle(struct pair x)
{
	int y = take_one(x.b, "y"), again = take_one(y, "x");

	check_same(again, x.b);
	pass(x.a, "talk", NULL, 0);
	take(again, "talk", NULL, 0);
}

/* ---- what else a description may have ---- */

static int open_locked(void)
{
	char path[256];

	snprintf(path, sizeof(path), "%s.locked", victim_path);
	return must(open(path, O_RDWR | O_CREAT, 0600));
}

static struct pair make_others(void)
{
	struct pair pair = make(SOCK_SEQPACKET);
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
	int file = open_locked(), memfd = must(memfd_create("passed", 0)), epoll;
	struct flock range = {.l_type = F_WRLCK, .l_start = 10, .l_len = 5};

	must(flock(file, LOCK_EX));
	must(fcntl(file, F_OFD_SETLK, &range));
	check(write(memfd, "memory", 6) == 6, "memfd");
	epoll = must(epoll_create1(0));
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, kept, &event));
	pass(pair.a, "others", (int[]){file, memfd, epoll}, 3);
	return pair;
}

static void check_others(struct pair pair)
{
	int other = open_locked(), fds[3];
	struct flock range = {.l_type = F_WRLCK, .l_len = 12};
	struct epoll_event event;
	char text[8] = "";

	check(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "flock is lost");
	must(fcntl(other, F_OFD_GETLK, &range));
	check(range.l_type == F_WRLCK && range.l_start == 10 && range.l_len == 5, "OFD lock");
	take(pair.b, "others", fds, 3);
	close(fds[0]);
	must(flock(other, LOCK_EX | LOCK_NB));
	check(pread(fds[1], text, 8, 0) == 6 && strcmp(text, "memory") == 0, "memfd");
	check(epoll_wait(fds[2], &event, 1, 1000) == 1 && event.data.u64 == 77, "epoll");
}

/* ---- senders that have ended ---- */

static struct pair letters;

static void write_letter(void *text)
{
	put_one(letters.a, text, must(eventfd(3, 0)));
}

static void check_letter(const char *text, pid_t pid)
{
	int fd;
	struct ucred sender = take(letters.b, text, &fd, 1);

	check(sender.pid == pid && sender.uid == 0, "'%s' is from %d, not %d", text, sender.pid,
	      pid);
	check_event(fd, 3);
}

int main(int argc, char **argv)
{
	struct pair stream, datagrams, packets, circle, others;
	int nested, on = 1;
	pid_t dead, zombie;

	victim_init(argc, argv);
	stream = make_stream();
	datagrams = make_messages(SOCK_DGRAM);
	packets = make_messages(SOCK_SEQPACKET);
	nested = make_nested();
	circle = make_circle();
	others = make_others();
	letters = make(SOCK_DGRAM);
	must(setsockopt(letters.b, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
	dead = victim_child(write_letter, (void *)"from the dead");
	victim_reap(dead);
	zombie = victim_child(write_letter, (void *)"from a zombie");
	must(waitid(P_PID, (id_t)zombie, &(siginfo_t){0}, WEXITED | WNOWAIT));
	write_letter((void *)"from here");
	victim_ready();
	victim_wait();

	check_others(others);
	check_messages(datagrams);
	check_messages(packets);
	check_nested(nested);
	check_circle(circle);
	check_stream(stream);
	check_letter("from the dead", dead);
	check_letter("from a zombie", zombie);
	check_letter("from here", getpid());
	victim_reap(zombie);
	victim_ok();
	return 0;
}
