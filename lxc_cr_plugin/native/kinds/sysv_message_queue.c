/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System V message queues (msgget(2)): of the ipc namespace, whoever uses them. When they were used
 * last is not kept, and by whom only if that process is still there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "sysv.h"

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

enum {
	/* A message is sent again from a program's data. */
	LARGEST_MESSAGE = PROGRAM_DATA / 2,
	MOST_MESSAGES = 1 << 24,
};

struct queue {
	struct sysv_ipc ipc;
	uint64_t limit;
	int32_t sender, receiver;
	struct list messages; /* struct message, oldest first */
};

struct message {
	int64_t type;
	struct bytes text;
};

static const struct field message_fields[] = {
	FIELD_INT(struct message, type, 1, INT64_MAX, "msgrcv(2) chooses by it"),
	FIELD_BYTES(struct message, text, LARGEST_MESSAGE, "what was sent"),
	FIELD_END,
};

static const struct field queue_fields[] = {
	FIELDS_SYSV(struct queue),
	FIELD_UINT(struct queue, limit, 0, INT32_MAX, "most bytes in it"),
	FIELD_INT(struct queue, sender, 0, MAX_TASKS,
		  "who sent last, 0: nobody who is still there"),
	FIELD_INT(struct queue, receiver, 0, MAX_TASKS, "who received last, likewise"),
	FIELD_LIST(struct queue, messages, struct message, message_fields, MOST_MESSAGES,
		   "what waits, oldest first"),
	FIELD_END,
};

static struct cr_error *refuse(const struct queue *queue, enum cr_code code, const char *why,
			       const char *remedy)
{
	struct cr_error *error =
		error_new(code, "Cannot save System V message queue %d: %s", queue->ipc.id, why);

	return error_remedy(error_object(error, "sysv_message_queue"), "%s", remedy);
}

/* A copy of one; @room: as large as the kernel lets a message be now. */
static struct cr_error *copy_message(struct dump *dump, struct queue *queue, struct msgbuf *buffer,
				     size_t room)
{
	size_t index = queue->messages.count;
	ssize_t len = msgrcv(queue->ipc.id, buffer, room, (long)index, MSG_COPY | IPC_NOWAIT);
	struct message *message;

	if (len < 0 && errno == ENOSYS)
		return refuse(queue, CR_HOST,
			      "this kernel does not show messages without handing them out",
			      "Boot a kernel with CONFIG_CHECKPOINT_RESTORE");
	if (len < 0 && (errno == EINVAL || errno == E2BIG))
		return refuse(queue, CR_UNSUPPORTED, "a message in it is too large",
			      "Not supported: try again when it has been received; if it is larger "
			      "than kernel.msgmax of the container, raise that");
	if (len < 0)
		return error_sys("Failed to look into System V message queue %d", queue->ipc.id);
	message = list_append(dump->image.pool, &queue->messages, sizeof(*message));
	if (!message)
		return error_nomem();
	message->type = buffer->mtype;
	message->text.len = (size_t)len;
	message->text.data = pool_memdup(dump->image.pool, buffer->mtext, (size_t)len);
	return message->text.data ? NULL : error_nomem();
}

static struct cr_error *copy_messages(struct dump *dump, struct queue *queue,
				      const struct msqid_ds *data)
{
	_cleanup_free_ struct msgbuf *buffer = NULL;
	size_t all = data->__msg_cbytes, room = all < LARGEST_MESSAGE ? all : LARGEST_MESSAGE;

	if (!data->msg_qnum)
		return NULL;
	buffer = calloc(1, sizeof(*buffer) + room);
	if (!buffer)
		return error_nomem();
	buffer->mtype = 1; /* the kernel looks at it before it writes over it */
	for (size_t i = 0; i < data->msg_qnum; i++)
		TRY(copy_message(dump, queue, buffer, room));
	return NULL;
}

/* A line of /proc/sysvipc/msg tells which there are. */
static struct cr_error *dump_queue(struct dump *dump, const char *line)
{
	struct object *object = image_add_object(&dump->image, &sysv_message_queue_kind);
	struct msqid_ds data;
	struct queue *queue;
	int key, id;

	if (!object)
		return error_nomem();
	queue = object->state;
	if (sscanf(line, "%d %d", &key, &id) != 2)
		return error_new(CR_INTERNAL, "Failed to read /proc/sysvipc/msg");
	if (msgctl(id, IPC_STAT, &data) < 0)
		return error_sys("Failed to look at System V message queue %d", id);
	queue->ipc = (struct sysv_ipc){
		.id = id,
		.key = key,
		.mode = data.msg_perm.mode & 0777,
		.uid = data.msg_perm.uid,
		.gid = data.msg_perm.gid,
		.cuid = data.msg_perm.cuid,
		.cgid = data.msg_perm.cgid,
	};
	queue->limit = data.msg_qbytes;
	queue->sender = sysv_process(dump, data.msg_lspid);
	queue->receiver = sysv_process(dump, data.msg_lrpid);
	return copy_messages(dump, queue, &data);
}

