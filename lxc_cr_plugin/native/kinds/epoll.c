/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Epoll instances. An entry is an open file description and the number under which it was added:
 * both must be right, or the program could not change or delete it. It lives on when that number is
 * closed and another one shows the file.
 *
 * Who adds an entry matters to signalfds, which then report the signals of that process. So entries
 * are added by a process that holds the instance, under the old numbers, while its own descriptors
 * are not there yet.
 */
#include "epoll.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "../kernel/epolls.h"
#include "epoll_oneshot.h"
#include "file.h"
#include "files.h"

enum { MOST_ENTRIES = 1 << 24, MOST_NESTED = 8 };

struct epoll {
	struct file file;
	struct list entries; /* struct epoll_entry */
	struct list seen;    /* dump only: struct kernel_epoll_entry */
	bool begun, linked;  /* restart only */
};

static const struct field entry_fields[] = {
	FIELD_INT(struct epoll_entry, fd, 0, INT32_MAX - 2, "number when it was added"),
	FIELD_UINT(struct epoll_entry, object, 1, UINT32_MAX, "open file description"),
	FIELD_UINT(struct epoll_entry, events, 0, UINT32_MAX, "EPOLL..."),
	FIELD_UINT(struct epoll_entry, data, 0, UINT64_MAX, "what epoll_wait(2) gives for it"),
	FIELD_UINT(struct epoll_entry, reported, 0, 1, "nothing was left to report of it"),
	FIELD_END,
};

static const struct field epoll_fields[] = {
	FIELD_FILE(struct epoll),
	FIELD_ROWS(struct epoll, entries, struct epoll_entry, entry_fields, MOST_ENTRIES,
		   "number, open file description, events, data, reported"),
	FIELD_END,
};

static bool epoll_claims(const struct descriptor *descriptor)
{
	return !strcmp((char *)descriptor->path.data, "anon_inode:[eventpoll]");
}

static struct cr_error *open_reader(struct dump *dump)
{
	return dump->kernel_epolls
		       ? NULL
		       : kernel_epolls_open(dump->btf, dump->peek, &dump->kernel_epolls);
}

/* What reads the entries is made ready before the stop. */
static struct cr_error *epoll_check(struct dump *dump, const struct descriptor *descriptor)
{
	(void)descriptor;
	return error_object(open_reader(dump), "epoll");
}

/* Whom the entries are for is told when all open files are known. */
static struct cr_error *epoll_dump(struct dump *dump, const struct descriptor *descriptor,
				   void *state)
{
	struct epoll *epoll = state;

	if (descriptor->flags & O_PATH)
		return NULL;
	TRY(open_reader(dump));
	return kernel_epoll_read(dump->kernel_epolls, descriptor->kernel->file, dump->image.pool,
				 &epoll->seen);
}

static struct cr_error *refuse(struct object *object, int fd, const char *why, const char *remedy)
{
	struct process *holder = object->holder;
	struct cr_error *error =
		error_new(CR_UNSUPPORTED,
			  "Cannot save epoll instance %d of process %d (%s): its "
			  "entry for descriptor %d %s",
			  object->holder_fd, holder->pid, holder->stat.comm, fd, why);

	error = error_task(error, holder->pid, holder->stat.comm);
	return error_remedy(error_object(error, "epoll"), "%s", remedy);
}

static struct cr_error *link_entry(struct dump *dump, struct object *object,
				   const struct kernel_epoll_entry *seen, struct epoll_entry *entry)
{
	struct object *target = file_find(dump, seen->file);

	if (!target)
		return refuse(object, seen->fd, "is for a file that no process shows any more",
			      "Not supported yet; restart the process");
	entry->fd = seen->fd;
	entry->object = target->id;
	entry->events = seen->events;
	entry->data = seen->data;
	entry->reported = !seen->listed;
	if (epoll_is_disarmed(entry) && !epoll_can_fire(target))
		return refuse(object, seen->fd,
			      "has reported once (EPOLLONESHOT), and nothing is ready now",
			      "Not supported yet; try again later");
	return NULL;
}

