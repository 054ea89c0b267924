/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sharing.h"

#include <linux/sched.h>
#include <stdlib.h>

/* A process and the kernel's address of what it may share. */
struct user {
	uint64_t what;
	struct process *process;
};

static const struct sort {
	enum sharing bit;
	size_t offset; /* of the address in struct kernel_task */
	uint64_t clone_flag;
	const char *name;
} sorts[] = {
	{SHARES_MEMORY, offsetof(struct kernel_task, mm), CLONE_VM, "memory"},
	{SHARES_FS, offsetof(struct kernel_task, fs), CLONE_FS, "directories"},
	{SHARES_SIGHAND, offsetof(struct kernel_task, sighand), CLONE_SIGHAND, "signal handlers"},
	{SHARES_FILES, offsetof(struct kernel_task, files), CLONE_FILES, "descriptors"},
	{SHARES_UNDO, offsetof(struct kernel_task, undo_list), CLONE_SYSVSEM,
	 "semaphore adjustments"},
};

enum { SORTS = sizeof(sorts) / sizeof(sorts[0]) };

static uint64_t what_of(const struct sort *sort, const struct process *process)
{
	const char *kernel = (const char *)process_leader(process)->kernel;

	return *(const uint64_t *)(kernel + sort->offset);
}

static int by_what(const void *a, const void *b)
{
	const struct user *x = a, *y = b;

	if (x->what != y->what)
		return x->what < y->what ? -1 : 1;
	/* ids ascend from parents to children */
	return (x->process->id > y->process->id) - (x->process->id < y->process->id);
}

static struct cr_error *find_one(struct dump *dump, const struct sort *sort, struct user *users)
{
	const struct list *processes = &dump->image.processes;
	size_t count = 0;

	for_each (struct process *, process, processes)
		users[count++] = (struct user){what_of(sort, process), process};
	qsort(users, count, sizeof(*users), by_what);
	for (size_t i = 1; i < count; i++) {
		struct process *process = users[i].process;

		if (!users[i].what || users[i].what != users[i - 1].what)
			continue;
		if (process->parent && what_of(sort, process->parent) == users[i].what)
			process->shared |= sort->bit;
		else
			process->stray = sort->name;
	}
	return NULL;
}

struct cr_error *sharing_find(struct dump *dump)
{
	struct user *users =
		pool_calloc(dump->image.pool, dump->image.processes.count + 1, sizeof(*users));

	if (!users)
		return error_nomem();
	for (size_t i = 0; i < SORTS; i++)
		TRY(find_one(dump, &sorts[i], users));
	return NULL;
}

uint64_t sharing_clone_flags(const struct process *process)
{
	uint64_t flags = 0;

	for (size_t i = 0; i < SORTS; i++) {
		if (process->shared & sorts[i].bit)
			flags |= sorts[i].clone_flag;
	}
	return flags;
}
