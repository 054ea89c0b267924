/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sharing.h"

#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>

#include "kinds/files.h"
#include "kinds/fs.h"
#include "kinds/memory.h"
#include "kinds/process.h"
#include "kinds/share.h"
#include "kinds/thread_tables.h"

static const struct sort {
	size_t offset; /* of the kernel's address in struct kernel_task */
	uint64_t clone_flag;
	bool of_thread; /* threads of one process may differ */
	const char *name;
} sorts[SHARE_SORTS] = {
	[SHARE_MEMORY] = {offsetof(struct kernel_task, mm), CLONE_VM, false, "memory"},
	[SHARE_FS] = {offsetof(struct kernel_task, fs), CLONE_FS, true, "directories"},
	[SHARE_SIGHAND] = {offsetof(struct kernel_task, sighand), CLONE_SIGHAND, false,
			   "signal dispositions"},
	[SHARE_FILES] = {offsetof(struct kernel_task, files), CLONE_FILES, true, "descriptors"},
	[SHARE_UNDO] = {offsetof(struct kernel_task, undo_list), CLONE_SYSVSEM, false,
			"semaphore adjustments"},
};

const char *sharing_name(enum share sort)
{
	return sorts[sort].name;
}

uint64_t sharing_flag(enum share sort)
{
	return sorts[sort].clone_flag;
}

const struct process *sharing_owner(const struct process *process, enum share sort)
{
	const struct thread *first = process_leader(process)->first[sort];

	return first->own ? first->own : first->process;
}

uint32_t sharing_with_parent(const struct process *process)
{
	uint32_t bits = 0;

	for (unsigned int sort = 0; process->parent && sort < SHARE_SORTS; sort++) {
		if (process_leader(process)->first[sort] ==
		    process_leader(process->parent)->first[sort])
			bits |= 1u << sort;
	}
	return bits;
}

bool sharing_is_apart(const struct thread *thread)
{
	const struct thread *leader = process_leader(thread->process);

	return thread->first[SHARE_FS] != leader->first[SHARE_FS] ||
	       thread->first[SHARE_FILES] != leader->first[SHARE_FILES];
}

/* ---- threads apart ---- */

static struct cr_error *list_table(struct image *image, struct process *process)
{
	struct process **slot = list_append(image->pool, &image->tables, sizeof(*slot));

	if (!slot)
		return error_nomem();
	*slot = process;
	return NULL;
}

/* As a process of this one thread, with the thread's number. */
static struct cr_error *stand_for(struct image *image, struct thread *thread,
				  struct thread_tables *tables)
{
	struct process *process = pool_memdup(image->pool, thread->process, sizeof(*process));
	struct thread **slot;

	if (!process)
		return error_nomem();
	memset(&process->threads, 0, sizeof(process->threads));
	memset(&process->children, 0, sizeof(process->children));
	slot = list_append(image->pool, &process->threads, sizeof(struct thread *));
	process->states = pool_calloc(image->pool, kinds_count(), sizeof(void *));
	if (!slot || !process->states)
		return error_nomem();
	*slot = thread;
	process->pid = thread->tid;
	process->host_pid = thread->host_tid;
	process->states[kind_index(&files_kind)] = &tables->files;
	process->states[kind_index(&fs_kind)] = &tables->fs;
	thread->own = process;
	return list_table(image, process);
}

/* Processes first: whoever looks for a holder finds one of them before a thread. */
static struct cr_error *list_processes(struct image *image)
{
	for_each (struct process *, process, &image->processes)
		TRY(list_table(image, process));
	return NULL;
}

struct process *sharing_table(const struct image *image, pid_t pid)
{
	struct process *process = image_living(image, pid); /* a zombie has nothing */
	const struct thread *thread = image_thread(image, pid);

	return process || !thread ? process : thread->own;
}

/* ---- from the kernel's addresses ---- */

/* A thread and the kernel's address of what it may share. */
struct sharer {
	uint64_t what;
	struct thread *thread;
};

static uint64_t what_of(const struct sort *sort, const struct thread *thread)
{
	return *(const uint64_t *)((const char *)thread->kernel + sort->offset);
}

static int by_what(const void *a, const void *b)
{
	const struct sharer *x = a, *y = b;

	if (x->what != y->what)
		return x->what < y->what ? -1 : 1;
	/* ids ascend from parents to children */
	return (x->thread->id > y->thread->id) - (x->thread->id < y->thread->id);
}

static bool has_of_its_own(const struct sort *sort, const struct thread *thread)
{
	const struct thread *leader = process_leader(thread->process);

	return thread == leader ||
	       (sort->of_thread && what_of(sort, thread) != what_of(sort, leader));
}

