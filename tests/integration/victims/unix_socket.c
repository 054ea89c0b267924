/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Unix sockets without a name: what waits in them, boundaries, ends, senders, options. */
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "victim.h"

enum { LARGE = 100000 };

struct pair {
	int a, b;
};

static char buffer[LARGE], expected[LARGE];

static struct pair make(int type)
{
	int ends[2];

	must(socketpair(AF_UNIX, type, 0, ends));
	return (struct pair){ends[0], ends[1]};
}

static void put(int fd, const char *text)
{
	check(send(fd, text, strlen(text), 0) == (ssize_t)strlen(text), "send: %s",
	      strerror(errno));
}

static void expect(int fd, const char *text)
{
	ssize_t got = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);

	check(got == (ssize_t)strlen(text) && memcmp(buffer, text, (size_t)got) == 0,
	      "got %zd bytes '%.20s', not '%s'", got, buffer, text);
}

static void expect_nothing(int fd)
{
	check(recv(fd, buffer, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "something waits");
}

static void expect_end(int fd)
{
	check(recv(fd, buffer, 1, MSG_DONTWAIT) == 0, "no end of file");
}

static void expect_broken(int fd)
{
	check(send(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EPIPE, "not broken");
}

static void check_large(struct pair large)
{
	victim_fill(expected, LARGE, 3);
	check(recv(large.b, buffer, 50, MSG_PEEK) == 50 && memcmp(buffer, expected + 1000, 50) == 0,
	      "a look at a stream");
	for (size_t done = 1000; done < LARGE;) {
		ssize_t got = recv(large.b, buffer, sizeof(buffer), MSG_DONTWAIT);

		check(got > 0 && memcmp(buffer, expected + done, (size_t)got) == 0,
		      "a stream differs at %zu", done);
		done += (size_t)got;
	}
	expect_nothing(large.b);
	expect(large.a, "back");
	put(large.b, "new");
	expect(large.a, "new");
}

static void check_messages(struct pair pair, bool empty)
{
	expect(pair.b, "one");
	if (empty)
		expect(pair.b, "");
	expect(pair.b, "three");
	expect_nothing(pair.b);
	put(pair.a, "four");
	put(pair.a, "five");
	expect(pair.b, "four");
	expect(pair.b, "five");
}

/* Who sent the next message. */
static struct ucred expect_from(int fd, const char *text)
{
	char control[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec iov = {buffer, sizeof(buffer)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct ucred sender;
	ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);

	check(got == (ssize_t)strlen(text) && memcmp(buffer, text, (size_t)got) == 0,
	      "got %zd bytes, not '%s'", got, text);
	check(message.msg_controllen >= sizeof(control), "no credentials");
	memcpy(&sender, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(sender));
	return sender;
}

struct family {
	struct pair messages, stream, talk;
	uint32_t *sent;
};

static void child(void *argument)
{
	struct family *family = argument;

	close(family->talk.a);
	put(family->messages.a, "from the child");
	put(family->stream.a, "child;");
	victim_arrive(family->sent);
	victim_wait();
	check(recv(family->talk.b, buffer, 100, 0) == 5, "the parent's words");
	put(family->talk.b, "answer");
}

static void check_family(struct family *family, pid_t pid)
{
	struct ucred sender = expect_from(family->messages.b, "from the child");

	check(sender.pid == pid && sender.uid == 0, "sent by %d", sender.pid);
	sender = expect_from(family->messages.b, "from the parent");
	check(sender.pid == getpid() && sender.gid == 0, "sent by %d", sender.pid);
	sender = expect_from(family->stream.b, "child;");
	check(sender.pid == pid, "piece sent by %d", sender.pid);
	sender = expect_from(family->stream.b, "parent");
	check(sender.pid == getpid(), "piece sent by %d", sender.pid);
	put(family->talk.a, "hello");
	check(recv(family->talk.a, buffer, 100, 0) == 6, "the child's answer");
	victim_reap(pid);
	expect_end(family->talk.a);
}

static void set(int fd, int option, int value)
{
	must(setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)));
}

static int get(int fd, int option)
{
	socklen_t length = sizeof(int);
	int value;

	must(getsockopt(fd, SOL_SOCKET, option, &value, &length));
	return value;
}

static struct pair make_options(void)
{
	struct pair pair = make(SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct timeval time = {7, 500000};

	set(pair.a, SO_SNDBUF, 20000);
	set(pair.a, SO_RCVBUF, 30000);
	set(pair.a, SO_PRIORITY, 3);
	must(setsockopt(pair.a, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)));
	must(fchown(pair.b, 12, 34));
	return pair;
}

static void check_options(struct pair pair, int sent)
{
	struct timeval time;
	socklen_t length = sizeof(time);
	struct ucred peer;
	struct stat stat;

	check(get(pair.a, SO_SNDBUF) == 40000 && get(pair.a, SO_RCVBUF) == 60000, "buffers");
	check(get(pair.a, SO_PRIORITY) == 3 && get(pair.b, SO_PRIORITY) == 0, "priority");
	check(get(pair.b, SO_SNDBUF) == sent, "size of a send buffer");
	must(getsockopt(pair.a, SOL_SOCKET, SO_RCVTIMEO, &time, &length));
	check(time.tv_sec == 7 && time.tv_usec == 500000, "SO_RCVTIMEO");
	check(fcntl(pair.a, F_GETFL) & O_NONBLOCK, "O_NONBLOCK lost");
	check(fcntl(pair.a, F_GETFD) & FD_CLOEXEC, "FD_CLOEXEC lost");
	length = sizeof(peer);
	must(getsockopt(pair.a, SOL_SOCKET, SO_PEERCRED, &peer, &length));
	check(peer.pid == getpid() && peer.uid == 0, "SO_PEERCRED names %d", peer.pid);
	must(fstat(pair.b, &stat));
	check(stat.st_uid == 12 && stat.st_gid == 34, "owner %u", stat.st_uid);
}

/* A socket that nobody has used yet can still become anything. */
static void check_single(int fd)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0victim"};
	int client = must(socket(AF_UNIX, SOCK_SEQPACKET, 0));

	must(bind(fd, (struct sockaddr *)&name, sizeof(name)));
	must(listen(fd, 1));
	must(connect(client, (struct sockaddr *)&name, sizeof(name)));
}