static struct cr_error *epoll_dump_links(struct dump *dump, struct object *object)
{
	struct epoll *epoll = object->state;
	const struct kernel_epoll_entry *seen = epoll->seen.items;

	for (size_t i = 0; i < epoll->seen.count; i++) {
		struct epoll_entry *entry =
			list_append(dump->image.pool, &epoll->entries, sizeof(*entry));

		if (!entry)
			return error_nomem();
		TRY(link_entry(dump, object, &seen[i], entry));
	}
	return NULL;
}

/* ---- restart ---- */

static struct cr_error *epoll_restore(struct restore *restore, struct object *object,
				      const void *state)
{
	const struct epoll *epoll = state;

	(void)restore;
	object->fd = epoll_create1(EPOLL_CLOEXEC);
	if (object->fd < 0)
		return error_sys("Failed to make epoll instance %u", object->id);
	return file_set_flags(object, &epoll->file);
}

extern const struct kind epoll_kind;

int epoll_highest(const struct image *image)
{
	int highest = -1;

	for_each (struct object *, object, &image->objects) {
		const struct epoll *epoll = object->state;
		const struct epoll_entry *entry;

		if (object->kind != &epoll_kind)
			continue;
		entry = epoll->entries.items;
		for (size_t i = 0; i < epoll->entries.count; i++)
			highest = entry[i].fd > highest ? entry[i].fd : highest;
	}
	return highest;
}

/* Which of the entries are added in one go. */
enum turn {
	TURN_DISARMED, /* EPOLLONESHOT that has reported */
	TURN_EDGE,     /* EPOLLET that has reported: it does so again when it is added */
	TURN_REST,
};

static enum turn turn_of(const struct epoll_entry *entry)
{
	if (epoll_is_disarmed(entry))
		return TURN_DISARMED;
	if (entry->reported && entry->events & EPOLLET && !(entry->events & EPOLLONESHOT))
		return TURN_EDGE;
	return TURN_REST;
}

static struct cr_error *target_of(struct restore *restore, const struct epoll_entry *entry,
				  struct object **ret)
{
	*ret = image_object(&restore->image, entry->object);
	if (*ret && file_of(*ret) && (*ret)->fd >= 0)
		return NULL;
	return error_new(CR_IMAGE, "An epoll entry watches object %u, which is not an open file",
			 entry->object);
}

/* One file at a time arrives at number 0, for nothing else is open but the channel and the instance. */
static struct cr_error *add_entry(struct restore *restore, const struct epoll_entry *entry)
{
	struct epoll_event event = {.events = entry->events, .data.u64 = entry->data};
	struct program *p = restore->program;
	struct object *target;

	TRY(target_of(restore, entry, &target));
	if (epoll_is_disarmed(entry))
		event.events |= EPOLL_ANYTHING;
	TRY(channel_send(&restore->channel, &target->fd, 1));
	channel_receive(&restore->channel, p, 1);
	if (entry->fd) {
		program_call(p, "move a watched descriptor", SYS_dup3, 0, (uint64_t)entry->fd, 0);
		program_call(p, "close a watched descriptor", SYS_close, 0);
	}
	program_call(p, "add an epoll entry", SYS_epoll_ctl, (uint64_t)restore->channel.theirs + 1,
		     EPOLL_CTL_ADD, (uint64_t)entry->fd, program_data(p, &event, sizeof(event)));
	program_call(p, "close a watched descriptor", SYS_close, (uint64_t)entry->fd);
	return NULL;
}

static struct cr_error *add_entries(struct restore *restore, const struct epoll *epoll,
				    enum turn turn, size_t *added)
{
	enum { BATCH = 64 }; /* messages wait in the channel until the program runs */
	const struct epoll_entry *entry = epoll->entries.items;

	*added = 0;
	for (size_t i = 0; i < epoll->entries.count; i++) {
		if (turn_of(&entry[i]) != turn)
			continue;
		TRY(add_entry(restore, &entry[i]));
		if (++*added % BATCH == 0)
			TRY(program_run(restore->program));
	}
	return program_run(restore->program);
}

