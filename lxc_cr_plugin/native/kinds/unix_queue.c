/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What waits in a unix socket: a stream, or messages; who sent it, where the receiver wants to know. */
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../clone.h"
#include "in_flight.h"
#include "unix_socket.h"

#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

enum { LARGEST_MESSAGE = 1 << 30, MOST_FDS = 253 };

static const struct field message_file_fields[] = {
	FIELD_UINT(struct unix_message_file, object, 1, UINT32_MAX, "open file description"),
	FIELD_END,
};

const struct field unix_message_fields[] = {
	FIELD_BYTES(struct unix_message, data, LARGEST_MESSAGE,
		    "a message, or a piece of a stream"),
	FIELD_BOOL(struct unix_message, credentials, "it says who sent it: SCM_CREDENTIALS"),
	FIELD_INT(struct unix_message, pid, 0, MAX_TASKS,
		  "who sent it, 0: a process that the container does not see"),
	FIELD_UINT(struct unix_message, uid, 0, UINT32_MAX, "who sent it"),
	FIELD_UINT(struct unix_message, gid, 0, UINT32_MAX, "who sent it"),
	FIELD_ROWS(struct unix_message, files, struct unix_message_file, message_file_fields,
		   MOST_FDS, "open file descriptions in flight with it: SCM_RIGHTS",
		   .optional = true),
	FIELD_END,
};

/* ---- dump ---- */

/*
 * The kernel's list of messages tells what each is; calls only copy what is in them, from a place that
 * moves on (SO_PEEK_OFF). That is a state of the socket, the only one that a checkpoint changes and
 * puts back: where a second message waits there is no other way to see it.
 */
struct peeking {
	struct dump *dump;
	const struct object *object;
	struct unix_socket *socket;
	const struct list *messages; /* struct kernel_unix_message */
	int fd;
	uint8_t *data; /* of all */
	size_t len, done;
};

static struct cr_error *refuse(const struct object *object, const char *why)
{
	struct cr_error *error =
		error_new(CR_UNSUPPORTED, "Cannot save descriptor %d of process %d (%s): %s",
			  object->holder_fd, object->holder->pid, object->holder->stat.comm, why);

	return error_remedy(error_object(error, "unix_socket"),
			    "Not supported yet; try again when it has been read");
}

static struct cr_error *changed(const struct peeking *peeking)
{
	return error_sys("Failed to look into unix socket %d of process %d",
			 peeking->object->holder_fd, peeking->object->holder->pid);
}

static struct cr_error *set_place(const struct peeking *peeking, int place)
{
	return setsockopt(peeking->fd, SOL_SOCKET, SO_PEEK_OFF, &place, sizeof(place)) < 0
		       ? changed(peeking)
		       : NULL;
}

static int get_option(int fd, int option)
{
	socklen_t len = sizeof(int);
	int value = -1;

	getsockopt(fd, SOL_SOCKET, option, &value, &len);
	return value;
}

