/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kinds/zombie.h"

static struct cr_error *remember(struct image *image, struct list *list, void *item)
{
	void **slot = list_append(image->pool, list, sizeof(*slot));

	if (!slot)
		return error_nomem();
	*slot = item;
	return NULL;
}

static struct process *add_process(struct image *image, struct process *parent, struct list *list)
{
	struct process *process = pool_alloc(image->pool, sizeof(*process));

	if (!process)
		return NULL;
	process->states = pool_calloc(image->pool, kinds_count(), sizeof(void *));
	process->parent = parent;
	process->proc = process->fds = process->pidfd = -1;
	process->id = ++image->next_id;
	if (!process->states || remember(image, list, process) ||
	    (parent && remember(image, &parent->children, process)))
		return NULL;
	return process;
}

struct process *image_add_process(struct image *image, struct process *parent)
{
	return add_process(image, parent, &image->processes);
}

static struct thread *add_thread(struct image *image, struct process *process)
{
	struct thread *thread = pool_alloc(image->pool, sizeof(*thread));

	if (!thread)
		return NULL;
	thread->states = pool_calloc(image->pool, kinds_count(), sizeof(void *));
	thread->process = process;
	if (!thread->states || remember(image, &process->threads, thread))
		return NULL;
	return thread;
}

struct thread *image_add_thread(struct image *image, struct process *process)
{
	struct thread *thread = add_thread(image, process);

	if (!thread)
		return NULL;
	thread->id = ++image->next_id;
	image->threads++;
	return thread;
}

/* Its thread is nothing but who runs programs for it until it ends again. */
struct process *image_add_zombie(struct image *image, struct process *parent)
{
	struct process *process = add_process(image, parent, &image->zombies);

	return process && add_thread(image, process) ? process : NULL;
}

struct object *image_add_object(struct image *image, const struct kind *kind)
{
	struct object *object = pool_alloc(image->pool, sizeof(*object));

	if (!object)
		return NULL;
	object->state = pool_alloc(image->pool, kind->size);
	object->kind = kind;
	object->fd = object->holder_fd = -1;
	object->id = ++image->next_id;
	if (!object->state || remember(image, &image->objects, object))
		return NULL;
	return object;
}

enum number { OF_PROCESS, OF_GROUP, OF_THREAD };

struct cr_error *image_number_process(struct image *image, struct process *process)
{
	return hash_add(image->pool, &image->numbers, OF_PROCESS, (uint64_t)process->number,
			process);
}

struct cr_error *image_number_group(struct image *image, struct process *member, pid_t group)
{
	return hash_add(image->pool, &image->numbers, OF_GROUP, (uint64_t)group, member);
}

struct cr_error *image_number_thread(struct image *image, struct thread *thread, pid_t number)
{
	return hash_add(image->pool, &image->numbers, OF_THREAD, (uint64_t)number, thread);
}

bool image_holds(const struct image *image, const struct kind *kind)
{
	for_each (struct object *, object, &image->objects) {
		if (object->kind == kind)
			return true;
	}
	return false;
}

struct process *image_process(const struct image *image, pid_t number)
{
	return hash_find(&image->numbers, OF_PROCESS, (uint64_t)number);
}

struct process *image_living(const struct image *image, pid_t number)
{
	struct process *process = image_process(image, number);

	return process && !process_state(process, &zombie_kind) ? process : NULL;
}

struct process *image_group_member(const struct image *image, pid_t group)
{
	return hash_find(&image->numbers, OF_GROUP, (uint64_t)group);
}

struct thread *image_thread(const struct image *image, pid_t number)
{
	return hash_find(&image->numbers, OF_THREAD, (uint64_t)number);
}

void *process_state(const struct process *process, const struct kind *kind)
{
	return process->states[kind_index(kind)];
}

void *thread_state(const struct thread *thread, const struct kind *kind)
{
	return thread->states[kind_index(kind)];
}

void *process_new_state(struct image *image, struct process *process, const struct kind *kind)
{
	return process->states[kind_index(kind)] = pool_alloc(image->pool, kind->size);
}

void *thread_new_state(struct image *image, struct thread *thread, const struct kind *kind)
{
	return thread->states[kind_index(kind)] = pool_alloc(image->pool, kind->size);
}

struct object *image_object(const struct image *image, uint32_t id)
{
	/* ids ascend in the list: both the dump and the reader see to it */
	size_t low = 0, high = image->objects.count;
	struct object **objects = image->objects.items;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (objects[middle]->id == id)
			return objects[middle];
		if (objects[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const char *image_text(struct image *image, const char *fmt, ...)
{
	char text[4096 + 256];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (len < 0)
		return fmt;
	if ((size_t)len >= sizeof(text))
		len = sizeof(text) - 1;
	fmt = pool_strndup(image->pool, text, (size_t)len);
	return fmt ? fmt : "?";
}