/* The instance at a number that no entry has; everything else but the channel is closed. */
static struct cr_error *enter(struct restore *restore, struct object *object)
{
	uint64_t channel = (uint64_t)restore->channel.theirs;
	struct program *p = restore->program;
	pid_t tid = restore->init;

	if (object->holder)
		tid = process_leader(object->holder)->host_tid;
	program_begin(p, tid);
	program_call(p, "close inherited descriptors", SYS_close_range, 0, channel - 1, 0);
	program_call(p, "close inherited descriptors", SYS_close_range, channel + 1, UINT32_MAX, 0);
	TRY(channel_send(&restore->channel, &object->fd, 1));
	channel_receive(&restore->channel, p, 1);
	program_call(p, "move an epoll instance", SYS_dup3, 0, channel + 1, 0);
	program_call(p, "close an epoll instance", SYS_close, 0);
	return NULL;
}

static void leave(struct restore *restore)
{
	program_call(restore->program, "close an epoll instance", SYS_close,
		     (uint64_t)restore->channel.theirs + 1);
}

/* What was reported before the checkpoint is not reported again. */
static struct cr_error *forget_edges(struct restore *restore, struct object *object, size_t edges)
{
	struct epoll_event *events;

	if (!edges)
		return NULL;
	events = pool_calloc(restore->image.pool, edges, sizeof(*events));
	if (!events)
		return error_nomem();
	if (epoll_wait(object->fd, events, (int)edges, 0) < 0)
		return error_sys("Failed to ask epoll instance %u", object->id);
	return NULL;
}

static struct cr_error *disarm(struct restore *restore, struct object *object, size_t disarmed)
{
	const struct epoll *epoll = object->state;
	const struct epoll_entry *entry = epoll->entries.items;
	struct object *target;

	for (size_t i = 0; i < epoll->entries.count; i++) {
		if (!epoll_is_disarmed(&entry[i]))
			continue;
		TRY(target_of(restore, &entry[i], &target));
		TRY(epoll_fire(object, target, &disarmed));
	}
	return disarmed ? error_new(CR_HOST,
				    "%zu entries of epoll instance %u are not ready, as they were",
				    disarmed, object->id)
			: NULL;
}

static struct cr_error *link_nested(struct restore *restore, const struct epoll *epoll,
				    unsigned int depth);

static struct cr_error *link_epoll(struct restore *restore, struct object *object,
				   unsigned int depth)
{
	struct epoll *epoll = object->state;
	size_t count;

	if (epoll->linked)
		return NULL;
	if (epoll->begun || depth > MOST_NESTED)
		return error_new(CR_IMAGE, "The epoll instances of the image watch each other");
	epoll->begun = true;
	TRY(link_nested(restore, epoll, depth + 1));
	TRY(enter(restore, object));
	TRY(add_entries(restore, epoll, TURN_DISARMED, &count));
	TRY(disarm(restore, object, count));
	TRY(add_entries(restore, epoll, TURN_EDGE, &count));
	TRY(forget_edges(restore, object, count));
	TRY(add_entries(restore, epoll, TURN_REST, &count));
	leave(restore);
	epoll->linked = true;
	return program_run(restore->program);
}

/* An instance is ready when an entry of it is: the inner ones come first. */
static struct cr_error *link_nested(struct restore *restore, const struct epoll *epoll,
				    unsigned int depth)
{
	const struct epoll_entry *entry = epoll->entries.items;

	for (size_t i = 0; i < epoll->entries.count; i++) {
		struct object *target;

		TRY(target_of(restore, &entry[i], &target));
		if (target->kind == &epoll_kind)
			TRY(link_epoll(restore, target, depth));
	}
	return NULL;
}

static struct cr_error *epoll_restore_links(struct restore *restore, struct object *object)
{
	return link_epoll(restore, object, 1);
}

const struct kind epoll_kind = {
	.name = "epoll",
	.doc = "Epoll instance: entries with their numbers, events and data",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct epoll),
	.fields = epoll_fields,
	.claims = epoll_claims,
	.check_file = epoll_check,
	.dump_file = epoll_dump,
	.dump_links = epoll_dump_links,
	.restore_file = epoll_restore,
	.restore_links = epoll_restore_links,
};
