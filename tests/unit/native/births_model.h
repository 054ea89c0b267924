/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A small model of tasks and what they share, and its tasks as those of an image: births.c */
#ifndef BIRTHS_MODEL_H
#define BIRTHS_MODEL_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "births.h"
#include "kinds/memory.h"
#include "kinds/zombie.h"
#include "sharing.h"

/* ---- what the plan needs of the engine ---- */

const struct kind zombie_kind = {.name = "zombie", .scope = SCOPE_ZOMBIE};

unsigned int kinds_count(void)
{
	return 1;
}

unsigned int kind_index(const struct kind *kind)
{
	(void)kind;
	return 0;
}

const char *sharing_name(enum share sort)
{
	static const char *const names[] = {"memory", "directories", "dispositions", "descriptors",
					    "adjustments"};

	return names[sort];
}

uint64_t sharing_flag(enum share sort)
{
	return 1u << sort;
}

bool sharing_is_apart(const struct thread *thread)
{
	const struct thread *leader = process_leader(thread->process);

	return thread->first[SHARE_FS] != leader->first[SHARE_FS] ||
	       thread->first[SHARE_FILES] != leader->first[SHARE_FILES];
}

bool memory_is_kin(const struct memory_map *a, const struct memory_map *b)
{
	return a && b && a->start_stack == b->start_stack;
}

/* ---- tasks ---- */

enum { MOST = 4096, ALL = (1 << SHARE_SORTS) - 1, UNSHARED = 1 << SHARE_FS | 1 << SHARE_FILES };

struct task {
	bool lives, is_zombie, is_reaper;
	struct task *leader, *parent; /* of the process: its first task, also if that is dead */
	uint32_t has[SHARE_SORTS];    /* numbers of things */
	uint32_t program;	      /* which execve(2) its memory stems from */
	const struct process *shows;  /* restart: whose memory */
	int number, session, exit_signal, threads;
	struct process *process;
	struct thread *thread;
};

struct world {
	struct task tasks[MOST];
	int count;
	uint32_t things;
};

