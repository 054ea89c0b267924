/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Filters form a tree: fork(2) and clone(2) inherit the chain of the parent, and each new filter
 * stands on it. One object for each, whoever is under it.
 */
#include "seccomp_filter.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#ifndef PTRACE_SECCOMP_GET_FILTER
#define PTRACE_SECCOMP_GET_FILTER 0x420c
#endif
#ifndef PTRACE_SECCOMP_GET_METADATA
#define PTRACE_SECCOMP_GET_METADATA 0x420d
#endif

struct seccomp_filter {
	uint32_t previous;
	uint32_t flags;
	struct bytes program; /* struct sock_filter[] */
};

static const struct field seccomp_filter_fields[] = {
	FIELD_UINT(struct seccomp_filter, previous, 0, UINT32_MAX, "older filter, object; 0: none"),
	FIELD_UINT(struct seccomp_filter, flags, 0, UINT32_MAX, "SECCOMP_FILTER_FLAG_LOG"),
	FIELD_BYTES(struct seccomp_filter, program, BPF_MAXINSNS * sizeof(struct sock_filter),
		    "struct sock_filter[]"),
	FIELD_END,
};

static struct cr_error *read_failed(pid_t tid)
{
	return error_remedy(
		error_object(error_sys("Failed to read the seccomp filters of task %d", tid),
			     "seccomp"),
		"It takes CAP_SYS_ADMIN, no seccomp filter around lxc-cr itself, and a "
		"kernel with CONFIG_CHECKPOINT_RESTORE=y");
}

/* *ret: its instructions; 0: the chain has no filter @index (0: the oldest). */
static struct cr_error *read_program(pid_t tid, uint64_t index,
				     struct sock_filter program[BPF_MAXINSNS], size_t *ret)
{
	long count = ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, program);

	*ret = 0;
	if (count < 0 && errno == ENOENT)
		return NULL;
	if (count < 0)
		return read_failed(tid);
	*ret = (size_t)count;
	return NULL;
}

/* struct seccomp_metadata of linux/ptrace.h, which clashes with sys/ptrace.h. */
struct metadata {
	uint64_t filter_off, flags;
};

static struct cr_error *read_flags(pid_t tid, uint64_t index, uint32_t *ret)
{
	struct metadata metadata = {.filter_off = index};

	if (ptrace(PTRACE_SECCOMP_GET_METADATA, tid, sizeof(metadata), &metadata) < 0)
		return read_failed(tid);
	*ret = (uint32_t)metadata.flags;
	return NULL;
}

/* A filter that was met; the others have the same digest. */
struct known_filter {
	struct object *object;
	struct known_filter *next;
};

static uint64_t digest(const struct bytes *program)
{
	uint64_t digest = 0xcbf29ce484222325ull; /* FNV-1a */

	for (size_t i = 0; i < program->len; i++)
		digest = (digest ^ program->data[i]) * 0x100000001b3ull;
	return digest;
}

/* Filters that stand on the same one and say the same are the same, for all that can be told. */
static struct object *find(const struct known_filter *known, const struct seccomp_filter *wanted)
{
	for (; known; known = known->next) {
		const struct seccomp_filter *filter = known->object->state;

		if (filter->previous == wanted->previous && filter->flags == wanted->flags &&
		    filter->program.len == wanted->program.len &&
		    !memcmp(filter->program.data, wanted->program.data, wanted->program.len))
			return known->object;
	}
	return NULL;
}

static struct cr_error *add(struct dump *dump, struct seccomp_filter *filter, uint64_t hash,
			    struct known_filter *others, struct object **ret)
{
	struct pool *pool = dump->image.pool;
	struct known_filter *known = pool_alloc(pool, sizeof(*known));
	struct object *object = image_add_object(&dump->image, &seccomp_filter_kind);

	filter->program.data = pool_memdup(pool, filter->program.data, filter->program.len);
	if (!known || !object || !filter->program.data)
		return error_nomem();
	*(struct seccomp_filter *)object->state = *filter;
	known->object = *ret = object;
	if (!others)
		return hash_add(pool, &dump->seccomp_filters, filter->previous, hash, known);
	known->next = others->next;
	others->next = known;
	return NULL;
}

