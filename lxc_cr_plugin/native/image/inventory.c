/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inventory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "../cleanup.h"
#include "../kinds/contents.h"
#include "../kinds/file.h"
#include "../kinds/files.h"
#include "../kinds/lease.h"
#include "../kinds/memory.h"
#include "../kinds/process.h"
#include "../kinds/thread.h"
#include "../kinds/zombie.h"
#include "../sharing.h"
#include "header.h"

/* ---- writing ---- */

static struct cr_error *put_record(struct record_writer *writer, const struct kind *kind,
				   uint32_t id, const void *state)
{
	TRY(record_put_array(writer, 3));
	TRY(record_put_text(writer, kind->name));
	TRY(record_put_uint(writer, id));
	return error_wrap(record_put(writer, kind->fields, state), "Failed to encode %s %u",
			  kind->name, id);
}

static struct cr_error *put_states(struct record_writer *writer, enum scope scope, uint32_t id,
				   void *const *states)
{
	for (unsigned int k = 0; k < kinds_count(); k++) {
		if (kinds[k]->scope == scope && states[k])
			TRY(put_record(writer, kinds[k], id, states[k]));
	}
	return NULL;
}

static struct cr_error *put_process(struct record_writer *writer, struct process *process)
{
	TRY(put_states(writer, SCOPE_PROCESS, process->id, process->states));
	for_each (struct thread *, thread, &process->threads)
		TRY(put_states(writer, SCOPE_THREAD, thread->id, thread->states));
	return NULL;
}

static struct cr_error *encode_state(struct image *image, struct record_writer *writer)
{
	TRY(header_write(image, writer));
	for_each (struct object *, object, &image->objects)
		TRY(put_record(writer, object->kind, object->id, object->state));
	for_each (struct process *, process, &image->processes)
		TRY(put_process(writer, process));
	for_each (struct process *, zombie, &image->zombies)
		TRY(put_states(writer, SCOPE_ZOMBIE, zombie->id, zombie->states));
	return header_write_end(image, writer);
}

/* One row of the table of objects: what a substitution is chosen by. */
struct object_row {
	uint32_t id;
	struct bytes kind, path;
	uint32_t mode, uid, gid;
	struct list holders;
};

struct holder_row {
	int32_t pid, fd;
};

static const struct field holder_fields[] = {
	FIELD_INT(struct holder_row, pid, 1, MAX_TASKS, "process id in the container"),
	FIELD_INT(struct holder_row, fd, 0, INT32_MAX, "descriptor"),
	FIELD_END,
};

static const struct field object_fields[] = {
	FIELD_UINT(struct object_row, id, 1, UINT32_MAX, "object"),
	FIELD_TEXT(struct object_row, kind, 64, "kind"),
	FIELD_PATH(struct object_row, path, "from the container's root, or what /proc shows"),
	FIELD_UINT(struct object_row, mode, 0, UINT32_MAX, "type and permissions, st_mode"),
	FIELD_UINT(struct object_row, uid, 0, UINT32_MAX, "owner"),
	FIELD_UINT(struct object_row, gid, 0, UINT32_MAX, "group"),
	FIELD_ROWS(struct object_row, holders, struct holder_row, holder_fields, 1 << 24,
		   "process and descriptor"),
	FIELD_END,
};

static struct bytes text_bytes(const char *text)
{
	return (struct bytes){.data = (uint8_t *)text, .len = strlen(text)};
}

static struct object_row describe_object(const struct object *object)
{
	const struct file *file = file_of(object);
	struct object_row row = {.id = object->id, .kind = text_bytes(object->kind->name)};

	row.path = text_bytes("");
	if (file) {
		row.path = file->path;
		row.mode = file->mode;
		row.uid = file->uid;
		row.gid = file->gid;
	}
	return row;
}

/* Who holds what, told by the descriptor tables in one pass. */
static struct cr_error *find_holders(struct image *image, struct list *holders)
{
	for_each (struct process *, process, &image->tables) {
		const struct files *files = process_state(process, &files_kind);
		const struct files_row *rows = files->descriptors.items;

		for (size_t i = 0; i < files->descriptors.count; i++) {
			struct holder_row *holder =
				list_append(image->pool, &holders[rows[i].object], sizeof(*holder));

			if (!holder)
				return error_nomem();
			holder->pid = process->pid;
			holder->fd = rows[i].fd;
		}
	}
	return NULL;
}