/* One look, without what is in flight: @room bytes at most. */
static ssize_t look(const struct peeking *peeking, size_t room)
{
	return recv(peeking->fd, peeking->data + peeking->done, room,
		    MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
}

/* A look that hands out a descriptor for each file in flight; *count of them. */
static struct cr_error *fetch(const struct peeking *peeking, size_t room, ssize_t *got, int *fds,
			      size_t *count)
{
	char control[CMSG_SPACE(MOST_FDS * sizeof(int)) + 1024];
	struct iovec iov = {peeking->data + peeking->done, room};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	const int *received;

	*count = 0;
	*got = recvmsg(peeking->fd, &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (*got < 0)
		return changed(peeking);
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
	     header = CMSG_NXTHDR(&message, header)) {
		size_t number = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		received = (const int *)CMSG_DATA(header);
		if (header->cmsg_level != SOL_SOCKET)
			continue;
		if (header->cmsg_type == SCM_PIDFD)
			close(received[0]);
		if (header->cmsg_type == SCM_RIGHTS && number <= MOST_FDS) {
			memcpy(fds, received, number * sizeof(int));
			*count = number;
		}
	}
	return NULL;
}

/* *unknown: one of them is open nowhere else. */
static struct cr_error *add_files(const struct peeking *peeking,
				  const struct kernel_unix_message *seen,
				  struct unix_message *message, bool *unknown)
{
	const uint64_t *files = seen->files.items;

	*unknown = false;
	for (size_t i = 0; i < seen->files.count; i++) {
		const struct object *object = file_find(peeking->dump, files[i]);
		struct unix_message_file *row =
			list_append(peeking->dump->image.pool, &message->files, sizeof(*row));

		if (!row)
			return error_nomem();
		row->object = object ? object->id : 0;
		*unknown |= !object;
	}
	return NULL;
}

static void close_all(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

/* Descriptors of ours for all files of a message; those for what is known are closed. */
static struct cr_error *adopt(const struct peeking *peeking, const struct kernel_unix_message *seen,
			      struct unix_message *message, const int *fds, size_t count)
{
	const uint64_t *files = seen->files.items;
	struct unix_message_file *rows = message->files.items;

	if (count != message->files.count) {
		close_all(fds, count);
		return refuse(peeking->object, "a descriptor that is in flight in it (SCM_RIGHTS) "
					       "cannot be looked at");
	}
	for (size_t i = 0; i < count; i++) {
		/* one message may hold a file twice */
		struct object *object = file_find(peeking->dump, files[i]);
		struct cr_error *error = NULL;

		if (object)
			close(fds[i]);
		else
			error = in_flight_object(peeking->dump, peeking->object, files[i], fds[i],
						 &object);
		if (error) {
			close_all(fds + i + 1, count - i - 1);
			return error;
		}
		rows[i].object = object->id;
	}
	return NULL;
}

static struct cr_error *add_message(const struct peeking *peeking,
				    const struct kernel_unix_message *seen,
				    struct unix_message **ret)
{
	struct unix_message *message =
		list_append(peeking->dump->image.pool, &peeking->socket->queue, sizeof(*message));

	if (!message)
		return error_nomem();
	*message = (struct unix_message){
		.data = {.data = peeking->data + peeking->done, .len = seen->unread}};
	if (seen->credentials) {
		message->credentials = true;
		message->pid = seen->pid;
		message->uid = seen->uid;
		message->gid = seen->gid;
	}
	*ret = message;
	return NULL;
}

/* ---- messages ---- */

static struct cr_error *look_at_message(struct peeking *peeking,
					const struct kernel_unix_message *seen)
{
	struct unix_message *message = NULL;
	ssize_t got = 0;
	bool unknown;

	TRY(add_message(peeking, seen, &message));
	TRY(add_files(peeking, seen, message, &unknown));
	if (!seen->unread && seen->peeked)
		return unknown ? refuse(peeking->object,
					"a descriptor is in flight in an empty message, which can "
					"be looked at only once")
			       : NULL;
	if (unknown) {
		int fds[MOST_FDS];
		size_t count;

		TRY(fetch(peeking, seen->unread, &got, fds, &count));
		TRY(adopt(peeking, seen, message, fds, count));
	} else {
		got = look(peeking, seen->unread);
	}
	if (got != (ssize_t)seen->unread)
		return changed(peeking);
	peeking->done += seen->unread;
	return NULL;
}

static struct cr_error *look_at_messages(struct peeking *peeking)
{
	const struct kernel_unix_message *seen = peeking->messages->items;

	for (size_t i = 0; i < peeking->messages->count; i++)
		TRY(look_at_message(peeking, &seen[i]));
	return NULL;
}

/* ---- a stream ---- */

/* Where a piece ends cannot be seen, unless its sender or what is in flight with it differs. */
static bool goes_on(const struct unix_message *last, const struct kernel_unix_message *seen)
{
	return !last->files.count && !seen->files.count && last->credentials == seen->credentials &&
	       (!last->credentials ||
		(last->pid == seen->pid && last->uid == seen->uid && last->gid == seen->gid));
}

/* A look ends behind a piece with descriptors, or before one of somebody else. */
static struct cr_error *copy_stream(struct peeking *peeking)
{
	while (peeking->done < peeking->len) {
		ssize_t got = look(peeking, peeking->len - peeking->done);

		if (got <= 0)
			return changed(peeking);
		peeking->done += (size_t)got;
	}
	peeking->done = 0;
	return NULL;
}

static struct cr_error *add_piece(struct peeking *peeking, const struct kernel_unix_message *seen)
{
	struct list *queue = &peeking->socket->queue;
	struct unix_message *message = queue->items;
	int fds[MOST_FDS];
	size_t count;
	ssize_t got;
	bool unknown;

	if (queue->count && goes_on(&message[queue->count - 1], seen)) {
		message[queue->count - 1].data.len += seen->unread;
		return NULL;
	}
	TRY(add_message(peeking, seen, &message));
	TRY(add_files(peeking, seen, message, &unknown));
	if (!unknown)
		return NULL;
	TRY(set_place(peeking, (int)peeking->done));
	TRY(fetch(peeking, seen->unread, &got, fds, &count));
	return adopt(peeking, seen, message, fds, count);
}

static struct cr_error *look_at_stream(struct peeking *peeking)
{
	const struct kernel_unix_message *seen = peeking->messages->items;

	TRY(copy_stream(peeking));
	for (size_t i = 0; i < peeking->messages->count; i++) {
		TRY(add_piece(peeking, &seen[i]));
		peeking->done += seen[i].unread;
	}
	return NULL;
}

/* ---- all ---- */

static struct cr_error *read_queue(struct dump *dump, uint64_t sock, struct list *ret)
{
	return kernel_unix_queue_read(dump->kernel_sockets, sock, dump->init->status.pid_levels - 1,
				      dump->image.pool, ret);
}

/* A single message, and a stream of one sender, are seen without it. */
static bool must_move(const struct peeking *peeking)
{
	const struct kernel_unix_message *seen = peeking->messages->items;
	bool told_apart = get_option(peeking->fd, SO_PASSCRED) > 0;

	for (size_t i = 0; i < peeking->messages->count; i++)
		told_apart |= seen[i].files.count > 0;
	return peeking->socket->type == SOCK_STREAM ? told_apart : peeking->messages->count > 1;
}

static struct cr_error *look_at_queue(struct peeking *peeking)
{
	int before = get_option(peeking->fd, SO_PEEK_OFF);
	bool moves = before >= 0 || must_move(peeking);
	struct cr_error *error = moves ? set_place(peeking, 0) : NULL, *failed;

	if (!error)
		error = peeking->socket->type == SOCK_STREAM ? look_at_stream(peeking)
							     : look_at_messages(peeking);
	failed = moves ? set_place(peeking, before) : NULL;
	if (error)
		cr_error_free(failed);
	return error ? error : failed;
}

struct cr_error *unix_queue_dump(struct dump *dump, struct object *object)
{
	struct unix_socket *socket = object->state;
	struct list messages = {0};
	struct peeking peeking = {
		.dump = dump, .object = object, .socket = socket, .messages = &messages};
	const struct kernel_unix_message *seen;
	_cleanup_close_ int fd = -1;

	if (!socket->queued)
		return NULL;
	TRY(read_queue(dump, socket->sock, &messages));
	TRY(task_get_fd(object->holder->host_pid, object->holder_fd, &fd));
	peeking.fd = fd;
	seen = messages.items;
	for (size_t i = 0; i < messages.count; i++)
		peeking.len += seen[i].unread;
	peeking.data = pool_alloc(dump->image.pool, peeking.len + 1);
	return peeking.data ? look_at_queue(&peeking) : error_nomem();
}

struct cr_error *unix_queue_note(struct dump *dump, uint64_t sock)
{
	const struct kernel_unix_message *seen;
	struct list messages = {0};

	TRY(kernel_unix_queue_read(dump->kernel_sockets, sock, 0, dump->image.pool, &messages));
	seen = messages.items;
	for (size_t i = 0; i < messages.count; i++) {
		const uint64_t *files = seen[i].files.items;

		for (size_t f = 0; f < seen[i].files.count; f++)
			TRY(in_flight_note(dump, files[f]));
	}
	return NULL;
}

/* ---- restart ---- */

static struct cr_error *process_number(struct restore *restore, const struct process *process,
				       pid_t *ret)
{
	/* who stands for a dead leader has another one */
	TRY(restore_status(restore, process_leader(process)));
	*ret = process_leader(process)->status.tgid;
	return NULL;
}

/* Its number is free, for nobody of the image has it; it stays until all queues are full. */
static struct cr_error *stand_in(struct restore *restore, pid_t pid, pid_t *ret)
{
	struct helper *helper = hash_find(&restore->senders, (uint64_t)pid, 0);
	struct helper **slot;

	if (!helper) {
		helper = pool_alloc(restore->image.pool, sizeof(*helper));
		slot = list_append(restore->image.pool, &restore->dead_senders, sizeof(*slot));
		if (!helper || !slot)
			return error_nomem();
		*helper = (struct helper){.pid = pid, .parent = restore->init};
		program_begin(restore->program, restore->init);
		TRY(error_wrap(clone_process(restore, pid, 0, 0, &helper->host_pid),
			       "Failed to stand in for process %d, which has sent a message and "
			       "has ended",
			       pid));
		*slot = helper;
		TRY(hash_add(restore->image.pool, &restore->senders, (uint64_t)pid, 0, helper));
	}
	*ret = helper->host_pid;
	return NULL;
}

struct cr_error *unix_queues_finish(struct restore *restore)
{
	for_each (struct helper *, helper, &restore->dead_senders)
		TRY(clone_end_helper(restore, helper));
	program_begin(restore->program, restore->init);
	return NULL;
}

/* The number on this host of something that has @pid in the container: receivers see no more. */
static struct cr_error *find_sender(struct restore *restore, pid_t pid, pid_t *ret)
{
	const struct process *process = image_living(&restore->image, pid);
	const struct process *zombie = image_process(&restore->image, pid);
	const struct process *member = image_group_member(&restore->image, pid);
	const struct thread *thread = image_thread(&restore->image, pid);

	*ret = 0;
	if (!pid)
		*ret = getpid(); /* they do not see us either */
	else if (process)
		TRY(process_number(restore, process, ret));
	else if (zombie)
		*ret = process_leader(zombie)->host_tid;
	else if (thread)
		*ret = thread->host_tid;
	else if (member)
		*ret = getpgid(process_leader(member)->host_tid);
	else
		TRY(stand_in(restore, pid, ret));
	return *ret > 0 ? NULL
			: error_new(CR_IMAGE, "A message is from process %d, which is nobody", pid);
}

static struct cr_error *put_credentials(struct restore *restore, const struct unix_message *message,
					struct cmsghdr *part)
{
	struct ucred sender = {.uid = message->uid, .gid = message->gid};

	TRY(find_sender(restore, message->pid, &sender.pid));
	part->cmsg_level = SOL_SOCKET;
	part->cmsg_type = SCM_CREDENTIALS;
	part->cmsg_len = CMSG_LEN(sizeof(sender));
	memcpy(CMSG_DATA(part), &sender, sizeof(sender));
	return NULL;
}

static struct cr_error *put_files(struct restore *restore, const struct unix_message *message,
				  struct cmsghdr *part)
{
	const struct unix_message_file *rows = message->files.items;
	int fds[MOST_FDS];

	for (size_t i = 0; i < message->files.count; i++) {
		const struct object *object = image_object(&restore->image, rows[i].object);

		if (!object || !file_of(object) || object->fd < 0)
			return error_new(CR_IMAGE, "Object %u is in flight, and is no open file",
					 rows[i].object);
		fds[i] = object->fd;
	}
	part->cmsg_level = SOL_SOCKET;
	part->cmsg_type = SCM_RIGHTS;
	part->cmsg_len = CMSG_LEN(message->files.count * sizeof(int));
	memcpy(CMSG_DATA(part), fds, message->files.count * sizeof(int));
	return NULL;
}

static struct cr_error *send_message(struct restore *restore, const struct unix_message *message,
				     int fd)
{
	char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(MOST_FDS * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = message->data.data, .iov_len = message->data.len};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};

	if (message->credentials) {
		TRY(put_credentials(restore, message, (struct cmsghdr *)control));
		header.msg_controllen = CMSG_SPACE(sizeof(struct ucred));
	}
	if (message->files.count) {
		TRY(put_files(restore, message,
			      (struct cmsghdr *)(control + header.msg_controllen)));
		header.msg_controllen += CMSG_SPACE(message->files.count * sizeof(int));
	}
	do {
		ssize_t put = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (put < 0)
			return error_sys("Failed to fill a unix socket");
		iov.iov_base = (uint8_t *)iov.iov_base + put;
		iov.iov_len -= (size_t)put;
		/* descriptors are in flight with the first part */
		if (message->files.count && iov.iov_len)
			return error_new(CR_IMAGE, "A message with descriptors is too large");
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
