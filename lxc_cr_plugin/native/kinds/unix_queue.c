/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What waits in a unix socket: a stream, or messages; who sent it, where the receiver wants to know. */
#include <limits.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "../cleanup.h"
#include "unix_socket.h"

#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

enum { LARGEST_MESSAGE = 1 << 30, MOST_FDS = 253 };

const struct field unix_message_fields[] = {
	FIELD_BYTES(struct unix_message, data, LARGEST_MESSAGE,
		    "a message, or a piece of a stream"),
	FIELD_BOOL(struct unix_message, credentials, "it says who sent it: SCM_CREDENTIALS"),
	FIELD_INT(struct unix_message, pid, 0, MAX_TASKS, "who sent it"),
	FIELD_UINT(struct unix_message, uid, 0, UINT32_MAX, "who sent it"),
	FIELD_UINT(struct unix_message, gid, 0, UINT32_MAX, "who sent it"),
	FIELD_END,
};

static struct cr_error *refuse(struct dump *dump, const struct descriptor *descriptor,
			       const char *why)
{
	struct cr_error *error = error_new(CR_UNSUPPORTED, "Cannot save %s: %s",
					   descriptor_name(dump, descriptor), why);

	error = error_task(error, descriptor->process->pid, descriptor->process->stat.comm);
	return error_remedy(error_object(error, "unix_socket"),
			    "Not supported yet; try again when it has been read");
}

/* Looking hands out copies of what is in flight: descriptors, which are closed again. */
static void close_received(const struct cmsghdr *header, bool *in_flight)
{
	const int *fds = (const int *)CMSG_DATA(header);
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	*in_flight |= header->cmsg_type == SCM_RIGHTS;
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

static bool take_control(struct msghdr *message, struct unix_message *ret)
{
	bool in_flight = false;
	struct ucred sender;

	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
	     header = CMSG_NXTHDR(message, header)) {
		if (header->cmsg_level != SOL_SOCKET)
			continue;
		if (header->cmsg_type == SCM_RIGHTS || header->cmsg_type == SCM_PIDFD)
			close_received(header, &in_flight);
		if (header->cmsg_type != SCM_CREDENTIALS)
			continue;
		memcpy(&sender, CMSG_DATA(header), sizeof(sender));
		/* nobody was noted when the receiver did not ask for it yet */
		ret->credentials = sender.pid != 0;
		ret->pid = sender.pid;
		ret->uid = sender.uid;
		ret->gid = sender.gid;
	}
	return in_flight || message->msg_flags & MSG_CTRUNC;
}

/* One look: @room bytes at most; *len is the message's own length. */
static ssize_t look(int fd, void *buffer, size_t room, struct unix_message *ret, bool *in_flight)
{
	char control[CMSG_SPACE(MOST_FDS * sizeof(int)) + 1024];
	struct iovec iov = {.iov_base = buffer, .iov_len = room};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got = recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);

	*in_flight = got >= 0 && take_control(&message, ret);
	return got;
}

static int set_peek_offset(int fd, int offset)
{
	return setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset));
}

static int get_option(int fd, int option)
{
	socklen_t len = sizeof(int);
	int value = -1;

	getsockopt(fd, SOL_SOCKET, option, &value, &len);
	return value;
}

/*
 * A place to look from that moves on (SO_PEEK_OFF). It is a state of the socket, the only one that a
 * checkpoint changes and puts back: where a second message waits there is no other way to see it.
 */
struct peeking {
	int fd, offset;
	bool moves;
	uint8_t *buffer;
	size_t room;
};

static struct cr_error *look_at_next(struct dump *dump, const struct descriptor *descriptor,
				     struct peeking *peeking, struct list *queue)
{
	struct unix_message *message = list_append(dump->image.pool, queue, sizeof(*message));
	bool in_flight;
	ssize_t got;

	if (!message)
		return error_nomem();
	got = look(peeking->fd, peeking->buffer, peeking->room, message, &in_flight);
	if (got >= 0 && (size_t)got > peeking->room) {
		free(peeking->buffer);
		peeking->room = (size_t)got;
		peeking->buffer = malloc(peeking->room);
		if (!peeking->buffer)
			return error_nomem();
		if (peeking->moves && set_peek_offset(peeking->fd, peeking->offset) < 0)
			return error_sys("Failed to look into a socket");
		got = look(peeking->fd, peeking->buffer, peeking->room, message, &in_flight);
	}
	if (in_flight)
		return refuse(dump, descriptor, "a descriptor is in flight in it (SCM_RIGHTS)");
	if (got < 0)
		return errno == EAGAIN ? refuse(dump, descriptor,
						"an empty message waits in it, which can be looked "
						"at only once")
				       : error_sys("Failed to look into %s",
						   descriptor_name(dump, descriptor));
	message->data.data = pool_memdup(dump->image.pool, peeking->buffer, (size_t)got);
	message->data.len = (size_t)got;
	peeking->offset += (int)got;
	return message->data.data || !got ? NULL : error_nomem();
}