static struct cr_error *find_one(struct dump *dump, enum share number, struct sharer *users)
{
	const struct sort *sort = &sorts[number];
	size_t count = 0;

	for_each (struct process *, process, &dump->image.processes) {
		for_each (struct thread *, thread, &process->threads) {
			if (has_of_its_own(sort, thread))
				users[count++] = (struct sharer){what_of(sort, thread), thread};
		}
	}
	if (count)
		qsort(users, count, sizeof(*users), by_what);
	for (size_t i = 0; i < count; i++) {
		/* 0: it has none */
		bool shared = i && users[i].what && users[i].what == users[i - 1].what;

		users[i].thread->first[number] =
			shared ? users[i - 1].thread->first[number] : users[i].thread;
	}
	return NULL;
}

/* Threads have what their process has, unless it was found out otherwise. */
static void complete(struct image *image)
{
	for_each (struct process *, process, &image->processes) {
		for_each (struct thread *, thread, &process->threads) {
			for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
				if (!thread->first[sort])
					thread->first[sort] = process_leader(process)->first[sort];
			}
		}
	}
}

static struct cr_error *stand_for_all(struct image *image)
{
	for_each (struct process *, process, &image->processes) {
		for_each (struct thread *, thread, &process->threads) {
			struct thread_tables *tables;

			if (!sharing_is_apart(thread))
				continue;
			tables = pool_alloc(image->pool, sizeof(*tables));
			if (!tables)
				return error_nomem();
			TRY(stand_for(image, thread, tables));
		}
	}
	return NULL;
}

struct cr_error *sharing_find(struct dump *dump)
{
	struct image *image = &dump->image;
	struct sharer *users = pool_calloc(image->pool, image->threads + 1, sizeof(*users));

	if (!users)
		return error_nomem();
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		TRY(find_one(dump, sort, users));
	complete(image);
	TRY(list_processes(image));
	return stand_for_all(image);
}

/* ---- records ---- */

/* Threads have what the first of them has, and then nobody needs to tell. */
static bool counts(const struct thread *thread, enum share sort)
{
	return thread_is_leader(thread) ||
	       thread->first[sort] != process_leader(thread->process)->first[sort];
}

/* The tree tells of a process that has everything for itself, or from its parent. */
static bool is_told_by_tree(const struct thread *thread, enum share sort)
{
	const struct process *parent = thread->process->parent;

	if (!thread_is_leader(thread))
		return false;
	return thread->first[sort] == thread ||
	       (parent && thread->first[sort] == process_leader(parent)->first[sort]);
}

static struct cr_error *add_task(struct image *image, struct object **objects,
				 const struct thread *thread, enum share sort)
{
	struct object **object = &objects[thread->first[sort]->id];
	struct shared_thing *thing;
	struct shared_task *task;

	if (!*object)
		return NULL;
	thing = (*object)->state;
	task = list_append(image->pool, &thing->tasks, sizeof(*task));
	if (!task)
		return error_nomem();
	task->tid = thread->tid;
	return NULL;
}

static struct cr_error *begin_thing(struct image *image, struct object **objects,
				    const struct thread *thread, enum share sort)
{
	struct object **object = &objects[thread->first[sort]->id];

	if (*object)
		return NULL;
	*object = image_add_object(image, &share_kind);
	if (!*object)
		return error_nomem();
	((struct shared_thing *)(*object)->state)->what = 1u << sort;
	return NULL;
}

static struct cr_error *dump_one(struct image *image, enum share sort, size_t ids)
{
	struct object **objects = pool_calloc(image->pool, ids + 1, sizeof(struct object *));

	if (!objects)
		return error_nomem();
	for_each (struct process *, process, &image->processes) {
		for_each (struct thread *, thread, &process->threads) {
			if (counts(thread, sort) && !is_told_by_tree(thread, sort))
				TRY(begin_thing(image, objects, thread, sort));
		}
	}
	for_each (struct process *, member, &image->processes) {
		for_each (struct thread *, thread, &member->threads) {
			if (counts(thread, sort))
				TRY(add_task(image, objects, thread, sort));
		}
	}
	return NULL;
}

static struct cr_error *dump_tables(struct image *image, const struct thread *thread)
{
	struct object *object = image_add_object(image, &thread_tables_kind);
	struct thread_tables *tables;

	if (!object)
		return error_nomem();
	tables = object->state;
	tables->tid = thread->tid;
	tables->files = *(struct files *)process_state(thread->own, &files_kind);
	tables->fs = *(struct directories *)process_state(thread->own, &fs_kind);
	return NULL;
}