static struct cr_error *find_or_add(struct dump *dump, struct seccomp_filter *filter, uint32_t *ret)
{
	uint64_t hash = digest(&filter->program);
	struct known_filter *known = hash_find(&dump->seccomp_filters, filter->previous, hash);
	struct object *object = find(known, filter);

	if (!object)
		TRY(add(dump, filter, hash, known, &object));
	*ret = object->id;
	return NULL;
}

static struct cr_error *dump_chain(struct dump *dump, pid_t tid, uint32_t *newest)
{
	struct sock_filter program[BPF_MAXINSNS];

	*newest = 0;
	for (uint64_t index = 0;; index++) {
		struct seccomp_filter filter = {.previous = *newest};
		size_t count;

		TRY(read_program(tid, index, program, &count));
		if (!count)
			return NULL;
		TRY(read_flags(tid, index, &filter.flags));
		filter.program.data = (uint8_t *)program;
		filter.program.len = count * sizeof(program[0]);
		TRY(find_or_add(dump, &filter, newest));
	}
}

struct cr_error *seccomp_filter_dump(struct dump *dump, const struct thread *thread, uint32_t *ret)
{
	uint64_t address = thread->kernel->seccomp_filter;
	const struct object *known;

	*ret = 0;
	if (!address)
		return NULL;
	known = hash_find(&dump->seccomp_chains, address, 0);
	if (known) {
		*ret = known->id;
		return NULL;
	}
	TRY(dump_chain(dump, thread->host_tid, ret));
	known = image_object(&dump->image, *ret);
	return known ? hash_add(dump->image.pool, &dump->seccomp_chains, address, 0, (void *)known)
		     : NULL;
}

struct cr_error *seccomp_filter_chain(struct restore *restore, uint32_t newest, struct list *ret)
{
	struct object **objects;
	uint32_t id = newest;

	while (id) {
		struct object *object = image_object(&restore->image, id);
		struct object **slot = list_append(restore->image.pool, ret, sizeof(*slot));
		uint32_t previous;

		if (!slot)
			return error_nomem();
		if (!object || object->kind != &seccomp_filter_kind)
			return error_new(CR_IMAGE, "Object %u is not a seccomp filter", id);
		previous = ((struct seccomp_filter *)object->state)->previous;
		if (previous >= id)
			return error_new(CR_IMAGE, "Seccomp filter %u stands on a later one", id);
		*slot = object;
		id = previous;
	}
	objects = ret->items;
	for (size_t i = 0; i < ret->count / 2; i++) {
		struct object *swapped = objects[i];

		objects[i] = objects[ret->count - 1 - i];
		objects[ret->count - 1 - i] = swapped;
	}
	return NULL;
}

struct cr_error *seccomp_filter_matches(pid_t tid, uint64_t index, const struct object *object,
					bool *ret)
{
	const struct seccomp_filter *filter = object->state;
	struct sock_filter program[BPF_MAXINSNS];
	size_t count;

	TRY(read_program(tid, index, program, &count));
	*ret = filter->program.len == count * sizeof(program[0]) &&
	       !memcmp(filter->program.data, program, filter->program.len);
	return NULL;
}

struct cr_error *seccomp_filter_load(struct restore *restore, const struct object *object,
				     bool everywhere)
{
	const struct seccomp_filter *filter = object->state;
	struct program *p = restore->program;
	struct sock_fprog program = {
		.len = (unsigned short)(filter->program.len / sizeof(struct sock_filter)),
	};

	TRY(program_reserve(p, 1, filter->program.len + sizeof(program) + 64));
	program.filter =
		(struct sock_filter *)program_data(p, filter->program.data, filter->program.len);
	program_call(p, "load a seccomp filter", SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		     (filter->flags & SECCOMP_FILTER_FLAG_LOG) |
			     (everywhere ? SECCOMP_FILTER_FLAG_TSYNC : 0),
		     program_data(p, &program, sizeof(program)));
	return NULL;
}

const struct kind seccomp_filter_kind = {
	.name = "seccomp_filter",
	.doc = "Seccomp filters, saved once however many threads are under them",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct seccomp_filter),
	.fields = seccomp_filter_fields,
};