#define check(good, ...)                                                                           \
	do {                                                                                       \
		if (!(good)) {                                                                     \
			printf(__VA_ARGS__);                                                       \
			printf(" (%s:%d)\n", __FILE__, __LINE__);                                  \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static bool tells; /* what happens */

#define tell(...) (tells ? printf(__VA_ARGS__) : 0)

static bool is_leader(const struct task *task)
{
	return task->leader == task;
}

/* clone(2): @flags are 1 << enum share. */
static struct task *do_clone(struct world *world, const struct task *maker, uint64_t flags)
{
	struct task *child = &world->tasks[world->count++];

	*child = (struct task){
		.lives = true,
		.leader = child,
		.parent = maker->leader,
		.program = maker->program,
		.shows = maker->shows,
		.number = world->count,
		.session = maker->leader->session,
		.exit_signal = SIGCHLD,
		.threads = 1,
	};
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		child->has[sort] = flags & 1u << sort ? maker->has[sort] : ++world->things;
	tell(" %d:clone(%#lx)=%d", maker->number, flags, child->number);
	return child;
}

static struct task *do_clone_thread(struct world *world, const struct task *maker, uint64_t flags)
{
	struct task *child = do_clone(world, maker, flags);

	child->leader = maker->leader;
	child->leader->threads++;
	return child;
}

static void do_unshare(struct world *world, struct task *task, uint64_t flags)
{
	tell(" %d:unshare(%#lx)", task->number, flags);
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		if (flags & 1u << sort)
			task->has[sort] = ++world->things;
	}
}

static void do_exec(struct world *world, struct task *task)
{
	do_unshare(world, task, ALL & ~(1u << SHARE_FS | 1u << SHARE_UNDO));
	tell(" (execve)");
	task->program = world->things;
	task->exit_signal = SIGCHLD;
}

static void do_setsid(struct task *leader)
{
	tell(" %d:setsid", leader->number);
	leader->session = leader->number;
}

static void do_set_reaper(struct task *leader, bool on)
{
	tell(" %d:subreaper %d", leader->number, on);
	leader->is_reaper = on;
}

static struct task *reaper_above(struct task *task)
{
	do
		task = task->parent;
	while (task->parent && !(task->is_reaper && task->threads));
	return task;
}

/* The process ends; @reaped: at once. */
static void do_exit(struct world *world, struct task *leader, bool reaped)
{
	for (int i = 0; i < world->count; i++) {
		struct task *task = &world->tasks[i];

		if (task->leader == leader)
			task->lives = false;
	}
	tell(" %d:exit%s", leader->number, reaped ? "" : " waits");
	leader->threads = 0;
	for (int i = 0; i < world->count; i++) {
		struct task *child = &world->tasks[i];

		if (child->parent != leader || !is_leader(child))
			continue;
		child->parent = reaper_above(leader);
		child->exit_signal = SIGCHLD;
		/* init does not let them wait */
		child->is_zombie &= child->parent->parent != NULL;
	}
	leader->is_zombie = !reaped && leader->parent->parent;
}

static void begin_world(struct world *world)
{
	struct task *init = &world->tasks[0];

	memset(world, 0, sizeof(*world));
	*init = (struct task){
		.lives = true, .leader = init, .number = 1, .session = 1, .threads = 1};
	do_unshare(world, init, ALL);
	world->count = 1;
	tell("\n");
}

/* ---- as an image ---- */

static bool is_there(const struct task *task)
{
	return task->lives || task->is_zombie || (is_leader(task) && task->threads);
}

static struct thread *first_with(const struct world *world, enum share sort, uint32_t thing)
{
	struct thread *first = NULL;

	for (int i = 0; i < world->count; i++) {
		const struct task *task = &world->tasks[i];

		if (task->thread && task->lives && task->has[sort] == thing &&
		    (!first || task->thread->id < first->id))
			first = task->thread;
	}
	return first;
}

static void add_process(struct image *image, struct world *world, struct task *leader)
{
	struct process *process =
		leader->is_zombie
			? image_add_zombie(image, leader->parent->process)
			: image_add_process(image, leader->parent ? leader->parent->process : NULL);

	leader->process = process;
	process->pid = process->number = leader->number;
	process->session = leader->session;
	process->exit_signal = leader->exit_signal;
	if (leader->is_zombie) {
		process_new_state(image, process, &zombie_kind);
		leader->thread = process_leader(process);
		leader->thread->tid = leader->number;
		return;
	}
	for (int i = 0; i < world->count; i++) {
		struct task *task = &world->tasks[i];

		if (task->leader != leader || !task->lives)
			continue;
		task->thread = image_add_thread(image, process);
		task->thread->tid = task->number;
	}
}

/* Parents first. */
static void add_processes(struct image *image, struct world *world)
{
	bool more;

	do {
		more = false;
		for (int i = 0; i < world->count; i++) {
			struct task *task = &world->tasks[i];

			if (!is_leader(task) || task->process || !is_there(task) ||
			    (task->parent && !task->parent->process))
				continue;
			add_process(image, world, task);
			more = true;
		}
	} while (more);
}

static void find_first(struct image *image, struct world *world)
{
	for (int i = 0; i < world->count; i++) {
		struct task *task = &world->tasks[i];

		for (unsigned int sort = 0; task->lives && sort < SHARE_SORTS; sort++)
			task->thread->first[sort] = first_with(world, sort, task->has[sort]);
	}
	for (int i = 0; i < world->count; i++) {
		struct task *task = &world->tasks[i];
		struct process *owner;

		if (!task->lives || task->thread != process_leader(task->leader->process))
			continue;
		owner = task->thread->first[SHARE_MEMORY]->process;
		if (!owner->memory)
			owner->memory = pool_alloc(image->pool, sizeof(*owner->memory));
		owner->memory->start_stack = task->program;
		task->leader->process->memory = owner->memory;
	}
}

static void make_image(struct image *image, struct world *world)
{
	memset(image, 0, sizeof(*image));
	check(!pool_create(65536, &image->pool), "memory");
	add_processes(image, world);
	find_first(image, world);
}

#endif