struct cr_error *sharing_dump(struct dump *dump)
{
	struct image *image = &dump->image;
	size_t ids = image->next_id;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		TRY(dump_one(image, sort, ids));
	for_each (struct process *, process, &image->tables) {
		if (process_leader(process)->own == process)
			TRY(dump_tables(image, process_leader(process)));
	}
	return NULL;
}

/* ---- from the records ---- */

static struct cr_error *find_thread(const struct image *image, pid_t tid, struct thread **ret)
{
	*ret = image_thread(image, tid);
	return *ret ? NULL
		    : error_new(CR_IMAGE, "Thread %d is to share something, but is not there", tid);
}

static struct cr_error *link_thing(const struct image *image, const struct shared_thing *thing)
{
	const struct shared_task *tasks = thing->tasks.items;
	unsigned int sort = (unsigned int)__builtin_ctz(thing->what);
	struct thread *first = NULL;

	if (thing->what & (thing->what - 1) || !thing->tasks.count)
		return error_new(CR_IMAGE, "A share record tells of nothing that can be shared");
	for (size_t i = 0; i < thing->tasks.count; i++) {
		struct thread *thread;

		TRY(find_thread(image, tasks[i].tid, &thread));
		first = first ? first : thread;
		if (thread->id < first->id || (!sorts[sort].of_thread && !thread_is_leader(thread)))
			return error_new(CR_IMAGE, "Thread %d cannot share its %s", thread->tid,
					 sorts[sort].name);
		thread->first[sort] = first;
	}
	return NULL;
}

/* Parents come before their children. */
static struct cr_error *link_to_parent(struct process *process)
{
	const struct process_identity *identity = process_state(process, &process_kind);
	struct thread *leader = process_leader(process);

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		bool shared = identity->shared & (1u << sort);

		if (shared && !process->parent)
			return error_new(CR_IMAGE, "Process 1 has nobody to share with");
		if (!leader->first[sort])
			leader->first[sort] =
				shared ? process_leader(process->parent)->first[sort] : leader;
	}
	return NULL;
}

/* Who tells for others tells for itself. */
static struct cr_error *check_firsts(const struct process *process)
{
	for_each (struct thread *, thread, &process->threads) {
		for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
			if (thread->first[sort]->first[sort] != thread->first[sort])
				return error_new(CR_IMAGE, "Thread %d shares its %s in two ways",
						 thread->tid, sorts[sort].name);
		}
	}
	return NULL;
}

/* What the kernel holds to be impossible would be its to refuse, but late. */
static struct cr_error *check_links(struct process *process)
{
	const struct thread *leader = process_leader(process);

	TRY(check_firsts(process));
	if (leader->first[SHARE_SIGHAND]->first[SHARE_MEMORY] != leader->first[SHARE_MEMORY])
		return error_new(CR_IMAGE, "Process %d shares signal dispositions, but not memory",
				 process->pid);
	process->memory = sharing_is_first(process, SHARE_MEMORY)
				  ? process_state(process, &memory_kind)
				  : process_leader(process)->first[SHARE_MEMORY]->process->memory;
	return process->memory ? NULL
			       : error_new(CR_IMAGE, "Process %d shares the memory of a later one",
					   process->pid);
}

static struct cr_error *link_tables(struct image *image, struct thread_tables *tables)
{
	struct thread *thread;

	TRY(find_thread(image, tables->tid, &thread));
	if (!sharing_is_apart(thread) || thread->own)
		return error_new(CR_IMAGE, "Thread %d has no descriptors of its own", thread->tid);
	return stand_for(image, thread, tables);
}

static struct cr_error *check_apart(struct image *image)
{
	for_each (struct process *, process, &image->processes) {
		for_each (struct thread *, thread, &process->threads) {
			if (sharing_is_apart(thread) && !thread->own)
				return error_new(CR_IMAGE,
						 "Thread %d has no record of its descriptors",
						 thread->tid);
		}
	}
	return NULL;
}

struct cr_error *sharing_link(struct image *image)
{
	for_each (struct object *, thing, &image->objects) {
		if (thing->kind == &share_kind)
			TRY(link_thing(image, thing->state));
	}
	for_each (struct process *, process, &image->processes)
		TRY(link_to_parent(process));
	complete(image);
	for_each (struct process *, member, &image->processes)
		TRY(check_links(member));
	TRY(list_processes(image));
	for_each (struct object *, object, &image->objects) {
		if (object->kind == &thread_tables_kind)
			TRY(link_tables(image, object->state));
	}
	return check_apart(image);
}
