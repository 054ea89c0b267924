/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ptracers.h"

#include <fcntl.h>
#include <linux/btf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"

enum { MOST = 1 << 16, IN_FORCE = '1' };

static char scope(void)
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC);
	char answer = 0;

	return fd >= 0 && read(fd, &answer, 1) == 1 ? answer : 0;
}

/* "ffffffff82a3c0e0 d ptracer_relations"; 0: not there, or not to be seen. */
static uint64_t find_symbol(const char *name)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	char line[512], found[256];
	unsigned long address = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		/* most lines are others */
		if (strstr(line, name) && sscanf(line, "%lx %*c %255s", &address, found) == 2 &&
		    !strcmp(found, name))
			break;
		address = 0;
	}
	fclose(file);
	return address;
}

static bool locate(const struct btf *btf, const char *root, const char *path, uint32_t *ret)
{
	uint32_t id = btf_find(btf, BTF_KIND_STRUCT, root);
	struct btf_place place;

	if (!id || !btf_locate(btf, id, path, &place) || place.hop_count || place.bits)
		return false;
	*ret = place.offset;
	return true;
}

void kernel_ptracers_locate(const struct btf *btf, struct kernel_ptracer_layout *ret)
{
	*ret = (struct kernel_ptracer_layout){0};
	if (scope() != IN_FORCE)
		return;
	if (locate(btf, "ptrace_relation", "tracer", &ret->tracer) &&
	    locate(btf, "ptrace_relation", "tracee", &ret->tracee) &&
	    locate(btf, "ptrace_relation", "invalid", &ret->invalid) &&
	    locate(btf, "ptrace_relation", "node", &ret->node) &&
	    locate(btf, "task_struct", "pid", &ret->pid))
		ret->address = find_symbol("ptracer_relations");
	ret->hidden = !ret->address;
}

static struct cr_error *read_relation(const struct kernel_ptracer_layout *layout,
				      struct kernel_peek *peek, uint64_t start, struct pool *pool,
				      struct list *ret)
{
	struct kernel_ptracer ptracer = {.tracer = PTRACER_ANYBODY}, *slot;
	uint64_t tracer, tracee;
	uint8_t invalid;

	TRY(kernel_peek(peek, start + layout->invalid, &invalid, sizeof(invalid)));
	TRY(kernel_peek(peek, start + layout->tracer, &tracer, sizeof(tracer)));
	TRY(kernel_peek(peek, start + layout->tracee, &tracee, sizeof(tracee)));
	if (invalid || !tracee)
		return NULL;
	TRY(kernel_peek(peek, tracee + layout->pid, &ptracer.tracee, sizeof(ptracer.tracee)));
	if (tracer)
		TRY(kernel_peek(peek, tracer + layout->pid, &ptracer.tracer,
				sizeof(ptracer.tracer)));
	slot = list_append(pool, ret, sizeof(*slot));
	if (!slot)
		return error_nomem();
	*slot = ptracer;
	return NULL;
}

static struct cr_error *read_all(const struct kernel_ptracer_layout *layout,
				 struct kernel_peek *peek, struct pool *pool, struct list *ret)
{
	uint64_t at = layout->address;

	*ret = (struct list){0};
	for (;;) {
		TRY(kernel_peek(peek, at, &at, sizeof(at)));
		if (at == layout->address)
			return NULL;
		if (ret->count > MOST)
			return error_new(CR_INTERNAL, "Yama's list goes in circles");
		TRY(read_relation(layout, peek, at - layout->node, pool, ret));
	}
}

/* Others on the host may change it under our eyes. */
struct cr_error *kernel_ptracers_read(const struct kernel_ptracer_layout *layout,
				      struct kernel_peek *peek, struct pool *pool, struct list *ret)
{
	enum { TRIES = 20 };
	struct cr_error *error;

	*ret = (struct list){0};
	if (!layout->address)
		return NULL;
	for (int i = 0; i < TRIES; i++) {
		error = read_all(layout, peek, pool, ret);
		if (!error)
			return NULL;
		cr_error_free(error);
	}
	return error_new(CR_HOST, "Failed to read what Yama knows of PR_SET_PTRACER");
}