static struct cr_error *look_at_all(struct dump *dump, const struct descriptor *descriptor,
				    struct peeking *peeking, uint32_t queued,
				    const struct unix_socket *socket, size_t bytes,
				    struct list *queue)
{
	bool stream = socket->type == SOCK_STREAM;

	while (stream ? (size_t)peeking->offset < bytes : queue->count < queued)
		TRY(look_at_next(dump, descriptor, peeking, queue));
	return NULL;
}

struct cr_error *unix_queue_read(struct dump *dump, const struct descriptor *descriptor, int fd,
				 uint32_t queued, struct unix_socket *socket)
{
	enum { LEAST_ROOM = 64 << 10 };
	int before = get_option(fd, SO_PEEK_OFF), bytes = 0;
	struct peeking peeking = {.fd = fd};
	struct cr_error *error;

	if (!queued)
		return NULL;
	if (ioctl(fd, SIOCINQ, &bytes) < 0)
		return error_sys("Failed to look into %s", descriptor_name(dump, descriptor));
	peeking.room = bytes > LEAST_ROOM ? (size_t)bytes : LEAST_ROOM;
	peeking.buffer = malloc(peeking.room);
	if (!peeking.buffer)
		return error_nomem();
	/* a stream comes out in one piece unless its senders are told apart */
	peeking.moves =
		before >= 0 ||
		(queued > 1 && (socket->type != SOCK_STREAM || get_option(fd, SO_PASSCRED) > 0));
	error = peeking.moves && set_peek_offset(fd, 0) < 0
			? error_sys("Failed to look into %s", descriptor_name(dump, descriptor))
			: look_at_all(dump, descriptor, &peeking, queued, socket, (size_t)bytes,
				      &socket->queue);
	if (peeking.moves && set_peek_offset(fd, before) < 0 && !error)
		error = error_sys("Failed to look into %s", descriptor_name(dump, descriptor));
	free(peeking.buffer);
	return error;
}

struct cr_error *unix_queue_resolve(struct dump *dump, const struct object *object)
{
	struct unix_socket *socket = object->state;
	struct unix_message *message = socket->queue.items;

	for (size_t i = 0; i < socket->queue.count; i++) {
		bool found = !message[i].credentials;

		for_each (struct process *, process, &dump->image.processes) {
			if (found || process->host_tgid != message[i].pid)
				continue;
			message[i].pid = process->pid;
			found = true;
		}
		if (found)
			continue;
		return error_remedy(
			error_object(error_new(CR_UNSUPPORTED,
					       "Cannot save descriptor %d of process %d (%s): who "
					       "sent a message that waits in it has ended",
					       object->holder_fd, object->holder->pid,
					       object->holder->stat.comm),
				     "unix_socket"),
			"Not supported yet; try again when it has been read");
	}
	return NULL;
}

/* ---- restart ---- */

static struct cr_error *find_sender(struct restore *restore, const struct unix_message *message,
				    struct ucred *ret)
{
	for_each (struct process *, process, &restore->image.processes) {
		if (process->pid != message->pid)
			continue;
		*ret = (struct ucred){.pid = process_leader(process)->host_tid,
				      .uid = message->uid,
				      .gid = message->gid};
		return NULL;
	}
	return error_new(CR_IMAGE, "A message is from process %d, which is not in the image",
			 message->pid);
}

static struct cr_error *send_message(struct restore *restore, const struct unix_message *message,
				     int fd)
{
	char control[CMSG_SPACE(sizeof(struct ucred))] = {0};
	struct iovec iov = {.iov_base = message->data.data, .iov_len = message->data.len};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	struct ucred sender;
	struct cmsghdr *part;

	if (message->credentials) {
		TRY(find_sender(restore, message, &sender));
		header.msg_control = control;
		header.msg_controllen = sizeof(control);
		part = CMSG_FIRSTHDR(&header);
		part->cmsg_level = SOL_SOCKET;
		part->cmsg_type = SCM_CREDENTIALS;
		part->cmsg_len = CMSG_LEN(sizeof(sender));
		memcpy(CMSG_DATA(part), &sender, sizeof(sender));
	}
	do {
		ssize_t put = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (put < 0)
			return error_sys("Failed to fill a unix socket");
		iov.iov_base = (uint8_t *)iov.iov_base + put;
		iov.iov_len -= (size_t)put;
	} while (iov.iov_len);
	return NULL;
}

struct cr_error *unix_queue_fill(struct restore *restore, const struct unix_socket *socket, int fd)
{
	const struct unix_message *message = socket->queue.items;
	int room = INT_MAX / 2;

	if (!socket->queue.count)
		return NULL;
	/* what waits is charged to who sent it; its own limit is set later */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
		return error_sys("Failed to make room for what waits in a unix socket");
	for (size_t i = 0; i < socket->queue.count; i++)
		TRY(send_message(restore, &message[i], fd));
	return NULL;
}