int main(int argc, char **argv)
{
	struct pair large, datagrams, packets, ended, reset, half, odd, options;
	struct family family = {0};
	int single, sent;
	pid_t pid;

	victim_init(argc, argv);
	family.sent = victim_shared(4096);
	family.messages = make(SOCK_DGRAM);
	family.stream = make(SOCK_STREAM);
	family.talk = make(SOCK_STREAM);
	set(family.messages.b, SO_PASSCRED, 1);
	set(family.stream.b, SO_PASSCRED, 1);
	pid = victim_child(child, &family);
	close(family.talk.b);
	victim_meet(family.sent, 1);
	put(family.messages.a, "from the parent");
	put(family.stream.a, "parent");

	large = make(SOCK_STREAM);
	victim_fill(expected, LARGE, 3);
	check(send(large.a, expected, LARGE, 0) == LARGE, "send");
	check(recv(large.b, buffer, 1000, 0) == 1000, "recv");
	put(large.b, "back");
	datagrams = make(SOCK_DGRAM);
	put(datagrams.a, "one");
	put(datagrams.a, "");
	put(datagrams.a, "three");
	packets = make(SOCK_SEQPACKET);
	put(packets.a, "one");
	put(packets.a, "three");

	ended = make(SOCK_STREAM);
	put(ended.a, "last words");
	close(ended.a);
	reset = make(SOCK_STREAM);
	put(reset.a, "heard");
	put(reset.b, "never read");
	close(reset.a);
	half = make(SOCK_STREAM);
	put(half.a, "before");
	must(shutdown(half.a, SHUT_WR));
	put(half.b, "other way");
	odd = make(SOCK_DGRAM);
	put(odd.a, "orphan");
	close(odd.a);
	options = make_options();
	sent = get(options.b, SO_SNDBUF);
	single = must(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	victim_ready();
	victim_wait();

	check_large(large);
	check_messages(datagrams, true);
	check_messages(packets, false);
	expect(ended.b, "last words");
	expect_end(ended.b);
	expect_broken(ended.b);
	expect(reset.b, "heard");
	check(recv(reset.b, buffer, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET, "no reset");
	expect_end(reset.b);
	expect(half.b, "before");
	expect_end(half.b);
	expect_broken(half.a);
	expect(half.a, "other way");
	put(half.b, "still");
	expect(half.a, "still");
	expect(odd.b, "orphan");
	expect_nothing(odd.b);
	check_options(options, sent);
	check_single(single);
	check_family(&family, pid);
	victim_ok();
	return 0;
}