static struct cr_error *encode_objects(struct image *image, struct record_writer *writer)
{
	struct list *holders = pool_calloc(image->pool, image->next_id + 1, sizeof(*holders));

	if (!holders)
		return error_nomem();
	TRY(find_holders(image, holders));
	TRY(record_put_array(writer, image->objects.count));
	for_each (struct object *, object, &image->objects) {
		struct object_row row = describe_object(object);

		row.holders = holders[object->id];
		TRY(record_put(writer, object_fields, &row));
	}
	return NULL;
}

static struct cr_error *write_file(int image_fd, const char *name,
				   const struct record_writer *writer)
{
	_cleanup_close_ int fd =
		openat(image_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	size_t done = 0;

	if (fd < 0)
		return error_sys("Failed to create %s", name);
	while (done < writer->len) {
		ssize_t put = write(fd, writer->data + done, writer->len - done);

		if (put < 0)
			return error_sys("Failed to write %s", name);
		done += (size_t)put;
	}
	return fsync(fd) < 0 ? error_sys("Failed to write %s to disk", name) : NULL;
}

static void cleanup_writer(struct record_writer *writer)
{
	record_writer_deinit(writer);
}

static struct cr_error *number_pages(struct image *image, struct page_writer *pages)
{
	TRY(page_writer_init(pages, &image->pages, image->pool));
	for_each (struct object *, object, &image->objects) {
		struct contents *contents = contents_of(object);

		if (contents)
			TRY(page_writer_add(pages, &contents->extents, NULL, NULL));
	}
	for_each (struct process *, process, &image->processes) {
		if (sharing_is_first(process, SHARE_MEMORY))
			TRY(page_writer_add(pages, &process->memory->extents, memory_hides_file,
					    process));
	}
	return NULL;
}

struct cr_error *inventory_write(struct image *image, int image_fd, struct log *log)
{
	_cleanup_(cleanup_writer) struct record_writer state = {0}, objects = {0};
	struct page_writer pages;

	log_say(log, CR_DEBUG, "Number the pages, and encode objects and states");
	TRY(number_pages(image, &pages));
	TRY(encode_objects(image, &objects));
	TRY(encode_state(image, &state));
	log_say(log, CR_DEBUG, "Write objects.cbor, %zu bytes, and state.cbor, %zu", objects.len,
		state.len);
	TRY(write_file(image_fd, "objects.cbor", &objects));
	TRY(write_file(image_fd, "state.cbor", &state));
	log_say(log, CR_DEBUG, "Write %" PRIu64 " pages", (uint64_t)pages.count);
	TRY(page_writer_write(&pages, image_fd, log));
	image->pages.count = pages.count;
	return fsync(image_fd) < 0 ? error_sys("Failed to write the image to disk") : NULL;
}

/* ---- reading ---- */

static struct process *last_process(const struct image *image)
{
	size_t count = image->processes.count;

	return count ? ((struct process **)image->processes.items)[count - 1] : NULL;
}

static struct cr_error *index_process(struct image *image, struct process *process)
{
	TRY(image_number_process(image, process));
	return image_process(image, process->pid) == process
		       ? NULL
		       : error_new(CR_IMAGE, "Process %d is in the image twice", process->pid);
}

/* Ids ascend from parents to children and from leaders to threads: who shares what with whom, and
 * who makes whom, relies on it. */
static struct cr_error *check_next(const struct image *image, uint32_t id)
{
	const struct process *last = last_process(image);
	size_t threads = last ? last->threads.count : 0;

	if (last &&
	    id <= (threads ? ((struct thread **)last->threads.items)[threads - 1]->id : last->id))
		return error_new(CR_IMAGE, "Process or thread record %u is out of order", id);
	return NULL;
}

/* A process record begins a process; its parent came before. */
static struct cr_error *begin_process(struct image *image, uint32_t id, void *state)
{
	const struct process_identity *identity = state;
	struct process *parent = image_process(image, identity->ppid), *process;

	if (image->processes.count && (!parent || process_state(parent, &zombie_kind)))
		return error_new(CR_IMAGE, "Process %d has no parent in the image", identity->pid);
	if (!image->processes.count && identity->pid != 1)
		return error_new(CR_IMAGE, "The image does not begin with process 1");
	TRY(check_next(image, id));
	process = image_add_process(image, parent);
	if (!process)
		return error_nomem();
	process->id = id;
	process->pid = process->number = identity->pid;
	process->session = identity->sid;
	process->exit_signal = identity->exit_signal;
	TRY(image_number_group(image, process, identity->pgid));
	return index_process(image, process);
}

static bool has_dead_leader(const struct process *process)
{
	const struct process_identity *identity = process_state(process, &process_kind);

	return identity && identity->dead_leader;
}

static struct cr_error *begin_thread(struct image *image, uint32_t id, void *state)
{
	const struct thread_identity *identity = state;
	struct process *process = last_process(image);
	struct thread *thread;

	if (!process)
		return error_new(CR_IMAGE, "Thread %d belongs to no process", identity->tid);
	if (!process->threads.count && identity->tid != process->pid && !has_dead_leader(process))
		return error_new(CR_IMAGE, "The first thread of process %d is another one",
				 process->pid);
	TRY(check_next(image, id));
	thread = image_add_thread(image, process);
	if (!thread)
		return error_nomem();
	thread->id = id;
	thread->tid = identity->tid;
	return image_number_thread(image, thread, thread->tid);
}

static struct cr_error *keep_zombie(struct image *image, uint32_t id, struct zombie *state)
{
	struct process *parent = image_process(image, state->identity.ppid), *process;

	if (!parent || process_state(parent, &zombie_kind))
		return error_new(CR_IMAGE, "Zombie %d has no parent in the image",
				 state->identity.pid);
	TRY(zombie_add(image, parent, state, &process));
	process->id = id;
	return index_process(image, process);
}

static struct cr_error *keep(void **states, const struct kind *kind, void *state)
{
	if (states[kind_index(kind)])
		return error_new(CR_IMAGE, "A %s record is there twice", kind->name);
	states[kind_index(kind)] = state;
	return NULL;
}

static struct cr_error *keep_object(struct image *image, const struct kind *kind, uint32_t id,
				    void *state)
{
	struct object *object, **objects = image->objects.items;

	if (image->objects.count && objects[image->objects.count - 1]->id >= id)
		return error_new(CR_IMAGE, "Object %u is out of order", id);
	object = image_add_object(image, kind);
	if (!object)
		return error_nomem();
	object->id = id;
	object->state = state;
	return NULL;
}

static struct cr_error *keep_record(struct image *image, const struct kind *kind, uint32_t id,
				    void *state)
{
	struct process *process;
	size_t threads;

	if (kind->scope == SCOPE_OBJECT)
		return keep_object(image, kind, id, state);
	if (kind->scope == SCOPE_ZOMBIE)
		return keep_zombie(image, id, state);
	if (kind == &process_kind)
		TRY(begin_process(image, id, state));
	else if (kind == &thread_kind)
		TRY(begin_thread(image, id, state));
	process = last_process(image);
	if (kind->scope == SCOPE_PROCESS) {
		if (!process || process->id != id)
			return error_new(CR_IMAGE, "A %s record belongs to no process", kind->name);
		return keep(process->states, kind, state);
	}
	threads = process ? process->threads.count : 0;
	if (!threads || ((struct thread **)process->threads.items)[threads - 1]->id != id)
		return error_new(CR_IMAGE, "A %s record belongs to no thread", kind->name);
	return keep(((struct thread **)process->threads.items)[threads - 1]->states, kind, state);
}

static struct cr_error *read_record(struct image *image, struct record_reader *reader, bool *end)
{
	const struct kind *kind;
	const char *name;
	size_t members;
	uint64_t id;
	void *state;

	TRY(record_get_array(reader, 3, &members));
	if (members != 3)
		return error_new(CR_IMAGE, "A record has %zu members, not 3", members);
	TRY(record_get_text(reader, 64, &name));
	TRY(record_get_uint(reader, UINT32_MAX, &id));
	if (!strcmp(name, HEADER_END)) {
		*end = true;
		return header_check_end(image, reader, id);
	}
	kind = kind_by_name(name);
	if (!kind)
		return error_new(CR_IMAGE, "The image holds '%s', which this version does not know",
				 name);
	state = pool_alloc(image->pool, kind->size);
	if (!state)
		return error_nomem();
	TRY(error_wrap(record_get(reader, kind->fields, state), "Bad %s record %u", name,
		       (uint32_t)id));
	return keep_record(image, kind, (uint32_t)id, state);
}

static struct cr_error *read_records(struct image *image, struct record_reader *reader)
{
	bool end = false;

	TRY(header_read(image, reader));
	while (!end) {
		if (record_at_end(reader))
			return error_new(CR_IMAGE, "state.cbor is cut off");
		TRY(read_record(image, reader, &end));
	}
	if (!record_at_end(reader))
		return error_new(CR_IMAGE, "state.cbor goes on behind its end");
	return NULL;
}

/* A record file as memory that lasts until unmap_file(). */
static struct cr_error *map_file(int image_fd, const char *name, struct record_reader *reader)
{
	_cleanup_close_ int fd = openat(image_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat stat;
	void *data;

	if (fd < 0 || fstat(fd, &stat) < 0)
		return error_sys("Failed to open %s", name);
	if (!stat.st_size)
		return error_new(CR_IMAGE, "%s is empty", name);
	data = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return error_sys("Failed to map %s", name);
	reader->data = data;
	reader->len = (size_t)stat.st_size;
	return NULL;
}

static void unmap_file(struct record_reader *reader)
{
	if (reader->data)
		munmap((void *)reader->data, reader->len);
}

/* Nothing is restored from the table of objects; but what it says must be what the records say. */
static struct cr_error *check_objects(struct image *image, struct record_reader *reader)
{
	size_t count;

	TRY(record_get_array(reader, image->objects.count, &count));
	if (count != image->objects.count)
		return error_new(CR_IMAGE, "objects.cbor lists %zu objects of %zu", count,
				 image->objects.count);
	for_each (struct object *, object, &image->objects) {
		struct object_row row = {0};

		TRY(error_wrap(record_get(reader, object_fields, &row),
			       "Bad object in objects.cbor"));
		if (row.id != object->id || strcmp((const char *)row.kind.data, object->kind->name))
			return error_new(CR_IMAGE,
					 "objects.cbor and state.cbor disagree about object %u",
					 row.id);
	}
	if (!record_at_end(reader))
		return error_new(CR_IMAGE, "objects.cbor goes on behind its end");
	return NULL;
}

/* Every process and thread must have one record of every kind of its scope. */
static struct cr_error *check_states(struct image *image)
{
	if (!image->processes.count)
		return error_new(CR_IMAGE, "The image holds no process");
	for_each (struct process *, process, &image->processes) {
		if (!process->threads.count)
			return error_new(CR_IMAGE, "Process %d has no thread", process->pid);
		for (unsigned int k = 0; k < kinds_count(); k++) {
			if (kinds[k]->scope == SCOPE_PROCESS && !process->states[k])
				return error_new(CR_IMAGE, "Process %d has no %s record",
						 process->pid, kinds[k]->name);
			for_each (struct thread *, thread, &process->threads) {
				if (kinds[k]->scope == SCOPE_THREAD && !thread->states[k])
					return error_new(CR_IMAGE, "Thread %d has no %s record",
							 thread->tid, kinds[k]->name);
			}
		}
	}
	return NULL;
}

static struct cr_error *check_complete(struct image *image)
{
	TRY(check_states(image));
	TRY(sharing_link(image));
	for_each (struct object *, object, &image->objects) {
		if (contents_of(object))
			TRY(contents_validate(image, object));
		if (object->kind == &lease_kind)
			TRY(lease_validate(image, object->state));
	}
	for_each (struct process *, process, &image->processes)
		TRY(memory_validate(image, process));
	return NULL;
}

struct cr_error *inventory_read(struct image *image, int image_fd)
{
	_cleanup_(unmap_file) struct record_reader state = {.pool = image->pool};
	_cleanup_(unmap_file) struct record_reader objects = {.pool = image->pool};

	TRY(map_file(image_fd, "state.cbor", &state));
	TRY(read_records(image, &state));
	TRY(map_file(image_fd, "objects.cbor", &objects));
	TRY(check_objects(image, &objects));
	TRY(page_store_load(&image->pages, image_fd));
	return check_complete(image);
}