struct cr_error *sysv_queues_dump(struct dump *dump)
{
	const char *line;

	TRY(sysv_table(dump, "msg", &line));
	for (; line; line = sysv_next_line(line))
		TRY(dump_refuse(dump, dump_queue(dump, line)));
	return NULL;
}

/* ---- restart ---- */

static struct cr_error *make_queue(struct restore *restore, const struct queue *queue)
{
	struct program *p = restore->program;
	int call;

	TRY(sysv_choose_id("msg_next_id", queue->ipc.id));
	TRY(sysv_become_creator(restore, &queue->ipc));
	/* whoever fills it may; its own permissions come last */
	call = program_call(p, "make a System V message queue", SYS_msgget,
			    (uint64_t)queue->ipc.key, IPC_CREAT | IPC_EXCL | 0666);
	sysv_become_root(p, &queue->ipc);
	TRY(program_run(p));
	return sysv_check_id(p, call, &queue->ipc);
}

/* Appended: struct msgbuf, and the call that takes it. */
static struct cr_error *send_message(struct restore *restore, const struct queue *queue,
				     const struct message *message)
{
	struct program *p = restore->program;
	size_t len = message->text.len;
	struct msgbuf *buffer = pool_alloc(restore->image.pool, sizeof(*buffer) + len);

	if (!buffer)
		return error_nomem();
	buffer->mtype = message->type;
	memcpy(buffer->mtext, message->text.data, len);
	TRY(program_reserve(p, 1, sizeof(*buffer) + len));
	program_call(p, "send a message", SYS_msgsnd, (uint64_t)queue->ipc.id,
		     program_data(p, buffer, sizeof(*buffer) + len), len, IPC_NOWAIT);
	return NULL;
}

/* Who was the last to send and to receive does it once more, with a message that is not kept. */
static struct cr_error *repeat_last(struct restore *restore, const struct queue *queue)
{
	struct message nothing = {.type = 1, .text.data = (uint8_t *)""};
	struct program *p = restore->program;

	if (queue->sender) {
		TRY(sysv_run_as(restore, queue->sender));
		TRY(send_message(restore, queue, &nothing));
	}
	if (queue->receiver && !queue->sender)
		TRY(send_message(restore, queue, &nothing));
	if (!queue->receiver && !queue->sender)
		return NULL;
	if (queue->receiver)
		TRY(sysv_run_as(restore, queue->receiver));
	TRY(program_reserve(p, 1, sizeof(struct msgbuf)));
	program_call(p, "receive a message", SYS_msgrcv, (uint64_t)queue->ipc.id,
		     program_data(p, NULL, sizeof(struct msgbuf)), 0, 0, IPC_NOWAIT);
	return NULL;
}

static struct cr_error *fill(struct restore *restore, const struct queue *queue)
{
	const struct message *message = queue->messages.items;

	TRY(repeat_last(restore, queue));
	for (size_t i = 0; i < queue->messages.count; i++) {
		TRY(sysv_run_as(restore, i + 1 == queue->messages.count ? queue->sender : 0));
		TRY(send_message(restore, queue, &message[i]));
	}
	return program_run(restore->program);
}

static struct cr_error *finish(const struct queue *queue)
{
	struct msqid_ds data = {
		.msg_perm = {.uid = queue->ipc.uid, .gid = queue->ipc.gid},
		.msg_qbytes = queue->limit,
	};

	data.msg_perm.mode = queue->ipc.mode & 0777;
	return msgctl(queue->ipc.id, IPC_SET, &data) < 0
		       ? error_sys("Failed to set up System V message queue %d", queue->ipc.id)
		       : NULL;
}

struct cr_error *sysv_queues_restore(struct restore *restore)
{
	for_each (struct object *, object, &restore->image.objects) {
		if (object->kind != &sysv_message_queue_kind)
			continue;
		TRY(sysv_run_as(restore, 0));
		TRY(make_queue(restore, object->state));
		TRY(fill(restore, object->state));
		TRY(finish(object->state));
	}
	return NULL;
}

const struct kind sysv_message_queue_kind = {
	.name = "sysv_message_queue",
	.doc = "System V message queue: id, key, owner, permissions, limit, messages, who used it "
	       "last",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct queue),
	.fields = queue_fields,
};
